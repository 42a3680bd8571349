"""The state of a training run on disk: everything that going on exactly needs, in tensors and plain values only."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rts_batch.errors import TrainingError
from rts_batch.training.settings import TrainSettings

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
    temporary = path.with_name(path.name + ".writing")
    with temporary.open("wb") as file:
        torch.save(value, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


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
