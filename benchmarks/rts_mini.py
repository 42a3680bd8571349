"""Measures `rts-mini`: on DAVIS sequences and on synthetic clips of held-out pictures.

    python -m benchmarks.rts_mini davis DAVIS_FOLDER WEIGHTS OUT.json
    python -m benchmarks.rts_mini synthetic INDEX WEIGHTS OUT.json --also INDEX

Every frame is tracked; means leave out the first frame, whose mask is given.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from rts_batch.config import TrackerConfig
from rts_batch.masks import jaccard
from rts_batch.tracking.fast import fast_tracker
from rts_batch.training.clips.stills.films import Films
from rts_batch.training.clips.stills.random_scenes import SceneOptions
from rts_batch.training.clips.stills.stills import read_index
from rts_batch.training.clips.stills.whole_frames import HARD, LONG, truth_clips
from rts_batch.training.mini.heldout import Tracked, track_clip
from rts_batch.weights.inference import fast_networks
from rts_batch.weights.registry import Weights, load_weights

ABLATIONS: dict[str, dict[str, Any]] = {
    "mask": {},
    "box": {},
    "no_localisation": {
        "localisation_conditioning": False,
        "localisation_fallback": False,
        "not_found_threshold": 0.0,
        "update_localisation": False,
    },
    "no_memory_updates": {"update_target_model": False, "update_localisation": False},
    "no_warped_samples": {"initial_warps": ()},
}
"""Name → changes to the tracker's settings. `box` starts from the first mask's box."""

Mask = NDArray[np.bool_]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("davis", "synthetic"))
    parser.add_argument("data", type=Path, help="a folder in DAVIS's layout, or an index of stills")
    parser.add_argument("weights")
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="*", choices=ABLATIONS, default=list(ABLATIONS), help="ablations to run")
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="further indexes, of stills and footage")
    parser.add_argument("--frames", type=int, default=30, help="of a synthetic clip")
    parser.add_argument("--clips", type=int, default=40, help="synthetic clips")
    parser.add_argument("--seed", type=int, default=1, help="of the synthetic clips")
    parser.add_argument("--no-copies", action="store_true", help="no clip shows its target's own picture twice")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    weights = load_weights(arguments.weights)
    started = time.perf_counter()
    if arguments.what == "davis":
        results = davis(arguments.data, weights, arguments.only)
    else:
        indexes = [arguments.data, *arguments.also]
        options = dataclasses.replace(HARD if arguments.frames < 60 else LONG, copies=not arguments.no_copies)
        numbers = (arguments.clips, arguments.seed, arguments.frames)
        results = synthetic(indexes, weights, arguments.only, *numbers, options=options)
    document = {
        "fingerprint": weights.fingerprint,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "threads": 1,
        "seconds": round(time.perf_counter() - started),
        "results": results,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")


def davis(folder: Path, weights: Weights, names: list[str]) -> dict[str, Any]:
    """Returns J of every sequence for the copied first mask and each ablation."""
    sequences = sorted(path.name for path in (folder / "Annotations" / "480p").iterdir())
    results: dict[str, Any] = {"copy": per_sequence(folder, sequences, copies), "settings": {}}
    for name in names:
        config = dataclasses.replace(weights.tracker_config, **ABLATIONS[name])
        results[name] = per_sequence(folder, sequences, tracks(weights, config, box=name == "box"))
        results["settings"][name] = ABLATIONS[name]
        print(name, json.dumps(results[name]), flush=True)
    return results


Follow = Callable[[Iterator[NDArray[np.uint8]], Mask], Iterator[Mask]]


def per_sequence(folder: Path, sequences: list[str], follow: Follow) -> dict[str, Any]:
    """Returns the mean J of each sequence and over all of them, and the frames tracked a second."""
    scores, frames, started = {}, 0, time.perf_counter()
    for sequence in sequences:
        annotations = sorted((folder / "Annotations" / "480p" / sequence).glob("*.png"))
        masks = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0 for path in annotations]
        images = (
            np.ascontiguousarray(
                cv2.imread(str(folder / "JPEGImages" / "480p" / sequence / f"{path.stem}.jpg"))[..., ::-1]
            )
            for path in annotations
        )
        found = follow(images, masks[0])
        scores[sequence] = float(np.mean([jaccard(mine, true) for mine, true in zip(found, masks[1:], strict=True)]))
        frames += len(masks) - 1
    speed = frames / (time.perf_counter() - started)
    mean = float(np.mean(list(scores.values())))
    return {
        "mean": round(mean, 4),
        "sequences": {key: round(j, 4) for key, j in scores.items()},
        "fps": round(speed, 2),
    }


def copies(images: Iterator[NDArray[np.uint8]], mask: Mask) -> Iterator[Mask]:
    next(images)
    for _ in images:
        yield mask


def tracks(weights: Weights, config: TrackerConfig, *, box: bool) -> Follow:
    model, sta = fast_networks(weights, "cpu")

    def follow(images: Iterator[NDArray[np.uint8]], mask: Mask) -> Iterator[Mask]:
        tracker = fast_tracker(model, config, sta=sta if box else None)
        x, y, w, h = (float(value) for value in cv2.boundingRect(mask.astype(np.uint8)))
        tracker.start(next(images), mask=None if box else mask, box=(x, y, w, h))
        for image in images:
            yield tracker.step(image).mask

    return follow


def synthetic(
    indexes: list[Path],
    weights: Weights,
    names: list[str],
    count: int,
    seed: int,
    frames: int = 30,
    *,
    options: SceneOptions = HARD,
) -> dict[str, Any]:
    """Returns what trackers do on clips of held-out material with look-alikes and disappearances.

    Mean J, the share of frames on the wrong object, of absent frames that are called lost, of present ones that are, of
    good masks that are, and of returns that are found.
    """
    stills, films = (read(indexes, split="held-out") for read in (read_index, Films.read))
    clips = list(truth_clips(stills, count=count, seed=seed, frames=frames, options=options, films=films))
    results: dict[str, Any] = {"clips": count, "seed": seed, "frames": sum(len(clip.frames) - 1 for clip in clips)}
    model, sta = fast_networks(weights, "cpu")
    for name in names:
        config = dataclasses.replace(weights.tracker_config, **ABLATIONS[name])
        trackers = (fast_tracker(model, config, sta=sta if name == "box" else None) for _ in clips)
        tracked = [
            track_clip(one, clip, box=name == "box", quality=weights.quality)
            for one, clip in zip(trackers, clips, strict=True)
        ]
        results[name] = summary(tracked, frames - 1)
        print(name, json.dumps(results[name]), flush=True)
    return results


def summary(tracked: list[Tracked], frames: int) -> dict[str, Any]:
    """Sums up clips of `frames` tracked frames each; shares of nothing are null."""

    def share(part: int, whole: int) -> float | None:
        return round(part / whole, 4) if whole else None

    absent, returned = sum(one.absent for one in tracked), sum(one.returns for one in tracked)
    return {
        "jaccard": round(float(np.mean([one.jaccard for one in tracked])), 4),
        "wrong_object": round(float(np.mean([one.wrong_object for one in tracked])), 4),
        "absent_frames": absent,
        "called_lost": share(sum(one.lost for one in tracked), absent),
        "falsely_lost": share(sum(one.falsely_lost for one in tracked), frames * len(tracked) - absent),
        "good_lost": share(sum(one.good_lost for one in tracked), sum(one.good for one in tracked)),
        "returns": returned,
        "found_again": share(sum(one.found_again for one in tracked), returned),
    }


if __name__ == "__main__":
    main()
