"""Tracks one target over 10,000 frames in memory, and watches the memory of the process and of the device.

python3 -m benchmarks.gpu.long --frames 10000 --out long.json
"""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.rates import read
from benchmarks.gpu.subject import Subject, parser
from rts_batch.masks import Marking
from rts_batch.tracking.opener import SceneOpener

LOOKS = 10
"""At the memory, at equal distances."""


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--frames", type=int, default=10_000)
    options = made.parse_args()
    subject = Subject(options)
    notes = subject.notes(options.out, length=options.frames)
    for name in subject.profiles:
        notes.step(f"{name}, {options.frames} frames", long_run, subject, name, options.frames)
    return notes.finish()


def long_run(subject: Subject, name: str, count: int) -> dict[str, Any]:
    """Return the rate and MiB of both at each look, the first after a tenth of the frames."""
    scene = SceneOpener(subject.model(name), subject.config).open(1)
    image, mask = subject.frames.pairs[0]
    late: Any = scene.step(image, {1: Marking(mask=mask)})
    step = max(1, count // LOOKS)
    looks = []
    begun = time.perf_counter()
    for number in range(2, count + 1):
        found = scene.step(subject.frames.image(number))
        read(late)
        late = found
        if number % step == 0:
            looks.append([number, *(round(one, 1) for one in memory(subject.device))])
            print(number, "frames, MiB of process and device:", *looks[-1][1:], flush=True)
    read(late)
    grown = [looks[-1][place] - looks[0][place] for place in (1, 2)]
    return {
        "frames/s": (count - 1) / (time.perf_counter() - begun),
        "process MiB grown": grown[0],
        "device MiB grown": grown[1],
        "looks": looks,
    }


def memory(device: str) -> tuple[float, float]:
    """MiB of the process and of the device's allocations."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    allocated = torch.cuda.memory_allocated() / 2**20 if device != "cpu" else 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, allocated


if __name__ == "__main__":
    sys.exit(main())
