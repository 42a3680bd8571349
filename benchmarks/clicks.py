"""How good the first mask is where a target is marked by clicks, of which a box is grown for the box-to-mask network.

    python -m benchmarks.clicks DAVIS [--weights rts-mini] [--every 25] --out benchmarks/results/clicks.json

Some frames of each sequence of DAVIS 2016, whose target is one. The clicks are those of a careful person: the first
lies deepest in the target, each further one as far inside it from the others as can be; negative ones lie just
outside, far from one another. Three ways of growing a box: `around` the positive clicks, half as large again;
`grabcut`, of the part that OpenCV's segmentation by colours joins to them; and `tried`, boxes of five sizes around
them, of whose masks the one counts that has the positive clicks and not the negative ones and fits its box best, drawn
once more from its own box. Beside it the target's own box, tight and with each side up to 15 % off.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import rts_batch
from benchmarks.cpu_tracker import processor
from benchmarks.first_masks import loosened
from rts_batch.api.tracking import LoadedModel
from rts_batch.masks import Box, jaccard, mask_box

CLICKS = ((1, 0), (3, 0), (3, 2))
"""Positive and negative ones."""

SIZES = (0.1, 0.2, 0.35, 0.55, 0.8)
"""Of the frame's shorter side: boxes that are tried."""

Points = NDArray[np.int64]
"""`[N, 2]`: x, y."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("davis", type=Path)
    parser.add_argument("--weights", default="rts-mini")
    parser.add_argument("--every", type=int, default=25, help="Take every so many-th frame of a sequence.")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    model = rts_batch.load(options.weights, device="cpu")
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {}
    for picture, mask in targets(options.davis, options.every):
        for name, box in boxes_of(model, picture, mask, rng):
            drawn = None if box is None else model.mask_of(picture, box)
            found.setdefault(name, []).append(0.0 if drawn is None else jaccard(drawn, mask))
    results = {
        "machine": processor(),
        "threads": 1,
        "fingerprint": model.fingerprint,
        "frames": len(next(iter(found.values()))),
        "mean_jaccard": {name: round(statistics.mean(values), 3) for name, values in found.items()},
        "share_above_half": {name: round(float(np.mean(np.array(values) > 0.5)), 3) for name, values in found.items()},
    }
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


def targets(davis: Path, every: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
    """Yield pictures, `[H, W, 3] uint8`, with their target's mask, `[H, W] bool`."""
    for folder in sorted((davis / "Annotations" / "480p").iterdir()):
        for file in sorted(folder.glob("*.png"))[::every]:
            mask = np.asarray(Image.open(file)) > 0
            if mask.any():
                picture = davis / "JPEGImages" / "480p" / folder.name / f"{file.stem}.jpg"
                yield np.array(Image.open(picture)), mask


def boxes_of(
    model: LoadedModel, picture: NDArray[np.uint8], mask: NDArray[np.bool_], rng: np.random.Generator
) -> Iterator[tuple[str, Box | None]]:
    """Yield each way of marking a target with the box that comes of it; None where none does."""
    tight = mask_box(mask)
    assert tight is not None
    yield "box, tight", (*map(float, tight),)
    yield "box, loose", loosened(tight, rng)
    for positive, negative in CLICKS:
        inside, outside = clicks(mask, positive), clicks_beside(mask, negative)
        name = f"{positive} positive, {negative} negative clicks"
        yield f"{name}, around", around(inside, mask.shape)
        yield f"{name}, grabcut", by_colour(picture, inside, outside)
        yield f"{name}, tried", tried(model, picture, inside, outside)


def clicks(mask: NDArray[np.bool_], count: int) -> Points:
    """Points inside a mask, each as deep and as far from those before it as can be."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    points: list[tuple[int, int]] = []
    rows, columns = np.indices(mask.shape)
    worth = depth.copy()
    for _ in range(count):
        y, x = np.unravel_index(int(worth.argmax()), mask.shape)
        points.append((int(x), int(y)))
        apart = np.min([np.hypot(rows - b, columns - a) for a, b in points], axis=0)
        worth = np.where(depth >= 0.3 * depth.max(), apart, 0)
    return np.array(points)


def clicks_beside(mask: NDArray[np.bool_], count: int) -> Points:
    """Points outside a mask, some pixels from its outline."""
    if not count:
        return np.zeros((0, 2), np.int64)
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    ring = (away > 8) & (away < 20)
    return clicks(ring, count) if ring.any() else np.zeros((0, 2), np.int64)


def around(inside: Points, shape: tuple[int, ...]) -> Box:
    """The box around clicks, half as large again, and no side less than a fifth of the frame's shorter one."""
    low, high = inside.min(axis=0), inside.max(axis=0)
    side = np.maximum(1.5 * (high - low), 0.2 * min(shape[:2]))
    x, y = (low + high) / 2 - side / 2
    return float(x), float(y), float(side[0]), float(side[1])


def by_colour(picture: NDArray[np.uint8], inside: Points, outside: Points) -> Box | None:
    """The box of the part that GrabCut, begun with discs at the clicks, joins to the positive ones."""
    labels = np.full(picture.shape[:2], cv2.GC_PR_BGD, np.uint8)
    near = np.zeros_like(labels)
    radius = max(picture.shape[0] // 60, 3)
    for x, y in inside.tolist():
        cv2.circle(near, (x, y), 12 * radius, 1, -1)
    labels[near > 0] = cv2.GC_PR_FGD
    for points, value in ((outside, cv2.GC_BGD), (inside, cv2.GC_FGD)):
        for x, y in points.tolist():
            cv2.circle(labels, (x, y), radius, int(value), -1)
    cv2.grabCut(picture, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), 3, cv2.GC_INIT_WITH_MASK)
    front = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.uint8)
    _, parts = cv2.connectedComponents(front)
    box = mask_box(np.isin(parts, [parts[y, x] for x, y in inside.tolist()]) & (front > 0))
    return None if box is None else (*map(float, box),)


def tried(model: LoadedModel, picture: NDArray[np.uint8], inside: Points, outside: Points) -> Box | None:
    """The box of the mask that agrees best with the clicks, and with the box that it was drawn from."""
    best: tuple[float, Box] | None = None
    x, y = inside.mean(axis=0)
    for size in SIZES:
        side = size * min(picture.shape[:2])
        asked = (float(x - side / 2), float(y - side / 2), float(side), float(side))
        mask = model.mask_of(picture, asked)
        drawn = mask_box(mask)
        if drawn is None:
            continue
        right = sum(mask[b, a] for a, b in inside.tolist()) + sum(not mask[b, a] for a, b in outside.tolist())
        score = float(right) + iou(drawn, asked)
        if best is None or score > best[0]:
            best = score, (*map(float, drawn),)
    return best and best[1]


def iou(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """The intersection over the union of two boxes."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


if __name__ == "__main__":
    main()
