"""Fits the quality map of weights on long free runs of their own tracker over synthetic clips with their truth.

    python -m rts_batch.training.mini.quality WEIGHTS INDEX [INDEX…] -o WEIGHTS [--seconds 480] [--default FILE.json]

Beside the clips of held-out pictures nothing is looked at. `--runs FILE.npz` keeps what was fitted on, or adds it where
it exists. The weights' fingerprint stays the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from rts_batch.config import GOOD_IOU, GOOD_LEFT_OUT, QualityMap
from rts_batch.tracking.quality import INPUTS, estimated
from rts_batch.tracking.signals import Signal
from rts_batch.training.mini.quality_runs import Runs, collect
from rts_batch.weights.registry import load_weights, save_weights

_SHAPE = ("size", "edge", "compact", "rough", "compact_against_first", "rough_against_first")
LEFT_OUT = frozenset((*_SHAPE, "second", "off_peak", "seen_at_peak_logit", "jump", "age", "like_prompt"))
"""Inputs that say more of synthetic clips than of footage: without them a map fitted on clips did better on real frames
(persons who come and go before a camera that stands still). How much a mask looks like the prompt is read as its change
since the first frame."""
AS_LOGITS = frozenset(name.removesuffix("_logit") for name in INPUTS if name.endswith("_logit"))
"""Inputs of which only the logit is read. With it a map orders masks that are nearly all of a visible target as well
as `confidence` does, on clips that it has not seen; without, it did worse."""
USED = tuple(name for name in INPUTS if name not in LEFT_OUT | AS_LOGITS)
OF_THE_FRAME = frozenset(
    name
    for name in USED
    if name.removesuffix("_logit")
    in (
        *("confidence", "soft_iou", "softer_iou", "stable_1", "stable_3", "unsure", "empty"),
        *("peak", "likeness_to_first", "lowest_likeness", "like_prompt_against_first", "from_box"),
    )
)
"""What one frame's output says of its mask, and whether it still looks like the target: that is the same on footage of
any kind, where areas, movements and their history are those of the clips that a map was fitted on."""
ON_TARGET = 0.1
"""A mask of at least this IoU lies on its target, or is rightly empty."""
LOST_BELOW = 0.5
"""A mask that lies elsewhere rather than on its target is called `lost`."""
UNITS = 12
MEMBERS = 4
"""Small networks for each of the map's two outputs, fitted from different starts; together they are one, of as many
times the units."""
STEPS = 1200
BATCH = 4096
"""Frames a step, where there are as many."""
NOISE = 0.1
"""Added to the inputs while it is fitted, in standard deviations."""
UNSEEN = 0.3
"""Share of the inputs that each frame of a step goes without, so that no single one decides where footage is of another
kind than clips."""
OUTERMOST = 0.003
"""Share of the values at either end of an input's range that is taken for the range's end."""
FOLDS = 3


def fit_map(
    inputs: NDArray[np.float64], iou: NDArray[np.float64], *, origin: str, threshold: float = 0.0, steps: int = STEPS
) -> QualityMap:
    """Fit a map from inputs `[N, len(INPUTS)]` to IoU `[N]`: by cross entropy, so that it expects the mean.

    Whether a mask lies on its target is told by all that is known of it. How good it then is, by `OF_THE_FRAME`, on
    those that do.
    """
    inputs = inputs[:, [INPUTS.index(name) for name in USED]]
    lowest, highest = np.nanquantile(inputs, [OUTERMOST, 1 - OUTERMOST], axis=0)
    clipped = np.clip(inputs, lowest, highest)
    means, scales = np.nanmean(clipped, 0), np.nanstd(clipped, 0) + 1e-6
    scaled = torch.tensor(np.nan_to_num((clipped - means) / scales)).float()
    of_the_frame = torch.tensor([name in OF_THE_FRAME for name in USED]).float()
    on = iou >= ON_TARGET
    presence = _fit_members(scaled, on, 0, reads=torch.ones(len(USED)), steps=steps)
    outline = _fit_members(scaled[on], iou[on], MEMBERS, reads=of_the_frame, steps=steps)
    none = (0.0,) * (UNITS * MEMBERS)
    return QualityMap(
        origin=origin,
        threshold=threshold,
        inputs=USED,
        lowest=_rounded(lowest),
        highest=_rounded(highest),
        means=_rounded(means),
        scales=_rounded(scales),
        hidden=(*presence.hidden, *outline.hidden),
        hidden_bias=(*presence.hidden_bias, *outline.hidden_bias),
        output=(*none, *outline.output),
        output_bias=outline.output_bias,
        on_target=(*presence.output, *none),
        on_target_bias=presence.output_bias,
        lost_below=LOST_BELOW,
    )


@dataclass(frozen=True)
class _Members:
    """Several small networks as one: the mean of their logits is one output layer over all their units."""

    hidden: tuple[tuple[float, ...], ...]
    hidden_bias: tuple[float, ...]
    output: tuple[float, ...]
    output_bias: float


def _fit_members(inputs: torch.Tensor, target: NDArray[Any], seed: int, *, reads: torch.Tensor, steps: int) -> _Members:
    wanted = torch.tensor(target).float()
    members = [_fit_member(inputs, wanted, seed + place, reads=reads, steps=steps) for place in range(MEMBERS)]
    return _Members(
        hidden=tuple(_rounded(row) for hidden, _ in members for row in hidden.weight.detach().numpy()),
        hidden_bias=tuple(value for hidden, _ in members for value in _rounded(hidden.bias.detach().numpy())),
        output=tuple(value for _, out in members for value in _rounded(out.weight.detach().numpy()[0] / MEMBERS)),
        output_bias=float(np.mean([out.bias.item() for _, out in members])),
    )


def _fit_member(
    inputs: torch.Tensor, target: torch.Tensor, seed: int, *, reads: torch.Tensor, steps: int
) -> tuple[nn.Linear, nn.Linear]:
    """Fit one small network; `reads` is 1 for the inputs that it reads, else 0."""
    generator = torch.Generator().manual_seed(seed)
    hidden, out = nn.Linear(inputs.shape[1], UNITS), nn.Linear(UNITS, 1)
    with torch.no_grad():
        for layer in (hidden, out):
            layer.weight.normal_(0, layer.in_features**-0.5, generator=generator)
            layer.bias.zero_()
    optimiser = torch.optim.AdamW([*hidden.parameters(), *out.parameters()], lr=1e-2, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        chosen = torch.randint(len(inputs), (min(BATCH, len(inputs)),), generator=generator)
        noisy = inputs[chosen] + NOISE * torch.randn(len(chosen), inputs.shape[1], generator=generator)
        noisy = noisy * reads * (torch.rand(noisy.shape, generator=generator) >= UNSEEN)
        loss = functional.binary_cross_entropy_with_logits(out(torch.tanh(hidden(noisy)))[:, 0], target[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    hidden.weight.data *= reads
    return hidden, out


def _rounded(values: NDArray[np.floating]) -> tuple[float, ...]:
    """As many digits as float32 has, so that the JSON stays small."""
    return tuple(float(f"{value:.7g}") for value in values.tolist())


@dataclass(frozen=True)
class Judged:
    """What maps say of frames, `[N] float64` each."""

    iou: NDArray[np.float64]
    on_target: NDArray[np.float64]

    @classmethod
    def by(cls, quality: QualityMap, inputs: NDArray[np.float64]) -> Judged:
        """Judge inputs `[N, len(INPUTS)]`."""
        return cls(*estimated(quality, inputs))

    def lost(self, runs: Runs, lost_below: float = LOST_BELOW) -> NDArray[np.bool_]:
        """Return which frames are `lost`: to the tracker, or because their mask is not likely to lie on the target."""
        return np.asarray(runs.lost | ((runs.area > 0) & (self.on_target < lost_below)), np.bool_)


def crossed(inputs: NDArray[np.float64], runs: Runs) -> Judged:
    """Judge each frame by a map that has not seen its clip."""
    fold = runs.clip % FOLDS
    estimates = Judged(np.zeros(len(fold)), np.zeros(len(fold)))
    for number in range(FOLDS):
        apart = fit_map(inputs[fold != number], runs.iou[fold != number], origin="")
        here = Judged.by(apart, inputs[fold == number])
        estimates.iou[fold == number], estimates.on_target[fold == number] = here.iou, here.on_target
    return estimates


def threshold_of(estimates: Judged, runs: Runs) -> float:
    """Return the threshold, in thousandths, that leaves at most `GOOD_LEFT_OUT` of the good masks of targets doubted.

    Those are the ones below it, and the ones that are called `lost` whatever the threshold.
    """
    good = runs.present & (runs.iou >= GOOD_IOU)
    doubts = np.where(estimates.lost(runs), 0.0, estimates.iou)
    return math.floor(1000 * float(np.quantile(doubts[good], GOOD_LEFT_OUT))) / 1000


def auroc(estimates: NDArray[np.float64], bad: NDArray[np.bool_]) -> float:
    """Return how often a bad mask has a lower estimate than a good one; ties count half."""
    values, places = np.unique(estimates, return_inverse=True)
    bads, goods = (np.bincount(places[which], minlength=len(values)) for which in (bad, ~bad))
    above = goods.sum() - np.cumsum(goods)
    return float((bads * (above + goods / 2)).sum() / (bads.sum() * goods.sum()))


def measured(
    estimates: NDArray[np.float64],
    runs: Runs,
    threshold: float,
    lost: NDArray[np.bool_] | None = None,
) -> dict[str, float]:
    """Return how well estimates tell good masks from bad ones, and what the threshold does.

    Args:
        estimates: of the IoU, or anything that should order the frames, `[N]`.
        runs: the frames.
        threshold: below which an estimate is doubted.
        lost: which frames are called `lost`, `[N]`; None leaves that to the tracker alone.
    """
    lost = runs.lost if lost is None else lost
    doubted = (estimates < threshold) | lost
    absent, good = ~runs.present, runs.present & (runs.iou >= GOOD_IOU)

    def share(said: NDArray[np.bool_], which: NDArray[np.bool_]) -> float:
        return float(said[which].mean()) if which.any() else 0.0

    return {
        "frames": len(runs.iou),
        "mean_iou": float(runs.iou.mean()),
        "auroc": auroc(estimates, runs.iou < GOOD_IOU),
        "mean_error": float(np.abs(estimates - runs.iou).mean()),
        "absent_doubted": share(doubted, absent),
        "absent_lost": share(lost, absent),
        "good_doubted": share(doubted, good),
        "good_lost": share(lost, good),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("indexes", type=Path, nargs="*", help="index.csv of stills, and of footage")
    parser.add_argument("-o", "--output", type=Path, help="the weights file to write; may be the one that was read")
    parser.add_argument("--seconds", type=float, default=480, help="to track clips for; 0 fits on --runs alone")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="frames tracked before; the first gets these")
    parser.add_argument("--report", type=Path, help="writes how good maps are on clips they have not seen, as JSON")
    parser.add_argument("--default", type=Path, help="writes the map for weights that bring none")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    weights = load_weights(options.weights)
    earlier = [Runs.load(path) for path in options.runs if path.is_file()]
    if options.seconds:
        new = collect(weights, options.indexes, split="held-out", seed=options.seed, seconds=options.seconds)
        earlier.append(new)
        if options.runs and not options.runs[0].is_file():
            new.save(options.runs[0])
    runs = Runs.joined(earlier)
    inputs = runs.inputs()
    estimates = crossed(inputs, runs)
    threshold = threshold_of(estimates, runs)
    confidence = inputs[:, INPUTS.index(Signal.CONFIDENCE.name.lower())]
    origin = (
        f"{len(runs.iou)} frames of {len(np.unique(runs.clip))} synthetic clips, weights {weights.fingerprint[:12]}"
    )
    found = {
        "fitted_on": origin,
        "threshold": threshold,
        "quality": measured(estimates.iou, runs, threshold, estimates.lost(runs)),
        "confidence": measured(confidence, runs, 0.0),
    }
    print(json.dumps(found, indent=1))
    if options.report:
        options.report.write_text(json.dumps(found, indent=1) + "\n")
    quality = fit_map(inputs, runs.iou, origin=origin, threshold=threshold)
    if options.output:
        save_weights(dataclasses.replace(weights, quality=quality), options.output, half=_is_half(weights.metadata))
    if options.default:
        about = f"default map, fitted on other weights: {origin}"
        default = dataclasses.replace(quality, origin=about, lost_below=0.0)  # how far astray others go, it cannot know
        text = json.dumps(default.to_dict(), indent=1)
        options.default.write_text(text + "\n")


def _is_half(metadata: object) -> bool:
    return isinstance(metadata, dict) and metadata.get("stored_as") == "float16"


if __name__ == "__main__":
    main()
