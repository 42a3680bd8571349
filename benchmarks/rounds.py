"""What do lanes get from the engine? The real one among real threads, with recorded times in place of a GPU.

    python -m benchmarks.rounds [--seconds 3] [--places 4 8 16] [--out benchmarks/results/rounds.json]

The device is a clock: each stage takes what an H100 was recorded to take for `rts50` in bf16
(`benchmarks/results/gpu.json`), one after the other. The host's work takes this process's time under the
interpreter's lock, as it does in a worker. Lanes read a result a frame late and encode it.

Those times are of targets that were prepared, stored and finished one after the other. All of a round are now one
launch of each kernel, which has not run on a GPU: until it is timed there, each target still costs here what it did.

A round is as many runs of the network as have places for all lanes. `lanes a round`: how many lanes such a number of
successive runs serves, on average. `longest wait in runs`: of any lane, from when it has brought a frame and its last
one has been run, the run that serves it included; 12 of 16 lanes a round would mean 1.33 rounds, 2.7 runs of 8 places.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.cpu_tracker import processor
from rts_batch.tracking.gpu.engine import Engine, Step
from rts_batch.tracking.opener import MOST_PLACES

NETWORK_MS = {1: 2.03, 2: 2.75, 4: 4.2, 8: 7.1, 16: 12.9}
"""Of the network by places; all but the first are estimated from the recorded rounds of 2, 4, 8 and 16 lanes."""

START_MS = 38.7
PREPARE_MS, STORE_MS, FINISH_MS = 0.036, 0.160, 0.042
LEARN_MASK_MS, LEARN_PLACE_MS = 2.51, 0.86
"""What a frame adds on which the target models learn."""

DENSE, INTERVAL = 101, 20
"""On every frame before the first number they learn, then at this interval."""

ENGINE_MS, LANE_MS, ROW_MS = 0.4, 0.1, 0.25
"""The host's work for a step, in the engine's thread and in the lane's, and for a row."""


@dataclass(frozen=True)
class Case:
    """Lanes, and how they come.

    `late_ms` is what every second lane takes longer to decode; `idle` lanes have a target and bring no frame; `length`
    is that of each video, one after another, None of one that goes on and has learned.
    """

    lanes: int
    late_ms: float = 0.0
    idle: int = 0
    length: int | None = None


CASES = {
    "16 lanes, all present": Case(16),
    "16 lanes, half of them 10 ms late": Case(16, late_ms=10),
    "16 lanes, two held by trackers that are done": Case(16, idle=2),
    "4 of 16 in use": Case(16, idle=12),
    "1 of 16 in use": Case(16, idle=15),
    "4 lanes, all present": Case(4),
    "16 lanes, videos of 70 frames": Case(16, length=70),
    "16 lanes, videos of 300 frames": Case(16, length=300),
    "16 lanes, videos of 3000 frames": Case(16, length=3000),
}


class Clock:
    """The network without one: its device is a time until which it is busy."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.engine = Engine(torch.device("cpu"))
        self.served: list[list[int]] = []
        self.waits: list[int] = []
        self._free = 0.0

    def spend(self, milliseconds: float) -> float:
        """Give the device work and return when that will be done."""
        self._free = max(time.perf_counter(), self._free) + milliseconds / 1e3
        return self._free

    def run(self, targets: Sequence[Target]) -> Callable[[], bool]:
        for target in targets:
            self.waits.append(len(self.served) + 1 - max(target.brought.popleft(), target.last_run))
            target.last_run = len(self.served) + 1
        self.served.append([target.number for target in targets])
        done = self.spend(NETWORK_MS[self.places])
        return lambda: time.perf_counter() >= done


class Target:
    """A video's target, whose stages cost the clock's time."""

    def __init__(self, network: Clock, number: int, frame: int) -> None:
        self.network, self.number, self.frame = network, number, frame
        self.brought: deque[int] = deque()
        """How many runs there had been when each of its frames came."""
        self.last_run = 0

    @property
    def _learns(self) -> bool:
        return self.frame < DENSE or (self.frame - 1) % INTERVAL == 0

    def start(self) -> None:
        work(ENGINE_MS)
        done = self.network.spend(START_MS)
        time.sleep(max(0.0, done - time.perf_counter()))

    def prepare(self, frame: torch.Tensor, previous: torch.Tensor | None) -> Target:
        work(0.6 * ENGINE_MS)
        self.frame += 1
        self.network.spend(PREPARE_MS + (LEARN_MASK_MS if self._learns else 0))
        return self

    def finish(self) -> Any:
        work(0.4 * ENGINE_MS)
        return self.network.spend(FINISH_MS + STORE_MS + (LEARN_PLACE_MS if self._learns else 0))


class Lane(threading.Thread):
    """Tracks frames until the time is up."""

    def __init__(self, network: Clock, number: int, case: Case, end: float) -> None:
        super().__init__()
        self.network, self.case, self.end, self.number = network, case, end, number
        self.frames = 0

    def run(self) -> None:
        nothing = torch.zeros(0)
        # As in a run that has gone on for a while: each lane is somewhere else in its video.
        length = self.case.length
        position = DENSE + self.number if length is None else self.number * length // self.case.lanes
        while time.perf_counter() < self.end:
            target = Target(self.network, self.number, position)
            if position == 0:
                self.network.engine.call(target.start)
                self.frames += 1
                position = 1
            late: Step | None = None
            while time.perf_counter() < self.end and (length is None or position < length):
                if self.case.late_ms and self.number % 2:
                    time.sleep(self.case.late_ms / 1e3)
                work(LANE_MS)
                target.brought.append(len(self.network.served))
                step = Step(target, nothing)
                self.network.engine.post(step)
                self._read(late)
                late, position = step, position + 1
            self._read(late)
            position = 0

    def _read(self, late: Step | None) -> None:
        if late is not None:
            done: Any = late.reading.result()
            time.sleep(max(0.0, done - time.perf_counter()))
            work(ROW_MS)
            self.frames += 1


def work(milliseconds: float) -> None:
    """Keeps this thread busy under the interpreter's lock."""
    until = time.thread_time() + milliseconds / 1e3
    while time.thread_time() < until:
        pass


def simulate(case: Case, seconds: float, places: int | None = None) -> dict[str, float]:
    """Returns what a case comes to, in runs after the first."""
    places = places or min(case.lanes, MOST_PLACES)
    network = Clock(places)
    begun = time.perf_counter()
    working = case.lanes - case.idle
    lanes = [Lane(network, number, case, begun + seconds) for number in range(working)]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    elapsed = time.perf_counter() - begun
    runs = max(1, case.lanes // places)
    served = network.served[3 * runs : -3 * runs] or network.served
    rounds = [len(set().union(*served[first : first + runs])) for first in range(len(served) - runs + 1)]
    return {
        "places": places,
        "lanes a round": statistics.mean(rounds),
        "longest wait in runs": max(network.waits[3 * case.lanes : -3 * case.lanes] or network.waits),
        "frames/s": sum(lane.frames for lane in lanes) / elapsed,
    }


def main() -> None:
    """Prints a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--places", type=int, nargs="*", choices=NETWORK_MS, default=[MOST_PLACES])
    parser.add_argument("--only", choices=CASES, help="this case")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    arguments = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {}
    for name, case in CASES.items():
        if arguments.only not in (None, name):
            continue
        for places in sorted({min(case.lanes, places) for places in arguments.places}):
            found = simulate(case, arguments.seconds, places)
            results.setdefault(name, []).append({key: round(value, 2) for key, value in found.items()})
            print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in found.items()), flush=True)
    if arguments.out:
        content = {
            "what": "the real engine and lanes; the device is a clock with an H100's recorded times of rts50 in bf16",
            "machine": {"processor": processor(), "cores": os.cpu_count()},
            "seconds of each": arguments.seconds,
            "results": results,
        }
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
