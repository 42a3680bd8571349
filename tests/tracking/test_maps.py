"""Maps of 0 and 1."""

from __future__ import annotations

import torch

from rts_batch.tracking.maps import above, at_least


def test_maps_are_what_comparisons_say_as_float32() -> None:
    values = torch.tensor([[-1.0, 0.0, 0.5], [2.0, torch.inf, -torch.inf]])
    assert torch.equal(above(values), (values > 0).float())
    assert torch.equal(above(values, 0.5), (values > 0.5).float())
    assert torch.equal(at_least(values, 0.5), (values >= 0.5).float())
    assert above(values).dtype == torch.float32


def test_a_part_of_a_map_is_compared_as_a_whole_map_is() -> None:
    values = torch.linspace(-1, 1, 60).view(6, 10)
    assert torch.equal(above(values[1:4, 2:9]), above(values)[1:4, 2:9])
