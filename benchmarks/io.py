"""Times what stands between a video file and the tracker, and between a mask and its row.

Every number is a ratio or a size: the two sides of a ratio are measured in turns in the same process and the best of
each counts, so that other work on the machine falls on both.

    python -m benchmarks.io --out benchmarks/results/io.json
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
from pycocotools import mask as coco

from rts_batch.config import DecoderName
from rts_batch.io.decoding import DecodingProcess
from rts_batch.io.video import open_video
from rts_batch.masks import encode_rle
from tests.videos import make_video

CLIPS = {"480p, 60 frames": ((854, 480), 60), "1080p, 30 frames": ((1920, 1080), 30)}


def in_turns(actions: dict[str, Callable[[], Any]], times: int) -> dict[str, float]:
    """The best time of each action in seconds; they are called one after the other, `times` times over."""
    best = dict.fromkeys(actions, float("inf"))
    for _ in range(times):
        for name, action in actions.items():
            begin = time.perf_counter()
            action()
            best[name] = min(best[name], time.perf_counter() - begin)
    return best


def masks() -> Iterator[tuple[str, np.ndarray]]:
    """1080p masks of a quarter of the frame, with smooth and with ragged borders."""
    rows, columns = np.mgrid[:1080, :1920]
    distance = ((columns - 900) / 620) ** 2 + ((rows - 560) / 400) ** 2
    for name, scale in (("smooth", 50), ("ragged", 2)):
        noise = np.random.default_rng(0).standard_normal((270, 480)).astype(np.float32)
        noise = cv2.resize(cv2.GaussianBlur(noise, (0, 0), scale), (1920, 1080))
        field = distance + 0.35 * noise / np.abs(noise).max()
        yield name, field < np.quantile(field, 0.25)


def rle() -> dict[str, Any]:
    found = {}
    for name, mask in masks():
        assert encode_rle(mask) == coco.encode(np.asfortranarray(mask))["counts"]
        best = in_turns(
            {"pycocotools": lambda m=mask: coco.encode(np.asfortranarray(m)), "ours": lambda m=mask: encode_rle(m)}, 150
        )
        found[name] = {
            "times faster": round(best["pycocotools"] / best["ours"], 2),
            "ours, µs": round(best["ours"] * 1e6),
            "counts, bytes": len(encode_rle(mask)),
        }
    return found


def decoding(folder: Path) -> dict[str, Any]:
    """Frames from the decoding process against those of the bare decoder in this process."""
    found = {}
    for name, (size, frames) in CLIPS.items():
        path = str(folder / f"{size[1]}.mp4")
        make_video(path, frames, size=size)
        with DecodingProcess() as process:

            def through_the_process(path: str = path, process: DecodingProcess = process) -> None:
                with process.open(path) as source:
                    for _ in source:
                        pass

            def bare(path: str = path, decoder: DecoderName = "auto") -> None:
                with open_video(path, decoder=decoder) as source:
                    for _ in source:
                        pass

            with process.open(path) as source:
                decoder = source.info.decoder
            best = in_turns({"process": through_the_process, "bare": bare}, 8)
        found[name] = {
            "decoder": decoder,
            "share of the bare decoder's speed": round(best["bare"] / best["process"], 2),
            "frames/s": round(frames / best["process"]),
        }
    return found


def memory(folder: Path) -> dict[str, Any]:
    """The most that the input side takes while a consumer takes 12 frames of 1080p a second, in MB."""
    path = str(folder / "long.mp4")
    make_video(path, 120, size=(1920, 1080), options={"g": "48"})
    found = {}
    for decoder in ("auto", "decord"):
        most = 0
        with DecodingProcess() as process, process.open(path, decoder=decoder) as source:
            before = psutil.Process().memory_full_info().uss
            for _ in source:
                time.sleep(1 / 12)
                if process.pid is not None:
                    own = psutil.Process().memory_full_info().uss - before
                    most = max(most, own + psutil.Process(process.pid).memory_info().rss)
        found[decoder] = round(most / 1e6)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "load before": round(os.getloadavg()[0], 1),
            "RLE of a 1080p mask of 25 % area, whole frame, against pycocotools": rle(),
            "decoding": decoding(Path(folder)),
            "memory of the input side at 12 frames/s of 1080p, MB": memory(Path(folder)),
        }
    out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    print(out.read_text())


if __name__ == "__main__":
    main()
