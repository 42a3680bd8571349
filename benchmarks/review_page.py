"""The page of `rts-batch review --serve` on a long video of 1080p in a headless Chromium: how long its user waits.

    git worktree add --detach ../before 5b23256
    python -m benchmarks.review_page WORK --before ../before --out benchmarks/results/review-page.json

WORK gets a video of 10,000 frames with a key frame every 250, and a run with a mask in each, unless they are there.
This code, and another checkout's where one is given, serve it in turns. Each turn starts the server, opens the page as
soon as the address is printed, steps on and back, and jumps; each wait ends when the page has drawn the frame. "First
back" is the step backward that comes right after a jump, "on after a jump" are five steps on right after another one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.cpu_tracker import processor
from tests.support.browsing import Browser, chromium
from tests.support.run_folders import Repeated, Video, write_run
from tests.support.videos import make_long_video

HERE = Path(__file__).resolve().parent.parent
GROUP = 250
"""Frames from one key frame to the next, x264's own default."""

WATCH = """
    const told = () => {
      const stage = document.querySelector('#stage');
      if (stage?.dataset.frame !== undefined) window.firstPicture ??= performance.now();
    };
    new MutationObserver(told).observe(document, { subtree: true, childList: true, attributes: true });"""
"""Notes when the first frame is there, in ms since the address was gone to."""

SHOW = """
    const [frame, done] = arguments;
    import(new URL('view.js', location.href)).then(async ({ show }) => {
      const began = performance.now();
      await show(frame);
      done(performance.now() - began);
    });"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="a folder for the video and the run; some 300 MB")
    parser.add_argument("--before", type=Path, help="another checkout of the repository")
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--size", type=int, nargs=2, default=(1920, 1080), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jumps", type=int, default=6)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    given = parser.parse_args()
    run = make_run(given.work, given.frames, tuple(given.size))
    trees = {"before": given.before.resolve()} if given.before else {}
    trees["now"] = HERE
    waits: dict[str, dict[str, list[float]]] = {name: {} for name in trees}
    load = []
    for number in range(given.rounds):
        for name, code in trees.items():
            load.append(os.getloadavg()[0])
            for what, found in turn(code, run, given.frames, given.jumps, seed=number).items():
                waits[name].setdefault(what, []).extend(found)
            print(name, json.dumps(waits[name]), file=sys.stderr, flush=True)
    result = {
        "command": "python -m benchmarks.review_page WORK --before BEFORE --out OUT "
        f"--rounds {given.rounds} --jumps {given.jumps}",
        "machine": processor(),
        "cores": os.cpu_count(),
        "load": [round(one, 1) for one in load],
        "video": f"{given.frames} frames of {given.size[0]}×{given.size[1]}, H.264, a key frame every {GROUP}",
        "commits": {name: commit_of(code) for name, code in trees.items()},
        "unit": "ms, but for server_s",
        **{name: {what: in_short(values) for what, values in found.items()} for name, found in waits.items()},
        "all": waits,
    }
    print(json.dumps({name: result[name] for name in trees}, indent=1))
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")


def make_run(work: Path, frames: int, size: tuple[int, int]) -> Path:
    """Return a run's folder with one video of a moving disc: two groups of pictures, repeated."""
    name = f"{frames}-{size[1]}p"
    run, path = work / name, work / f"{name}.mp4"
    if (run / "done").exists():
        return run
    work.mkdir(parents=True, exist_ok=True)
    masks = make_long_video(path, frames, size=size, group=GROUP)
    write_run(run, [Video("long", str(path.resolve()), Repeated(masks, frames), {1: "disc"})])  # type: ignore[arg-type]
    (run / "done").touch()
    return run


def turn(code: Path, run: Path, frames: int, jumps: int, *, seed: int) -> dict[str, list[float]]:
    """Return the waits of one sitting, by what was waited for."""
    chance = random.Random(seed)
    waits: dict[str, list[float]] = {}
    with served(code, run) as (address, seconds), chromium() as browser:
        waits["server_s"] = [seconds]
        browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
        browser.open(address, width=1400, height=900)
        browser.until("return window.firstPicture !== undefined")
        waits["first_picture"] = [round(browser.run("return window.firstPicture"), 1)]
        waits["on"] = [show(browser, frame) for frame in range(1, 21)]
        for _ in range(jumps):
            place = chance.randrange(100, frames - 100)
            waits.setdefault("jump", []).append(show(browser, place))
            waits.setdefault("first_back", []).append(show(browser, place - 1))
            waits.setdefault("back", []).extend(show(browser, place - away) for away in range(2, 25))
            place = chance.randrange(100, frames - 100)
            waits["jump"].append(show(browser, place))
            waits.setdefault("on_after_a_jump", []).extend(show(browser, place + away) for away in range(1, 6))
    return waits


def show(browser: Browser, frame: int) -> float:
    return round(browser.driver.execute_async_script(SHOW, frame), 1)


@contextmanager
def served(code: Path, run: Path) -> Iterator[tuple[str, float]]:
    """The page's address, served by the code of a checkout, and the seconds until it was printed."""
    command = [sys.executable, "-m", "rts_batch.cli", "review", str(run.resolve()), "--serve", "--no-open", "--json"]
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=code, env=environment(code), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["address"], round(time.monotonic() - began, 2)
    finally:
        psutil.Process(process.pid).send_signal(signal.SIGINT)
        process.wait(60)


def environment(code: Path) -> Mapping[str, str]:
    return {**os.environ, "PYTHONPATH": str(code)}


def in_short(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 1),
        "p90": ordered[min(len(ordered) - 1, round(0.9 * (len(ordered) - 1)))],
        "worst": ordered[-1],
        "count": len(ordered),
    }


def commit_of(code: Path) -> str:
    command = ["git", "-C", str(code), "describe", "--always", "--dirty"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
