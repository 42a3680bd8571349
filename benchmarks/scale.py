"""What very many videos cost the driver: planning a million, and running ten thousand that take no time.

::

    python -m benchmarks.scale --out benchmarks/results/scale.json

The plan reads and checks a manifest of a million rows (one video each) and orders it, in a process of its own whose CPU
time and largest memory are measured; every call to storage is counted. The run has a tracker without a network, so
nearly all of it is the machinery itself; the driver's CPU time and memory are measured, Ray's threads in it included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rts_batch.io.storage import files

ROWS = 1_000_000
VIDEOS = 10_000


def plan(manifest: str, out: str) -> dict[str, Any]:
    """Plans as `rts-batch plan` does, and counts what it asks of storage."""
    from rts_batch.actors.prepare import look
    from rts_batch.manifest.lengths import expected_lengths
    from rts_batch.runs.settings import RunSettings

    calls = 0
    opened = files.open_filesystem

    def counting(uri: str) -> tuple[Any, str]:
        nonlocal calls
        calls += 1
        return opened(uri)

    files.open_filesystem = counting
    started, cpu = time.monotonic(), time.process_time()
    _, found = look(manifest, out, RunSettings(tracker="tests.support.stub_tracker:Stub"))
    lengths = expected_lengths(found.left)
    return {
        "videos": len(lengths),
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "largest_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "storage_calls": calls,
    }


def run(manifest: str, out: str) -> dict[str, Any]:
    """Runs a manifest and measures this process, the driver."""
    import psutil

    from rts_batch.actors.display import LineDisplay
    from rts_batch.actors.progress import RunProgress
    from rts_batch.actors.submit import submit
    from rts_batch.runs.settings import RunSettings

    memory: list[tuple[int, float]] = []

    class Watching(LineDisplay):
        def update(self, progress: RunProgress) -> None:
            if not memory or progress.done >= memory[-1][0] + 500:
                memory.append((progress.done, psutil.Process().memory_info().rss / 2**20))

    started, cpu = time.monotonic(), time.process_time()
    settings = RunSettings(tracker="tests.support.stub_tracker:Stub", workers=2, threads_per_worker=1)
    summary = submit(manifest, out, settings, display=Watching())
    used = time.process_time() - cpu
    assert summary.done == summary.videos
    early = next(megabytes for done, megabytes in memory if done >= summary.videos // 10)
    return {
        "videos": summary.videos,
        "seconds": round(time.monotonic() - started, 1),
        "driver_cpu_ms_per_video": round(1000 * used / summary.videos, 2),
        "driver_memory_mb_after_a_tenth": round(early, 1),
        "driver_memory_mb_at_the_end": round(memory[-1][1], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--videos", type=int, default=VIDEOS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", choices=("plan", "run"), help="this one alone; what OUT says of the other stays")
    parser.add_argument("--inside", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        what, manifest, out = options.inside
        print(json.dumps(plan(manifest, out) if what == "plan" else run(manifest, out)))
        return
    results: dict[str, Any] = {}
    if options.only and options.out and options.out.exists():
        results = json.loads(options.out.read_text())
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        folder = Path(name)
        if options.only != "run":
            with open(folder / "plan.csv", "w") as file:
                file.write("video,x,y,w,h,frames,category\n")
                for number in range(options.rows):
                    file.write(
                        f"s3://bucket/{number // 1000:04d}/{number:07d}.mp4,10,20,30,40,{number % 900 + 1},cat\n"
                    )
            results["plan"] = _inside("plan", folder)
        if options.only != "plan":
            from tests.support.videos import make_video

            make_video(folder / "tiny.mp4", 4, size=(64, 48))
            with open(folder / "run.csv", "w") as file:
                file.write("video,video_id,x,y,w,h,frames\n")
                for number in range(options.videos):
                    file.write(f"tiny.mp4,v{number:05d},10,10,20,20,4\n")
            results["run"] = _inside("run", folder)
    print(json.dumps(results, indent=2))
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n")


def _inside(what: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.scale", "--inside", what, str(folder / f"{what}.csv")]
    answer = subprocess.run([*command, str(folder / what)], stdout=subprocess.PIPE, text=True, check=True).stdout
    content: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return content


if __name__ == "__main__":
    main()
