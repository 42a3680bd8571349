"""Frames that are judged in their order, whoever looks at them when."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping

import numpy as np
import pytest

from rts_batch.config import QualityMap
from rts_batch.masks import Marking, TrackedFrame
from rts_batch.tracking.estimates import Estimates
from rts_batch.tracking.result import Pending
from rts_batch.tracking.signals import SIGNALS
from rts_batch.weights.registry import default_quality


@pytest.fixture(scope="module")
def quality() -> QualityMap:
    quality = default_quality()
    assert quality is not None
    return quality


def tracked(number: int) -> TrackedFrame:
    mask = np.zeros((48, 64), bool)
    mask[8:40, number % 20 : number % 20 + 20] = True
    box, area = (float(number % 20), 8.0, 20.0, 32.0), int(mask.sum())
    if number == 0:
        return TrackedFrame(mask, (0, 0, 48, 64), box, area, None, 1.0, "prompt")
    signals = tuple(np.random.default_rng(number).uniform(0.1, 0.9, len(SIGNALS) + 4).tolist())
    return TrackedFrame(mask, (0, 0, 48, 64), box, area, 0.5, 0.9, "tracked", signals=signals)


def looked_at_last(quality: QualityMap, frames: int) -> list[Mapping[int, TrackedFrame]]:
    estimates = Estimates(quality)
    prompt = {1: Marking(box=(8, 8, 20, 32))}
    return [estimates.of({1: Pending.of(tracked(n))}, {} if n else prompt) for n in range(frames)]


def test_a_thousand_frames_that_nobody_has_looked_at_are_judged_as_others_are(quality: QualityMap) -> None:
    """Each one asked the one before, which asked the one before that."""
    estimates, expected = Estimates(quality), []
    for number in range(2000):
        prompts = {} if number else {1: Marking(box=(8, 8, 20, 32))}
        expected.append(estimates.of({1: Pending.of(tracked(number))}, prompts)[1].quality)
    assert len(set(expected[1:])) > 1000
    late = looked_at_last(quality, 2000)
    assert [frames[1].quality for frames in reversed(late)] == expected[::-1]
    assert late[-1][1] is late[-1][1]


def test_frames_that_nobody_looks_at_are_not_kept(quality: QualityMap) -> None:
    estimates, kept = Estimates(quality), []
    for number in range(100):
        frame = tracked(number)
        kept.append(weakref.ref(frame.mask))
        estimates.of({1: Pending.of(frame)}, {} if number else {1: Marking(box=(0, 8, 20, 32))})
        del frame
    gc.collect()
    assert sum(mask() is not None for mask in kept) <= 10
    assert estimates.snapshot()[1]["age"] == 99
