"""The state of a training run on disk: everything that going on exactly needs, in tensors and plain values only."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rts_batch.errors import TrainingError
from rts_batch.io.storage.files import remove_temporaries, whole_file
from rts_batch.training.settings import TrainSettings

logger = logging.getLogger(__name__)

FREE_SETTINGS = ("epochs", "checkpoint_every", "keep_checkpoints", "evaluate_every", "log_every", "best", "name")
"""Settings that a resumed run may change. (`epochs` only without the cosine schedule, which depends on it.)"""


@dataclass(frozen=True)
class TrainingState:
    iteration: int
    """Iterations done."""
    settings: dict[str, Any]
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    average: dict[str, Tensor] | None
    best: float | None
    """The best value so far of the measure that `settings` name as `best`; None where there is none yet."""
    validation: Any = None
    """What that was measured on, in plain values; None in a checkpoint of an earlier version, too."""

    def weights(self) -> dict[str, Tensor]:
        """Return the state dict to evaluate or ship: the moving average where there is one."""
        return {**self.model, **(self.average or {})}


def save_state(folder: Path, state: TrainingState, *, keep: int) -> Path:
    """Write `state-<iteration>.pt` whole or not at all, then remove all but the `keep` newest (0 keeps every one)."""
    path = folder / f"state-{state.iteration:08d}.pt"
    write_atomically(path, vars(state))
    if keep:
        for old in state_files(folder)[:-keep]:
            old.unlink(missing_ok=True)
    return path


def write_atomically(path: Path, value: Any) -> None:
    with whole_file(path) as temporary, temporary.open("wb") as file:
        torch.save(value, file)


@contextmanager
def only_training(folder: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Hold a run's folder, which is made where it is not there, until the end or this process's.

    What a training that was killed there has half written is removed.

    Raises:
        TrainingError: another process holds it, for `patience` seconds, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be used as a training's folder ({error.strerror})") from error
    try:
        try:
            _lock(handle, patience)
            remove_temporaries(str(folder))
        except BlockingIOError:
            raise TrainingError(
                f"{folder}: another process trains in this folder; wait for it, stop it, or use another folder"
            ) from None
        except OSError as error:
            logger.warning("%s: others are not kept out, as its file system has no locks (%s)", folder, error.strerror)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, patience: float) -> None:
    """Lock an open file; raise `BlockingIOError` where another process holds it for `patience` seconds."""
    end = time.monotonic() + patience
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise
        time.sleep(0.2)


def state_files(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("state-*.pt") if re.fullmatch(r"state-\d+\.pt", path.name))


def load_state(path: Path) -> TrainingState:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        TrainingError: the file is damaged or not one of ours.
    """
    try:
        return TrainingState(**torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise TrainingError(
            f"{path}: not a readable checkpoint ({error}); remove it to go on from the one before"
        ) from error


def load_best(path: Path) -> dict[str, Tensor]:
    """Read the state dict of `best.pt`; raise `TrainingError` where it is damaged."""
    try:
        weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise TrainingError(f"{path}: not readable weights; remove it to take the newest checkpoint") from error
    return weights


def check_settings(state: TrainingState, settings: TrainSettings, path: Path) -> None:
    """Raise `TrainingError` where a checkpoint's run had other settings that change the result."""
    free = set(FREE_SETTINGS) - ({"epochs"} if settings.schedule == "cosine" else set())
    ours = plain(settings.to_dict())
    for name in sorted(set(ours) | set(state.settings)):
        if name not in free and ours.get(name) != state.settings.get(name):
            raise TrainingError(
                f"{path} belongs to a training with {name} = {state.settings.get(name)!r}, not {ours.get(name)!r}; "
                "use another folder or the same settings"
            )


def plain(value: Any) -> Any:
    """Return settings with tuples as lists, as a reader of JSON or of a checkpoint sees them."""
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return value
