"""Whole videos as a worker does them, without Ray: fetched, decoded, tracked, encoded and written, by lanes in threads.

    python3 -m benchmarks.gpu.whole --profiles bf16 --lanes 1 4 16 --out whole.json [--video clip.mp4]

The clip is a 480p video of 300 frames that is made for this, or one of your own. In the second turn, which is
measured, each lane has two videos.
"""

from __future__ import annotations

import os
import queue
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.gpu.subject import Subject, parser
from rts_batch.manifest import read_manifest
from rts_batch.worker.lane import Lane
from rts_batch.worker.messages import Event, Failed, Finished, Job, WorkerSettings
from rts_batch.worker.rts import RtsTracker
from rts_batch.worker.tracker import TrackerDescription
from tests.support.videos import make_video

FRAMES = 300


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--lanes", type=int, nargs="+", default=[1, 4, 16])
    made.add_argument("--video", type=Path, help="a file of yours")
    options = made.parse_args()
    subject = Subject(options)
    notes = subject.notes(options.out, video=options.video.name if options.video else "made")
    with tempfile.TemporaryDirectory(prefix="gpu-whole-") as name:
        folder = Path(name)
        video = options.video or clip(folder, subject)
        for profile in subject.profiles:
            for lanes in options.lanes:
                notes.step(f"{profile}, {lanes} lanes", worker_rate, subject, profile, lanes, video, folder)
    return notes.finish()


def clip(folder: Path, subject: Subject) -> Path:
    """Make a video of one moving target."""
    path = folder / "clip.mp4"
    make_video(path, 6 if subject.small else FRAMES, size=(subject.size[1], subject.size[0]))
    return path


def worker_rate(subject: Subject, profile: str, lanes: int, video: Path, folder: Path) -> dict[str, Any]:
    """Return frames/s of a worker with so many lanes, and of what its seconds consist."""
    mask = folder / "mask.png"
    first = cv2.VideoCapture(str(video)).read()[1]
    marked = np.zeros(first.shape[:2], np.uint8)
    height, width = marked.shape
    marked[height // 4 : height // 2, width // 5 : 2 * width // 5] = 255
    cv2.imwrite(str(mask), marked)
    tracker = RtsTracker(model=subject.model(profile), sta=None, config=subject.config, lanes=lanes)
    out = folder / f"{profile}-{lanes}"
    settings = settings_of(subject, lanes, out)
    workers = [Lane(settings, tracker=tracker) for _ in range(lanes)]
    try:
        for turn, videos in enumerate((lanes, 2 * lanes)):
            jobs = jobs_of(out.with_suffix(f".{turn}.csv"), videos, video, mask)
            before, begun = os.times(), time.perf_counter()
            ends = work_off(workers, jobs)
            seconds, after = time.perf_counter() - begun, os.times()
    finally:
        for worker in workers:
            worker._decoding.close()
    if failed := [end.message for end in ends if isinstance(end, Failed)]:
        raise RuntimeError(f"{len(failed)} of {len(ends)} videos failed: {failed[0]}")
    done = [end for end in ends if isinstance(end, Finished)]
    steps: Counter[str] = Counter()
    for end in done:
        steps.update(end.steps)
    frames = sum(end.frames for end in done)
    return {
        "frames/s": frames / seconds,
        "frames": frames,
        "cores of this process": (after.user + after.system - before.user - before.system) / seconds,
        **{f"{name} s of the lanes": round(spent, 2) for name, spent in steps.items()},
    }


def settings_of(subject: Subject, lanes: int, out: Path) -> WorkerSettings:
    about = TrackerDescription(
        weights="", fingerprint="0" * 64, device="cpu" if subject.device == "cpu" else "cuda", boxes=False, settings={},
        environment={},
    )  # fmt: skip
    return WorkerSettings(out=str(out), factory="", tracker=about, decoder="pyav", threads=1, extras={}, lanes=lanes)


def jobs_of(manifest: Path, count: int, video: Path, mask: Path) -> queue.SimpleQueue[Job | None]:
    """Return jobs for a video under so many names, each marked by the mask on its first frame."""
    rows = [f"{manifest.stem}-{number},{video.absolute()},{mask}" for number in range(count)]
    manifest.write_text("\n".join(["video_id,video,mask", *rows]) + "\n")
    jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
    for task in read_manifest(str(manifest)).tasks:
        jobs.put(Job(task=task, attempt=1))
    return jobs


def work_off(workers: list[Lane], jobs: queue.SimpleQueue[Job | None]) -> list[Event]:
    """Return how each job ended."""
    ends: list[Event] = []

    def work(worker: Lane) -> None:
        while (job := jobs.get()) is not None:
            *_, last = worker.run(job)
            ends.append(last)

    for _ in workers:
        jobs.put(None)
    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


if __name__ == "__main__":
    sys.exit(main())
