"""How a run's throughput grows with workers, their threads and lanes.

    python -m benchmarks.workers --out benchmarks/results/workers.json

Each setting is a submission of the same videos; every round has all settings, one after the other. The rate is that of
the run's own summary, which begins once the workers are wanted and Ray has been started, so that a worker's loading of
the model counts. More workers and lanes than cores and videos can use gain nothing: on a small machine this shows what
sharing it costs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.cpu_tracker import processor
from benchmarks.pipeline import submitted
from rts_batch.actors.cluster import usable_cores
from tests.support.videos import make_video


def settings(cores: int) -> list[dict[str, int]]:
    """One worker with one thread, with all, with lanes; and as many workers as cores."""
    return [
        {"workers": 1, "threads-per-worker": 1, "lanes": 1},
        {"workers": 1, "threads-per-worker": cores, "lanes": 1},
        {"workers": 1, "threads-per-worker": cores, "lanes": 2},
        {"workers": 1, "threads-per-worker": cores, "lanes": 4},
        {"workers": cores, "threads-per-worker": 1, "lanes": 1},
        {"workers": cores, "threads-per-worker": 1, "lanes": 2},
    ]


def rate(manifest: Path, setting: dict[str, int], out: Path, device: str) -> float:
    """Returns the run's frames a second."""
    summary = submitted(manifest, out, {"device": device, **setting})
    if summary["failed"]:
        raise SystemExit(f"{out}: {summary['failed']} videos failed")
    found: float = summary["frames_per_second"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 272), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cores = usable_cores()
    rates: list[list[float]] = []
    with tempfile.TemporaryDirectory(prefix="workers-") as name:
        folder = Path(name)
        masks = make_video(folder / "video.mp4", options.frames, size=tuple(options.size))
        cv2.imwrite(str(folder / "mask.png"), masks[0, 0].astype(np.uint8) * 255)
        rows = [f"{number},{folder / 'video.mp4'},{folder / 'mask.png'}" for number in range(options.videos)]
        manifest = folder / "videos.csv"
        manifest.write_text("\n".join(["video_id,video,mask", *rows]) + "\n")
        for turn in range(options.rounds):
            rates.append([])
            for place, setting in enumerate(settings(cores)):
                rates[-1].append(rate(manifest, setting, folder / f"run-{turn}-{place}", options.device))
                print(setting, rates[-1][-1], "frames/s", file=sys.stderr, flush=True)
    results = [
        setting
        | {
            "frames/s": round(statistics.median(each[place] for each in rates), 2),
            "times the first": round(statistics.median(each[place] / each[0] for each in rates), 2),
        }
        for place, setting in enumerate(settings(cores))
    ]
    content = {
        "what": f"rts-mini, {options.videos} videos of {options.frames} frames of {options.size[0]}×{options.size[1]}, "
        "medians of rounds",
        "command": "make bench-workers",
        "machine": {"processor": processor(), "cores": cores, "device": options.device, "torch": torch.__version__},
        "rounds": options.rounds,
        "load_at_end": round(os.getloadavg()[0], 1),
        "results": results,
    }
    print(json.dumps(content, indent=1, ensure_ascii=False))
    if options.out:
        options.out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
