"""Ctrl-C and SIGTERM, before there is a pool that could finish anything."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from rts_batch.actors.interruptions import Interruptions, sigterm_as_interrupt


def test_sigterm_is_an_interruption_and_afterwards_what_it_was() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), sigterm_as_interrupt():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_one_that_was_swallowed_stops_the_run_once_there_is_a_pool() -> None:
    with sigterm_as_interrupt():
        with Interruptions().watching() as interruptions:
            assert not interruptions.now
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        with Interruptions().watching() as interruptions:
            assert interruptions.finish
            assert interruptions.now
