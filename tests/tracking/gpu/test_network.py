"""Places of the network: how many are run at once, and that it makes no difference."""

from __future__ import annotations

import pytest
import torch

from rts_batch.config import RTS50, RTS_MINI
from rts_batch.tracking.gpu.network import BatchedNetwork, Slot, places_at_once
from tests.support.trackers import SMALL, as_on_a_gpu


@pytest.mark.networks
@pytest.mark.parametrize("at_once", [1, 2])
def test_slots_get_the_same_however_many_are_run_at_once(at_once: int) -> None:
    model = as_on_a_gpu()
    together = BatchedNetwork(model, SMALL, places=3)
    apart = BatchedNetwork(model, SMALL, places=3, at_once=at_once)
    assert (together.at_once, apart.at_once, apart.places) == (3, at_once, 3)
    torch.manual_seed(0)
    values = [[torch.rand_like(each) for each in apart.lease().inputs] for _ in range(3)]

    def run(network: BatchedNetwork) -> list[Slot]:
        slots = [network.lease() for _ in values]
        for slot, given in zip(slots, values, strict=True):
            for own, one in zip(slot.inputs, given, strict=True):
                own.copy_(one)
        assert network.run(slots)()
        return slots

    for mine, theirs in zip(
        *(network.engine.call(lambda n=network: run(n)) for network in (apart, together)), strict=True
    ):
        for own, other in zip(mine.outputs, theirs.outputs, strict=True):
            torch.testing.assert_close(own, other)


def test_few_places_of_a_large_network_are_run_one_by_one_where_heuristics_decide(monkeypatch) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    assert [places_at_once(places, RTS50, gpu) for places in (1, 2, 4, 8)] == [1, 1, 1, 8]
    assert places_at_once(4, RTS_MINI, gpu) == 4
    assert places_at_once(4, RTS50, torch.device("cpu")) == 4
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    assert places_at_once(4, RTS50, gpu) == 4
