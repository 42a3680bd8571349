"""Whole runs by default settings, by this code and by another checkout of it, in turns.

    git worktree add --detach ../before 6bb463f
    python -m benchmarks.versions ../before --crop-size 240x416 --out benchmarks/results/versions.json

Both submit the same videos with nothing but a manifest, so the run decides its workers, threads and precision itself.
This code takes the search regions' size that it is given, where its weights' own is another than the other's.
Frames per second are the run's own (loading the model counts, starting Ray does not); beside them stand the whole
command's seconds and the largest resident size of a worker. The other checkout runs in this Python, its code first.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from benchmarks.cpu_tracker import processor
from tests.support.videos import make_video

HERE = Path(__file__).resolve().parent.parent


def run_of(code: Path, manifest: Path, out: Path, options: list[str]) -> dict[str, Any]:
    """Submit `manifest` with the code of a checkout; return its rate, seconds and a worker's largest resident size."""
    command = [sys.executable, "-P", "-m", "rts_batch.cli", "submit", str(manifest), "--out", str(out), *options]
    environment = {**os.environ, "PYTHONPATH": str(code)}
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=out.parent, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    largest = 0
    while process.poll() is None:
        largest = max([largest, *sizes_below(psutil.Process(process.pid))])
        time.sleep(0.25)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{code} failed: {process.stderr.read() if process.stderr else ''}")
    summary = json.loads((out / "summary.json").read_text())
    return {
        "frames_per_second": round(summary["frames_per_second"], 3),
        "command_seconds": round(seconds, 1),
        "worker_mib": round(largest / 2**20),
    }


def sizes_below(command: psutil.Process) -> list[int]:
    """Return the resident bytes of each process that a command has begun; the largest ones track."""
    sizes = []
    try:
        below = command.children(recursive=True)
    except psutil.Error:
        return []
    for process in below:
        with contextlib.suppress(psutil.Error):
            sizes.append(process.memory_info().rss)
    return sizes


def write_manifest(folder: Path, *, videos: int, frames: int, size: tuple[int, int]) -> Path:
    """Make a video of one target and a manifest that tracks it under several names, each from its true mask."""
    masks = make_video(folder / "video.mp4", frames, size=size)
    cv2.imwrite(str(folder / "mask.png"), masks[0, 0].astype(np.uint8) * 255)
    rows = [f"{number},{folder / 'video.mp4'},{folder / 'mask.png'}" for number in range(videos)]
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(["video_id,video,mask", *rows]) + "\n")
    return manifest


def middle(runs: list[dict[str, Any]], key: str) -> float:
    return statistics.median(run[key] for run in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="another checkout of the repository")
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 272), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--crop-size", metavar="HEIGHTxWIDTH", help="for this code; the other takes its weights'")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    given = parser.parse_args()
    options = {"before": [], "now": ["--crop-size", given.crop_size] if given.crop_size else []}
    trees = {"before": given.before.resolve(), "now": HERE}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in trees}
    with tempfile.TemporaryDirectory(prefix="versions-") as name:
        folder = Path(name)
        manifest = write_manifest(folder, videos=given.videos, frames=given.frames, size=tuple(given.size))
        for number in range(given.rounds):
            for tree, code in trees.items():
                runs[tree].append(run_of(code, manifest, folder / f"{tree}-{number}", options[tree]))
                print(tree, json.dumps(runs[tree][-1]), file=sys.stderr, flush=True)
    commit = ["git", "-C", str(trees["before"]), "rev-parse", "--short", "HEAD"]
    result = {
        "machine": processor(),
        "cores": os.cpu_count(),
        "before": subprocess.run(commit, check=True, capture_output=True, text=True).stdout.strip(),
        "videos": given.videos,
        "frames": given.frames,
        "size": list(given.size),
        "crop_size": given.crop_size,
        "ratio": {
            key: round(middle(runs["now"], key) / middle(runs["before"], key), 3)
            for key in ("frames_per_second", "command_seconds", "worker_mib")
        },
        "runs": runs,
    }
    print(json.dumps(result, indent=2))
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
