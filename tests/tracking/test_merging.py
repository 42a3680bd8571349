"""Merged targets: their measures, and that nobody waits for them before somebody looks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rts_batch.masks import Marking
from rts_batch.model.fast.networks import fast
from rts_batch.tracking.gpu.network import BatchedNetwork
from rts_batch.tracking.gpu.tracker import GpuTracker
from rts_batch.tracking.merging import measure_labels, merged_frame, soft_aggregation
from rts_batch.tracking.result import Arrival, StepResult
from rts_batch.tracking.scene import Scene
from rts_batch.weights.registry import build_model, load_weights
from tests.support.parity_data import synthetic_frame
from tests.support.trackers import SMALL


def test_measures_are_those_of_the_masks() -> None:
    torch.manual_seed(0)
    scores = torch.randn(3, 9, 12)
    scores[2] = -50  # which is nowhere
    labels, merged = soft_aggregation(scores)
    measured = measure_labels(labels, merged)
    result = StepResult(scores[0], (0, 0, 9, 12), (0, 0, 1, 1), 0.5, True, False, 7.0, (1.0,))
    for place in range(3):
        frame = merged_frame(measured, place, lambda: result, prompted=False)
        mask = labels.numpy() == place + 1
        assert np.array_equal(frame.mask, mask)
        assert frame.area == mask.sum()
        assert frame.state == ("tracked" if frame.area else "mask_lost")
        if not frame.area:
            assert (frame.box, frame.confidence) == (None, None)
            continue
        rows, columns = np.nonzero(mask)
        assert frame.box == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert frame.confidence == pytest.approx(merged[place].numpy()[mask].mean(), abs=1e-6)
    prompted = merged_frame(measured, 0, lambda: result, prompted=True)
    assert (prompted.state, prompted.score, prompted.confidence, prompted.signals) == ("prompt", None, 1.0, None)


@pytest.mark.networks
def test_a_gpus_targets_are_waited_for_when_they_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fast(build_model(load_weights("rts-mini"), "cpu"))
    network = BatchedNetwork(model, SMALL, places=2)

    def scene() -> Scene:
        return Scene(model, SMALL, single=False, tracker=lambda *given, **kw: GpuTracker(*given, network=network, **kw))

    frames = [synthetic_frame(96, 128, index) for index in range(4)]
    prompts = {1: Marking(mask=frames[0][1]), 2: Marking(mask=np.roll(frames[0][1], 40, axis=1))}
    with scene() as at_once:
        expected = [dict(at_once.step(frame, {} if index else prompts)) for index, (frame, _) in enumerate(frames)]
    waits: list[int] = []
    wait = Arrival.wait
    monkeypatch.setattr(Arrival, "wait", lambda self: (waits.append(1), wait(self))[1])
    with scene() as late:
        found = [late.step(frame, {} if index else prompts) for index, (frame, _) in enumerate(frames)]
        assert not waits
        for mine, theirs in zip(found, expected, strict=True):
            for object_id, frame in theirs.items():
                assert np.array_equal(mine[object_id].mask, frame.mask)
                assert (mine[object_id].box, mine[object_id].score) == (frame.box, frame.score)
        assert waits
