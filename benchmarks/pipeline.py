"""How much of the bare tracker's speed the whole pipeline keeps, on the CPU with the small model.

::

    python -m benchmarks.pipeline --out benchmarks/results/pipeline.json

Pairs are interleaved, so that a machine that slows down slows both. The bare tracker steps through frames that are in
memory already. The pipeline is a submission of the same frames as a video to one worker, from the moment it begins to
fetch to the moment its masks are in place; starting Ray and loading the model are left out, as they are for the bare
tracker. Both have the same networks and tracker and use every core, with threads that sleep while they wait for each
other, as the workers' do (ones that spin make the bare tracker ten times slower as soon as anything else runs). The
pipeline's decoding process takes its share of the cores. The rest is what the worker's own clocks say about waiting for
frames, encoding masks and writing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rts_batch.actors.cluster import usable_cores

WEIGHTS = "rts-mini"


def bare(video: Path, mask: Path, threads: int) -> float:
    """Frames per second of the tracker alone."""
    import cv2
    import torch

    from rts_batch.io.video.opening import open_video
    from rts_batch.masks import Marking
    from rts_batch.tracking.fast import fast_tracker
    from rts_batch.tracking.scene import Scene
    from rts_batch.weights.inference import fast_networks
    from rts_batch.weights.registry import load_weights

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    weights = load_weights(WEIGHTS)
    model, _ = fast_networks(weights, "cpu")
    scene = Scene(model, weights.tracker_config, single=True, tracker=fast_tracker)
    with open_video(str(video)) as source:
        frames = [frame.image.copy() for frame in source]
    prompt: NDArray[np.bool_] = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE) > 0
    started = time.perf_counter()
    for number, frame in enumerate(frames):
        scene.step(frame, {} if number else {1: Marking(mask=prompt)})
    return len(frames) / (time.perf_counter() - started)


def submitted(manifest: Path, out: Path, options: dict[str, Any]) -> dict[str, Any]:
    """How a submission ended: its summary. `options` are those of the command, by their names without dashes."""
    words = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command = [
        sys.executable,
        "-m",
        "rts_batch.cli",
        "submit",
        str(manifest),
        "--out",
        str(out),
        "--weights",
        WEIGHTS,
    ]
    subprocess.run([*command, *words], check=True, capture_output=True)
    content: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return content


def pipeline(video: Path, mask: Path, threads: int, out: Path) -> dict[str, Any]:
    """How the submission of one video ended: its summary."""
    manifest = out.with_suffix(".csv")
    manifest.write_text(f"video,mask\n{video},{mask}\n")
    return submitted(manifest, out, {"device": "cpu", "workers": 1, "threads-per-worker": threads})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--size", type=int, nargs=2, default=(854, 480), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--out", type=Path)
    parser.add_argument("--bare", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        print(bare(Path(options.bare[0]), Path(options.bare[1]), options.threads))
        return
    from tests.support.videos import make_video

    pairs = []
    with tempfile.TemporaryDirectory(prefix="pipeline-") as name:
        folder = Path(name)
        video, mask = folder / "video.mp4", folder / "mask.png"
        masks = make_video(video, options.frames, size=tuple(options.size))
        import cv2

        cv2.imwrite(str(mask), masks[0, 0].astype(np.uint8) * 255)
        for number in range(options.pairs):
            command = [sys.executable, "-m", "benchmarks.pipeline", "--bare", str(video), str(mask)]
            command += ["--threads", str(options.threads)]
            environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
            shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
            alone = float(shown.split()[-1])
            summary = pipeline(video, mask, options.threads, folder / f"run-{number}")
            whole = summary["frames"] / summary["worker_seconds"]
            pairs.append(
                {
                    "bare_frames_per_second": round(alone, 3),
                    "pipeline_frames_per_second": round(whole, 3),
                    "ratio": round(whole / alone, 3),
                    "seconds": summary["worker_seconds"],
                    "step_seconds": summary["step_seconds"],
                }
            )
            print(json.dumps(pairs[-1]), file=sys.stderr, flush=True)
    result = {
        "weights": WEIGHTS,
        "frames": options.frames,
        "size": list(options.size),
        "threads": options.threads,
        "median_ratio": statistics.median(pair["ratio"] for pair in pairs),
        "pairs": pairs,
    }
    print(json.dumps(result, indent=2))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
