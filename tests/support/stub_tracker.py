"""A tracker without a network, whose failures are columns of the manifest.

It moves the prompt's mask by a pixel a frame and scores it by the picture, so that its results depend on the frames and
on nothing else. `sleep` is seconds per frame; `log` is a file to which every step adds the time, its process, its
thread and its video; `raise_at`, `exit_at`, `kill_at`, `segfault_at`, `hang_at` and `allocate_at` are frames counted
from the prompt; with `once` (a path) the trouble comes only while that file does not exist.
"""

from __future__ import annotations

import ctypes
import io
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rts_batch.config import TrackerConfig
from rts_batch.errors import CheckpointError
from rts_batch.manifest import VideoTask
from rts_batch.masks import Marking, TrackedFrame, mask_box
from rts_batch.runs.settings import RunSettings
from rts_batch.worker.overlaps import shared_pixels
from rts_batch.worker.tracker import TrackerDescription


class StubScene:
    def __init__(self, task: VideoTask) -> None:
        self.video_id = task.video_id
        self.knobs: Mapping[str, Any] = task.targets[0].extras
        self.masks: dict[int, NDArray[np.bool_]] = {}
        self.absent: set[int] = set()
        self.steps = 0
        self.divided: dict[int, int] = {}
        """What a scene that merges would say; masks stay whole here."""
        self.closed = False

    def annotate(self, image: NDArray[np.uint8], prompts: Mapping[int, Marking]) -> dict[int, TrackedFrame]:
        self.masks = {}
        return self.step(image, prompts)

    def step(self, image: NDArray[np.uint8], prompts: Mapping[int, Marking]) -> dict[int, TrackedFrame]:
        self._log()
        self._make_trouble()
        self.steps += 1
        self.divided = shared_pixels(prompts)
        height, width = image.shape[:2]
        self.absent = (self.absent | {key for key, prompt in prompts.items() if prompt.absent}) - {
            key for key, prompt in prompts.items() if not prompt.absent
        }
        for object_id, prompt in prompts.items():
            if prompt.absent:
                self.masks[object_id] = np.zeros((height, width), bool)
                continue
            mask = prompt.mask
            if mask is None:
                assert prompt.box is not None
                x, y, w, h = (round(side) for side in prompt.box)
                mask = np.zeros((height, width), bool)
                mask[max(0, y) : y + h, max(0, x) : x + w] = True
            self.masks[object_id] = mask
        results = {}
        for object_id, mask in self.masks.items():
            prompted, absent = object_id in prompts, object_id in self.absent
            if not prompted:
                mask = self.masks[object_id] = np.roll(mask, 1, axis=1)
            area = int(mask.sum())
            results[object_id] = TrackedFrame(
                mask=mask,
                region=(0, 0, height, width),
                box=mask_box(mask),
                area=area,
                score=None if prompted or absent else float(image.mean()) / 255,
                confidence=float(image[mask].mean()) / 255 if area else None,
                state="lost" if absent else "prompt" if prompted else "tracked",
            )
        return results

    def snapshot(self) -> bytes:
        content = io.BytesIO()
        masks = {str(key): mask for key, mask in self.masks.items()}
        np.savez(content, steps=np.array(self.steps), absent=np.array(sorted(self.absent), int), **masks)
        return content.getvalue()

    def close(self) -> None:
        self.closed = True

    def restore(self, state: bytes) -> None:
        try:
            content = np.load(io.BytesIO(state))
        except ValueError as error:
            raise CheckpointError(str(error)) from error
        self.steps = int(content["steps"])
        self.absent = set(content["absent"].tolist())
        self.masks = {int(name): content[name] for name in content.files if name not in ("steps", "absent")}

    def _log(self) -> None:
        if self.knobs.get("log"):
            with open(self.knobs["log"], "a") as log:  # one write, which others' do not cut in two
                log.write(f"{time.monotonic()} {os.getpid()} {threading.get_native_id()} {self.video_id}\n")

    def _make_trouble(self) -> None:
        time.sleep(self.knobs.get("sleep") or 0.0)
        once = self.knobs.get("once")
        if once and Path(once).exists():
            return
        trouble = [name for name in TROUBLES if self.knobs.get(f"{name}_at") == self.steps]
        if trouble and once:
            Path(once).touch()
        for name in trouble:
            TROUBLES[name]()


def _raise() -> None:
    raise RuntimeError("the stub was told to raise")


def _hang() -> None:
    while True:  # without taking a core from the tests beside this one
        time.sleep(60)


def _allocate() -> None:
    """Takes 20 GB where this process may have one more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    np.ones(20 * 2**30, np.uint8)


TROUBLES = {
    "raise": _raise,
    "exit": lambda: os._exit(7),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
    "hang": _hang,
    "allocate": _allocate,
}


class StubTracker:
    def open_scene(self, task: VideoTask, state: bytes | None = None) -> StubScene:
        scene = StubScene(task)
        if state is not None:
            scene.restore(state)
        return scene


class Stub:
    """The factory. `weights` says what there is: `no-boxes` lacks an STA network, `other` has another fingerprint."""

    @staticmethod
    def describe(settings: RunSettings) -> TrackerDescription:
        weights = settings.weights or "stub"
        return TrackerDescription(
            weights=weights,
            fingerprint=f"fingerprint of {weights}",
            device="cpu",
            boxes=weights != "no-boxes",
            settings={"tracker": settings.tracker_config(TrackerConfig()).to_dict()},
            environment={"device": "cpu"},
            overlap=settings.overlap,
        )

    @staticmethod
    def load(description: TrackerDescription, *, threads: int, lanes: int) -> StubTracker:
        if description.weights == "cannot-load":
            raise OSError("the stub was told not to load")
        return StubTracker()


class ForkableStub(Stub):
    """The same, for a process that divides itself."""

    @staticmethod
    def read(description: TrackerDescription, *, threads: int, lanes: int) -> Callable[[], StubTracker]:
        tracker = Stub.load(description, threads=threads, lanes=lanes)
        return lambda: tracker
