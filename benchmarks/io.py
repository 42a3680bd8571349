"""Times what stands between a video file and the tracker, and between a mask and its row.

Every number is a ratio or a size. The two sides of a ratio are measured in turns, so that other work on the machine
falls on both; given are the ratio of the best times and the median of the turns' ratios.

The bare decoders do what the decoding process does before its copy: all frames in order as RGB, by one thread of the
decoder (decord's works beside its reader's), each left in the decoder's own memory, which is kept from frame to frame
by the same settings of glibc. What comes on top is the look at the file before it is decoded, the copy into the ring,
in a thread of its own, and a message to this process, which takes the frames as a worker does. Without a second free
core nothing of that is hidden, and the ratio nears that of the processor time, which is given too.

    python -m benchmarks.io --out benchmarks/results/io.json
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import decord
import numpy as np
import psutil
from av.video.reformatter import VideoReformatter
from pycocotools import mask as coco

from rts_batch.io.video.isolated.channel import REUSE
from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.masks import encode_rle
from tests.support.videos import make_video

CLIPS = {
    "480p, 200 frames": ((854, 480), 200),
    "480p, 600 frames": ((854, 480), 600),
    "1080p, 40 frames": ((1920, 1080), 40),
    "1080p, 240 frames": ((1920, 1080), 240),
}


class Turns:
    """Actions called one after the other, over and over, so that whatever else the machine does hits each alike."""

    def __init__(self, actions: dict[str, Callable[[], Any]], times: int) -> None:
        self._seconds: dict[str, list[float]] = {name: [] for name in actions}
        for _ in range(times):
            for name, action in actions.items():
                begin = time.perf_counter()
                action()
                self._seconds[name].append(time.perf_counter() - begin)

    def best(self, name: str) -> float:
        """Seconds."""
        return min(self._seconds[name])

    def ratio(self, one: str, other: str) -> dict[str, float]:
        """How many times longer `one` takes."""
        turns = zip(self._seconds[one], self._seconds[other], strict=True)
        return {
            "best": round(self.best(one) / self.best(other), 2),
            "median": round(statistics.median(seconds / others for seconds, others in turns), 2),
        }


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
        turns = Turns(
            {"pycocotools": lambda m=mask: coco.encode(np.asfortranarray(m)), "ours": lambda m=mask: encode_rle(m)}, 100
        )
        found[name] = {
            "times faster": turns.ratio("pycocotools", "ours"),
            "ours, µs": round(turns.best("ours") * 1e6),
            "counts, bytes": len(encode_rle(mask)),
        }
    return found


def bare_decord(path: str) -> None:
    reader = decord.VideoReader(path, num_threads=1)
    for _ in range(len(reader)):
        reader.next()


def bare_pyav(path: str) -> None:
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = 1
        reformatter = VideoReformatter()
        for frame in container.decode(stream):
            reformatter.reformat(frame, format="rgb24", threads=1)


def processor_seconds(action: Callable[[], Any], *pids: int | None, times: int = 3) -> float:
    """What some processes, this one among them, spend on an action."""

    def spent() -> float:
        return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in (None, *pids))

    before = spent()
    for _ in range(times):
        action()
    return (spent() - before) / times


def decoding(folder: Path) -> dict[str, Any]:
    """Frames from the decoding process against those of the decoder that `auto` takes, by itself in this process."""
    found = {}
    for name, (size, frames) in CLIPS.items():
        path = str(folder / f"{size[1]}-{frames}.mp4")
        make_video(path, frames, size=size)
        with DecodingProcess() as process:

            def through_the_process(path: str = path, process: DecodingProcess = process) -> str:
                with process.open(path) as source:
                    for _ in source.lent():
                        pass
                return source.info.decoder

            decoder = through_the_process()
            bare = functools.partial({"decord": bare_decord, "pyav": bare_pyav}[decoder], path)
            turns = Turns({"process": through_the_process, "bare": bare}, 24)
            spent = processor_seconds(through_the_process, process.pid) / processor_seconds(bare)
        found[name] = {
            "decoder": decoder,
            "share of the bare decoder's speed": turns.ratio("bare", "process"),
            "processor time, times the bare decoder's": round(spent, 2),
            "frames/s": round(frames / turns.best("process")),
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
            for _ in source.lent():
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
    if not os.environ.keys() >= REUSE.keys():  # glibc looks at them when a process begins
        os.execve(sys.executable, sys.orig_argv, os.environ | REUSE)
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
