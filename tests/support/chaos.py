"""Runs that are disturbed on purpose: three raylets, sixty short videos, and everything that can go away goes away.

::

    python -m tests.support.chaos --seeds 0 1 2 --out benchmarks/results/chaos.md
    python -m tests.support.chaos --seeds 0 --lanes 2 --out benchmarks/results/chaos-lanes.md

Of one seed: up to twenty workers (actors and their processes, at random) are killed with SIGKILL, each after a random
number of reported frames; one node is lost; one is drained as preempted and then removed; the driver is killed and the
same command run again. The masks must be those of an undisturbed run, byte for byte, and no video lost or failed. The
tracker is the tests' own, which sleeps where a network would compute; with several lanes it sleeps so many times
longer, so that a run takes as long.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from rts_batch.actors.display import LineDisplay
from tests.support.running import STUB, masks_of, write_manifest
from tests.support.videos import make_video

VIDEOS = 60
NODES = 3
KILLS = 20
HEADER = """# Runs that are disturbed on purpose

`make chaos` writes this table (`tests/support/chaos.py` says what it does): sixty short videos on three raylets,
workers killed with SIGKILL after random numbers of frames, one node lost, one drained as preempted and removed, the
driver killed once and the same command run again. Wanted: every video done, none failed, the bytes of an undisturbed
run, at most three times its duration. Each worker tracks {lanes} at a time.
"""
SECONDS_PER_FRAME = 0.1
TROUBLES = ("actor", "process", "lost node", "preempted node", "driver")
LENGTHS = (10, 14, 18, 22, 26, 30)
ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
}


@dataclass
class Driver:
    """The submission, in a process of its own that reports its frames several times a second."""

    manifest: Path
    out: Path
    address: str
    lanes: int
    frames: int = 0
    summary: dict[str, Any] = field(default_factory=dict)

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.support.chaos", "--lanes", str(self.lanes)]
        command += ["--drive", self.address, str(self.manifest), str(self.out)]
        log = open(self.out.with_suffix(".log"), "a")  # noqa: SIM115 - the process has it as long as it lives
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True)
        self._reader = threading.Thread(target=self._read, args=(self.process, self.frames), daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[str], before: int) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "summary":
                self.summary = event
            elif event["event"] == "status":
                self.frames = max(self.frames, before + event["frames"])

    def finish(self) -> int:
        code = self.process.wait(900)
        self._reader.join()
        return code


def drive(address: str, manifest: str, out: str, *, lanes: int) -> int:
    """What runs inside the driver's process."""
    from rts_batch.actors.submit import submit
    from rts_batch.runs.settings import RunSettings

    settings = RunSettings(
        tracker=STUB[1],
        device="cpu",
        workers=NODES,
        threads_per_worker=1,
        lanes=lanes,
        address=address,
        checkpoint_every=1.0,
    )
    display = LineDisplay(stream=sys.stdout, as_json=True, interval=0.2)
    summary = submit(manifest, out, settings, display=display)
    print(json.dumps({"event": "summary", **summary.to_dict()}), flush=True)
    return summary.exit_code


class Nodes:
    """Three raylets of one CPU each, beside a head that runs no worker."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 * 2**20}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.workers: list[Any] = []
        for _ in range(NODES):
            self.add()

    def add(self) -> None:
        self.workers.append(self.cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20, wait=False))

    def lose(self, rng: random.Random) -> None:
        """Takes a node away without a word, and has another one come."""
        node = self.workers.pop(rng.randrange(len(self.workers)))
        self.cluster.remove_node(node, allow_graceful=False)
        self.add()

    def preempt(self, rng: random.Random) -> threading.Thread:
        """Drains a node as a cloud does with its spot machines, takes it away later, and has another one come."""
        node = self.workers.pop(rng.randrange(len(self.workers)))
        command = ["drain-node", "--node-id", node.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
        command += ["--reason-message", "spot", "--deadline-remaining-seconds", "15"]
        ray = str(Path(sys.executable).with_name("ray"))

        def go() -> None:
            subprocess.run([ray, *command, "--address", self.cluster.address], check=True, capture_output=True)
            time.sleep(16)
            self.cluster.remove_node(node, allow_graceful=False)

        thread = threading.Thread(target=go)
        thread.start()
        self.add()
        return thread

    def close(self) -> None:
        self.cluster.shutdown()


def kill_a_worker(rng: random.Random) -> str | None:
    """SIGKILL for one actor that has a video, or for its process below; returns which."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            words = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if "rts_batch.worker" in words:
            found.append((process, "process"))
        elif "ray::WorkerActor" in words:
            found.append((process, "actor"))
    if not found:
        return None
    process, what = rng.choice(sorted(found, key=lambda one: one[0].pid))
    process.kill()
    return what


@dataclass
class Outcome:
    seed: int | None
    seconds: float
    code: int
    troubles: dict[str, int]
    summary: dict[str, Any]
    masks: dict[str, bytes]
    attempts: int


def run(seed: int | None, manifest: Path, out: Path, *, lanes: int) -> Outcome:
    """One run; with a seed it is disturbed."""
    nodes = Nodes()
    driver = Driver(manifest, out, nodes.cluster.address, lanes)
    troubles = dict.fromkeys(TROUBLES, 0)
    started = time.monotonic()
    try:
        driver.start()
        if seed is not None:
            disturb(random.Random(seed), nodes, driver, troubles)
        code = driver.finish()
        seconds = time.monotonic() - started
    finally:
        if driver.process.poll() is None:
            driver.process.kill()
        nodes.close()
    attempts = sum(json.loads(path.read_text())["attempt"] for path in (out / "videos").iterdir())
    return Outcome(seed, seconds, code, troubles, driver.summary, masks_of(out), attempts)


def disturb(rng: random.Random, nodes: Nodes, driver: Driver, troubles: dict[str, int]) -> None:
    """Waits for each trouble's number of frames, makes it and counts it."""
    total = VIDEOS * sum(LENGTHS) // len(LENGTHS)
    threads: list[threading.Thread] = []

    def kill() -> None:
        what = kill_a_worker(rng)
        if what is not None:
            troubles[what] += 1

    def lose() -> None:
        nodes.lose(rng)
        troubles["lost node"] += 1

    def preempt() -> None:
        threads.append(nodes.preempt(rng))
        troubles["preempted node"] += 1

    def restart() -> None:
        driver.process.kill()
        driver.process.wait()
        driver.start()
        troubles["driver"] += 1

    plan: list[tuple[int, Callable[[], object]]] = [
        *((rng.randrange(10, total), kill) for _ in range(KILLS)),
        (rng.randrange(total // 10, total // 2), lose),
        (rng.randrange(total // 10, total // 2), preempt),
        (rng.randrange(total // 3, 2 * total // 3), restart),
    ]
    for frames, trouble in sorted(plan, key=lambda one: one[0]):
        while driver.frames < frames and driver.process.poll() is None:
            time.sleep(0.05)
        if driver.process.poll() is not None:
            break  # what a killed attempt had reported counts, so the last troubles may come too late
        trouble()
    for thread in threads:
        thread.join()


def judge(outcome: Outcome, undisturbed: Outcome) -> list[str]:
    """What is wrong with a disturbed run; nothing, it is to be hoped."""
    summary = outcome.summary
    wrong = [f"exit code {outcome.code}"] if outcome.code else []
    if (summary.get("done"), summary.get("failed")) != (VIDEOS, 0):
        wrong.append(f"{summary.get('done')} done, {summary.get('failed')} failed")
    if outcome.masks != undisturbed.masks:
        wrong.append("other masks")
    if outcome.seconds > 3 * undisturbed.seconds:
        wrong.append(f"{outcome.seconds / undisturbed.seconds:.1f} times as long")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where the table goes")
    parser.add_argument("--drive", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        return drive(*options.drive, lanes=options.lanes)
    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        for length in LENGTHS:
            make_video(folder / f"{length}.mp4", length)
        rows = [
            {"video": f"{LENGTHS[number % len(LENGTHS)]}.mp4", "video_id": f"v{number:02}", "box": [30, 30, 20, 20]}
            | {"sleep": SECONDS_PER_FRAME * options.lanes, "frames": LENGTHS[number % len(LENGTHS)]}
            for number in range(VIDEOS)
        ]
        manifest = write_manifest(folder / "manifest.jsonl", rows)
        undisturbed = run(None, manifest, folder / "undisturbed", lanes=options.lanes)
        assert not judge(undisturbed, undisturbed), (folder / "undisturbed.log").read_text()
        columns = ("seed", "killed actors", "killed processes", "lost nodes", "preempted nodes", "killed drivers")
        columns += ("attempts", "done", "failed", "same bytes", "time", "verdict")
        lines = [
            HEADER.format(lanes="one video" if options.lanes == 1 else f"{options.lanes} videos"),
            f"| {' | '.join(columns)} |",
            "|---" * len(columns) + "|",
            f"| none | 0 | 0 | 0 | 0 | 0 | {undisturbed.attempts} | {VIDEOS} | 0 | | {undisturbed.seconds:.0f} s | |",
        ]
        failures = 0
        for seed in options.seeds:
            out = folder / f"seed-{seed}"
            outcome = run(seed, manifest, out, lanes=options.lanes)
            wrong = judge(outcome, undisturbed)
            failures += bool(wrong)
            if wrong:
                print((folder / f"seed-{seed}.log").read_text(), file=sys.stderr)
            summary = outcome.summary
            lines.append(
                f"| {seed} | {' | '.join(map(str, outcome.troubles.values()))} | {outcome.attempts} | "
                f"{summary.get('done')} | {summary.get('failed')} | "
                f"{'yes' if outcome.masks == undisturbed.masks else 'NO'} | {outcome.seconds:.0f} s, "
                f"{outcome.seconds / undisturbed.seconds:.2f} × | {'; '.join(wrong) or 'as it should be'} |"
            )
            print(lines[-1], flush=True)
            if options.out:
                options.out.write_text("\n".join(lines) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
