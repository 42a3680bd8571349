"""A training step on a GPU, checked without one: on PyTorch's `meta` device, which knows shapes and places alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rts_batch.training.clips.batches import Batch
from rts_batch.training.loop import Trainer
from rts_batch.training.mini import recipe as mini
from rts_batch.training.mini.recipe import MINI, MINI_STA
from rts_batch.training.objectives import build_network
from rts_batch.training.settings import TrainSettings
from tests.support.training_tiny import SETTINGS, TINY, TINY_STA

pytestmark = pytest.mark.training

MINIATURES = tuple(
    dataclasses.replace(settings, iterations=1)
    for settings in (
        dataclasses.replace(SETTINGS, rules="paper"),
        dataclasses.replace(MINI, model=dataclasses.replace(TINY, previous_mask=True)),
        dataclasses.replace(MINI_STA, model=TINY_STA),
    )
)


class OnOneDevice(TorchDispatchMode):
    """Refuses operations that mix devices, but for numbers, which may come from the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.brought = 0
        """Tensors copied to the other device; unless they lie in pinned memory, the copy waits for the GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        places = {
            value.device.type for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor) and value.dim()
        }
        name = func.overloadpacket.__name__
        if "meta" in places:
            assert places == {"meta"}, f"{name} mixes devices"
        result = func(*args, **kwargs)
        if name in ("_to_copy", "copy_") and places == {"cpu"} and result.device.type == "meta":
            self.brought += 1
        return result


def batch(settings: TrainSettings) -> Batch:
    shape = (4, settings.batch)
    return Batch(
        255 * torch.rand(*shape, 3, 48, 64),
        torch.zeros(*shape, 48, 64),
        torch.tensor([10.0, 10, 20, 20]).expand(*shape, 4),
        1,
        previous=torch.zeros(*shape, 48, 64) if settings.objective.startswith("mini") else None,
    )


@pytest.mark.parametrize("settings", MINIATURES, ids=lambda settings: settings.name)
def test_a_step_stays_on_its_device(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the batch travels, and nothing comes back, which this device has no values for."""
    monkeypatch.setattr(mini, "TRACKED", 1.0)
    monkeypatch.setattr(mini, "SCORES_HIDDEN", 0.0)
    trainer = Trainer(build_network(settings), settings, device="meta")
    given = batch(settings)
    with OnOneDevice() as watched:
        parts = trainer.step(given)
    assert watched.brought == 3 + (given.previous is not None)
    assert {part.device.type for part in parts.values()} == {"meta"}


def test_a_mixture_would_be_seen() -> None:
    there, here = torch.ones(3, 3, device="meta"), torch.ones(3, 3)
    with OnOneDevice() as watched:
        with pytest.raises(AssertionError, match="mixes devices"):
            there @ here
        here.to("meta")
    assert watched.brought == 1
