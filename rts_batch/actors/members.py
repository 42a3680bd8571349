"""One actor of the pool as the driver knows it, and what Ray says about its end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
)

from rts_batch.actors.coordinator import Failure
from rts_batch.manifest import VideoTask
from rts_batch.worker.messages import FailureKind


@dataclass
class InHand:
    """A video that a member has, and the last frame of it that was reported."""

    task: VideoTask
    frame: int | None = None


@dataclass(kw_only=True)
class Member:
    """One actor. It is starting (`ready` set), busy (it has videos) or idle."""

    id: str
    actor: Any
    ready: Any = None
    answer: Any = None
    """What it will say next, while it has videos."""
    videos: dict[str, InHand] = field(default_factory=dict)
    """By key; one for each lane that is not free."""
    name: str = ""
    node: str = ""
    heard: float = field(default_factory=time.monotonic)
    """When it last said something; before that, when it was asked for."""
    sealed: bool = False
    """It gets no further video until it has none: one is a suspect, or something broke in its process."""
    leaving: bool = False
    """It was told to leave and gets no further video."""


def failure_of(error: RayError, member: Member) -> Failure:
    """What the end of an actor, or of its answer, means for a video that it had."""
    kind: FailureKind = "killed"
    if isinstance(error, RayTaskError):
        return _failure(member, "killed", type(error.cause).__name__, str(error.cause))
    if isinstance(error, OutOfMemoryError):
        # Ray's own watch over the node's memory chose this worker.
        among_others = len(member.videos) > 1
        return _failure(member, "suspected" if among_others else "crash", "OutOfMemoryError", first_line(error))
    if isinstance(error, RayActorError) and (error.preempted or _node_is_lost(error)):
        kind = "preempted"
    return _failure(member, kind, type(error).__name__, reason(error))


def _failure(member: Member, kind: FailureKind, error: str, message: str) -> Failure:
    return Failure(kind=kind, error=error, message=message, worker=member.name)


def _node_is_lost(error: RayActorError) -> bool:
    # Ray has no field for it: an actor that cannot be reached any more has usually lost its node, of which Ray is sure
    # only half a minute later; one that died with its node says so.
    said = any(words in str(error) for words in ("node has died", "node was terminated"))
    return said or isinstance(error, ActorUnavailableError)


def failed_in_init(error: RayError) -> bool:
    return isinstance(error, ActorDiedError) and bool(getattr(error, "actor_init_failed", False))


def draining_nodes() -> set[str]:
    """Ids of the nodes that Ray has been told will go away soon."""
    try:
        return set(ray._private.state.state.get_draining_nodes())
    except Exception:  # a private interface: without it, videos of drained nodes begin again elsewhere
        return set()


def reason(error: BaseException) -> str:
    """The sentence of Ray's error that says what happened, without its identifiers."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in lines:
        if line.startswith("The actor is dead because"):
            return line.split(" Some common causes")[0]
    return lines[-1] if lines else type(error).__name__


def first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]
