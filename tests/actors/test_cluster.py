"""Ray, found and reached."""

from __future__ import annotations

import threading

import pytest

from rts_batch.actors.cluster import _within


def test_a_cluster_that_never_answers_is_waited_for_only_so_long() -> None:
    forever = threading.Event()
    with pytest.raises(TimeoutError, match="no answer within 0 s"):
        _within(0.05, lambda: wait_for(forever))
    with pytest.raises(ConnectionError, match="refused"):
        _within(60, fail_to_connect)
    _within(60, lambda: None)


def wait_for(event: threading.Event) -> None:
    event.wait(60)


def fail_to_connect() -> None:
    raise ConnectionError("refused")
