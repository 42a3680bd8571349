"""Sequences for training: one clip, a batch of them, and a seeded stream of batches.

A clip is a pure function of a random generator, and the generator of the i-th clip depends on the seed and on i alone.
So the stream is the same with any number of loader processes, it can be entered at any batch (a resumed training sees
what an uninterrupted one would have seen), and several workers cut every global batch among themselves.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import active_children, resource_tracker
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from rts_batch.errors import RtsBatchError
from rts_batch.io import processes

ABSENT_BOX = (0.0, 0.0, -1.0, -1.0)
"""The box of a frame without target; its label is zero everywhere."""


@dataclass(frozen=True)
class Clip:
    """N frames of one target: `train_frames` that the learners see, then those that they are judged by."""

    images: Tensor
    """`[N, 3, H, W] float32`, RGB 0…255."""
    masks: Tensor
    """`[N, H, W] float32`, 1 on the object."""
    boxes: Tensor
    """`[N, 4] float32`: x, y, w, h in crop pixels; `ABSENT_BOX` (a negative extent) where the target is absent."""
    train_frames: int
    previous: Tensor | None = None
    """`[N, H, W] float32`: the previous frame's mask in each crop, for networks that read it."""
    skipped: tuple[str, ...] = ()
    """What could not be read on the way to this clip, for the count of the training."""


@dataclass(frozen=True)
class Batch(Clip):
    """S clips side by side: a second axis in each tensor, `[N, S, …]`."""

    @staticmethod
    def of(clips: Sequence[Clip]) -> Batch:
        """Stack clips of the same length, size and number of train frames."""
        return Batch(
            torch.stack([clip.images for clip in clips], dim=1),
            torch.stack([clip.masks for clip in clips], dim=1),
            torch.stack([clip.boxes for clip in clips], dim=1),
            clips[0].train_frames,
            previous=_stacked([clip.previous for clip in clips]),
            skipped=tuple(reason for clip in clips for reason in clip.skipped),
        )

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Batch:
        def move(values: Tensor) -> Tensor:
            return values.to(device, dtype, non_blocking=True)

        return self._each(move)

    def pin_memory(self) -> Batch:
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        previous = None if self.previous is None else change(self.previous)
        return replace(
            self, images=change(self.images), masks=change(self.masks), boxes=change(self.boxes), previous=previous
        )

    @property
    def sequences(self) -> int:
        return int(self.images.shape[1])


def _stacked(values: Sequence[Tensor | None]) -> Tensor | None:
    present = [value for value in values if value is not None]
    return torch.stack(present, dim=1) if present else None


class ClipMaker(Protocol):
    """Makes one clip from a random generator alone; picklable, since loader processes call it."""

    def __call__(self, rng: np.random.Generator, /) -> Clip: ...


class BatchSource(Protocol):
    """What the loop reads: the batches from iteration `start` on, for ever or to an end."""

    def batches(self, start: int, /) -> Iterator[Batch]: ...


def clip_generator(seed: int, index: int) -> np.random.Generator:
    """Return the random generator of the `index`-th clip of a stream."""
    return np.random.default_rng([seed, index])


class ClipStream:
    """An endless `BatchSource` over a `ClipMaker`.

    Args:
        make: the clip maker.
        batch: clips in a global batch.
        seed: of the stream; use another one for validation.
        loaders: loader processes; 0 makes the clips in this process.
        rank, workers: this worker's place among those that share each global batch; `batch` must divide by `workers`.
    """

    def __init__(
        self, make: ClipMaker, *, batch: int, seed: int, loaders: int = 0, rank: int = 0, workers: int = 1
    ) -> None:
        if batch % workers:
            raise ValueError(f"a batch of {batch} clips cannot be shared by {workers} workers; make it divisible")
        self.clips = _IndexedClips(make, seed)
        self.batch, self.rank, self.workers, self.loaders = batch, rank, workers, loaders

    def batches(self, start: int = 0) -> Iterator[Batch]:
        options: dict[str, Any] = {}
        if self.loaders:
            begin = functools.partial(_start_loader, folder=os.getcwd())
            # Spawned, not forked: OpenCV and PyTorch keep thread pools that a fork would leave dead.
            options = {"multiprocessing_context": "spawn", "worker_init_fn": begin, "prefetch_factor": 2}
        loader = DataLoader(
            self.clips,
            batch_sampler=_Places(start, self.batch, self.rank, self.workers),
            num_workers=self.loaders,
            collate_fn=_batch_of,
            pin_memory=torch.cuda.is_available(),
            **options,
        )
        if not self.loaders:
            return _unwrapped(iter(loader))
        others = active_children()
        with processes.elsewhere(), _spared():
            batches = iter(loader)
        loaders = [child for child in active_children() if child not in others]
        # At its end Python sends SIGTERM to what is left of them, after an error say, and waits; they do not get that.
        Finalize(batches, _kill, args=(loaders,), exitpriority=0)
        return _unwrapped(batches)


@contextlib.contextmanager
def _spared() -> Iterator[None]:
    """Have processes that are started meanwhile get neither SIGINT nor SIGTERM, as they inherit what is blocked."""
    # Ctrl-C in a terminal, and a batch system's SIGTERM, reach all processes of the group. It is the training that
    # ends then, after the iteration that still needs its loaders; when it has ended, so have they.
    resource_tracker.ensure_running()  # which lets both through again when it is started
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(loaders: Sequence[BaseProcess]) -> None:
    left = [loader for loader in loaders if loader.is_alive()]
    if left:  # PyTorch's handler would tell of them as of loaders that died, behind the error that ends the training
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for loader in left:
        loader.kill()


def _unwrapped(batches: Iterator[Batch | RtsBatchError]) -> Iterator[Batch]:
    for batch in batches:
        if isinstance(batch, RtsBatchError):
            raise batch
        yield batch


def _batch_of(clips: Sequence[Clip | RtsBatchError]) -> Batch | RtsBatchError:
    """Return the clips as a batch, or the first error among them."""
    return next((clip for clip in clips if isinstance(clip, RtsBatchError)), None) or Batch.of(cast(list[Clip], clips))


class _IndexedClips(Dataset[Clip | RtsBatchError]):
    def __init__(self, make: ClipMaker, seed: int) -> None:
        self.make, self.seed = make, seed

    def __getitem__(self, index: int) -> Clip | RtsBatchError:
        try:
            return self.make(clip_generator(self.seed, index))
        except RtsBatchError as error:
            # Raised in a loader process it would come as one whose message is a traceback.
            return error


class _Places(Sampler[list[int]]):
    """The places of this worker's clips in the stream, batch after batch, from batch `start` on."""

    def __init__(self, start: int, batch: int, rank: int, workers: int) -> None:
        self.start, self.batch, self.share = start, batch, batch // workers
        self.offset = rank * self.share

    def __iter__(self) -> Iterator[list[int]]:
        iteration = self.start
        while True:
            first = iteration * self.batch + self.offset
            yield list(range(first, first + self.share))
            iteration += 1


def _start_loader(_: int, *, folder: str) -> None:
    import cv2

    os.chdir(folder)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
