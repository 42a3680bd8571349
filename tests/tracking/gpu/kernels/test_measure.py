"""A mask's measures by two kernels against those by tensor operations, under Triton's interpreter.

The interpreter is chosen when Triton is imported, so the comparison runs in a process of its own.
"""

from __future__ import annotations

import pytest
import torch

from rts_batch.config import MODELS
from rts_batch.tracking.gpu.steps import SlotSteps
from rts_batch.tracking.signals import SIGNALS
from tests.support.interpreter import interpreted
from tests.support.slots import slot_and_branches

CROP = (96, 176)
IMAGE = (96, 128)


@pytest.mark.long
def test_kernels_measure_what_the_tensor_operations_do() -> None:
    interpreted("tests.tracking.gpu.kernels.test_measure")


def masks() -> dict[str, torch.Tensor]:
    """Logits of masks of several kinds."""
    y, x = (torch.arange(float(side)) for side in CROP)
    smooth = torch.nn.functional.interpolate(torch.randn(1, 1, 6, 11), CROP, mode="bicubic")[0, 0]
    return {
        "blob": 6 - 0.3 * torch.hypot(y[:, None] - 40, x[None, :] - 101.5),
        "over the border": 4 - 0.1 * torch.hypot(y[:, None] - 2, x[None, :] - 170),
        "ragged": 4 * torch.randn(CROP),
        "parts": 5 * smooth,
        "a pixel": torch.full(CROP, -8.0).index_put((torch.tensor(95), torch.tensor(175)), torch.tensor(3.0)),
        "nothing": torch.full(CROP, -9.0),
        "all": torch.full(CROP, 9.0),
    }


@torch.no_grad()
def compare(device: str) -> None:
    """Measure both ways, and hold each signal to the other's."""
    from rts_batch.tracking.gpu.kernels.steps import KernelSteps

    torch.manual_seed(0)
    slot, branches = slot_and_branches(*MODELS["rts-mini"], crop_size=CROP, device=device)
    ours, theirs = (kind(slot, branches, IMAGE) for kind in (KernelSteps, SlotSteps))
    rounds = KernelSteps.rounds(slot.network)
    ours.to_finish = True
    for number, (name, logits) in enumerate(masks().items()):
        ours.logits.copy_(logits)
        ours.score_map.copy_(torch.rand_like(ours.score_map) - (0.9 if name == "nothing" else 0.1))
        ours.x_s.copy_(torch.randn_like(ours.x_s))
        for steps in (ours, theirs):
            steps.state.prompt_features.copy_(ours.x_s.flip(0) if number else ours.x_s)
            steps.state.prompt_coverage.copy_(torch.nn.functional.avg_pool2d((logits > 0).float()[None], 16)[0])
            steps.see_prompt()
        theirs._measure()
        rounds.table[1].copy_(torch.tensor(ours.row()))
        features, _, score_maps, logits_of_places = slot.network.outputs
        for values, own in ((features, ours.x_s), (score_maps, ours.score_map), (logits_of_places, ours.logits)):
            values[1].copy_(own)
        rounds._measure(features, score_maps, logits_of_places)
        for place, (mine, other) in enumerate(zip(ours.signals.tolist(), theirs.signals.tolist(), strict=True)):
            what = SIGNALS[place].name if place < len(SIGNALS) else f"feature {place - len(SIGNALS)}"
            assert mine == pytest.approx(other, rel=2e-4, abs=2e-4, nan_ok=True), (name, what)


@pytest.mark.gpu
def test_on_a_gpu_kernels_measure_what_the_tensor_operations_do() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pytest.importorskip("triton")
    compare("cuda")


if __name__ == "__main__":
    compare("cpu")
