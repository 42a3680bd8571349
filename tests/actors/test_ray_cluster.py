"""What Ray says about the end of an actor, in the pool's words."""

from __future__ import annotations

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayError, RayTaskError

from rts_batch.actors.members import Lost
from rts_batch.actors.ray_cluster import lost


def died(said: str = "it is gone", *, preempted: bool = False, in_init: bool = False) -> ActorDiedError:
    error = ActorDiedError()
    error.error_msg, error._preempted, error._actor_init_failed = said, preempted, in_init
    error.args = (said,)
    return error


DEAD = "The actor is dead because its worker process has died."


@pytest.mark.parametrize(
    ("error", "kind", "name", "message"),
    [
        (died(f"id: 12\n{DEAD} Some common causes include: …"), "killed", "ActorDiedError", DEAD),
        (died(preempted=True), "preempted", "ActorDiedError", "it is gone"),
        (died("its node has died"), "preempted", "ActorDiedError", "its node has died"),
        (ActorUnavailableError("no answer", None), "preempted", "ActorUnavailableError", "no answer"),
        (OutOfMemoryError("memory ran low\nand more"), "crash", "OutOfMemoryError", "memory ran low"),
        (RayTaskError("work", "the trace", OSError("no space")), "killed", "OSError", "no space"),
        (RayError("something else"), "killed", "RayError", "something else"),
    ],
)
def test_the_end_of_an_actor(error: RayError, kind: str, name: str, message: str) -> None:
    found = lost(error)
    assert (found.kind, found.error) == (kind, name)
    assert message in found.message
    assert not found.cannot_start


def test_an_actor_that_raised_while_it_was_made_would_raise_again() -> None:
    assert lost(died(in_init=True)).cannot_start
    assert isinstance(lost(died(in_init=True)), Lost)
