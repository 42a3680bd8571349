"""How many lanes does a run of the network serve? The real meeting of threads, with recorded times in place of a GPU.

    python -m benchmarks.rounds [--seconds 2] [--only "4 of 16 in use"]

Lanes are threads that prepare a frame, meet the others at `BatchedNetwork.results_of`, read their result a frame late
and encode it. The device is a clock: a run takes what an H100 was recorded to take for `rts50` in bf16. The host's work
takes this process's time under the interpreter's lock, as it does in a worker.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from dataclasses import dataclass

from rts_batch.tracking.gpu.batch import BatchedNetwork, Slot

NETWORK_MS = {1: 2.03, 2: 2.75, 4: 4.2, 8: 7.1, 16: 12.9}
"""Of the network by places, estimated between the recorded rounds of 1, 2, 4, 8 and 16 lanes."""

SLOT_MS = 0.33
"""What each lane adds outside the network."""

STEP_MS, ROW_MS = 0.5, 0.25
"""The host's work for a step and for a row."""


@dataclass(frozen=True)
class Case:
    """Lanes, and how they come.

    `late_ms` is what every second lane takes longer to decode; `idle` lanes have a slot and bring no frame.
    """

    name: str
    lanes: int
    late_ms: float = 0.0
    idle: int = 0


CASES = (
    Case("16 lanes, all present", 16),
    Case("16 lanes, half of them 10 ms late", 16, late_ms=10),
    Case("16 lanes, two held by trackers that are done", 16, idle=2),
    Case("4 of 16 in use", 16, idle=12),
    Case("4 lanes, all present", 4),
)


class Clock(BatchedNetwork):
    """The batch without a network: its device is a time until which it is busy."""

    def __init__(self, lanes: int) -> None:
        self._begin_meetings()
        self.slots = [Slot(self, number, None) for number in range(lanes)]
        self.served: list[int] = []
        self.done = [0.0] * lanes
        self._free = 0.0

    def _run_on_device(self) -> None:
        seconds = (NETWORK_MS[len(self.slots)] + SLOT_MS * len(self._arrived)) / 1e3
        self._free = max(time.perf_counter(), self._free) + seconds
        self.served.append(len(self._arrived))
        for slot in self._arrived:
            self.done[slot.number] = self._free

    def _busy(self) -> bool:
        return time.perf_counter() < self._free


class Lane(threading.Thread):
    """Tracks frames until the time is up."""

    def __init__(self, clock: Clock, number: int, case: Case, end: float) -> None:
        super().__init__()
        self.clock, self.case, self.end, self.number = clock, case, end, number
        self.frames = 0

    def leave(self) -> None:
        """See `gpu.batch.Owner`."""

    def run(self) -> None:
        """Prepares, meets, reads late and encodes."""
        before = 0.0
        while time.perf_counter() < self.end:
            if self.case.late_ms and self.number % 2:
                time.sleep(self.case.late_ms / 1e3)
            with self.clock.holding(self) as slot:
                work(0.7 * STEP_MS)
                with self.clock.results_of([slot]):
                    done = self.clock.done[slot.number]
                    work(0.3 * STEP_MS)
            before, late = done, before
            time.sleep(max(0.0, late - time.perf_counter()))
            work(ROW_MS)
            self.frames += 1


def work(milliseconds: float) -> None:
    """Keeps this thread busy under the interpreter's lock."""
    until = time.thread_time() + milliseconds / 1e3
    while time.thread_time() < until:
        pass


def simulate(case: Case, seconds: float) -> dict[str, float]:
    """Returns lanes that a run of the network served, on average after the first rounds, and frames a second."""
    clock = Clock(case.lanes)
    begun = time.perf_counter()
    lanes = [Lane(clock, number, case, begun + seconds) for number in range(case.lanes)]
    idle = lanes[len(lanes) - case.idle :]
    for lane in idle:
        with clock.holding(lane):
            pass
    working = lanes[: len(lanes) - case.idle]
    for lane in working:
        lane.start()
    for lane in working:
        lane.join()
    frames = sum(lane.frames for lane in working)
    settled = clock.served[3:-3] or clock.served
    return {"lanes a round": statistics.mean(settled), "frames/s": frames / (time.perf_counter() - begun)}


def main() -> None:
    """Prints a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only", choices=[case.name for case in CASES], help="this case")
    arguments = parser.parse_args()
    for case in (case for case in CASES if arguments.only in (None, case.name)):
        found = simulate(case, arguments.seconds)
        print(f"{case.name}: " + ", ".join(f"{key} {value:.1f}" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
