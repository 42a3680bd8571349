"""The training loop: batches in; checkpoints, curves and evaluations out.

A folder holds one run. Calling `train` again on it goes on from its newest checkpoint and ends with the very weights of
an uninterrupted run: the batches depend on the seed and their place, the rates on the iteration, and whatever a step
draws at random on seed, iteration and worker.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rts_batch.errors import TrainingError
from rts_batch.training.checkpoints import (
    TrainingState,
    check_settings,
    load_state,
    plain,
    save_state,
    state_files,
    write_atomically,
)
from rts_batch.training.clips.batches import Batch, BatchSource
from rts_batch.training.curves import CurveFile, Window
from rts_batch.training.distributed import Workers
from rts_batch.training.objectives import Objective, objective_of
from rts_batch.training.optimisation import MovingAverage, build_optimizer, set_rates, use_precision
from rts_batch.training.settings import TrainSettings

logger = logging.getLogger(__name__)

Evaluate = Callable[[nn.Module], Mapping[str, float]]
"""Called with the model (its moving average where there is one), without gradients, on the leading worker."""

Outcome = Literal["finished", "stopped"]

LOSSES: Final = ("loss", "lovasz", "localisation")
"""Measures whose names have one of these words are losses: the lower the better."""


class Trainer:
    """One worker's training run, as its state between two iterations.

    Args:
        model: the network, already initialised and on `device`.
        settings: the run.
        workers: the group that shares each batch.
        device: where the model is.
        objective: from a batch to a loss; by default the one that `settings.objective` names.
        validation: what it is evaluated on, in plain values.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSettings,
        *,
        workers: Workers | None = None,
        device: torch.device | str = "cpu",
        objective: Objective | None = None,
        validation: Any = None,
    ) -> None:
        self.model, self.settings = model.to(device), settings
        self.workers = workers or Workers.current()
        self.device = torch.device(device)
        self.objective = objective or objective_of(settings)
        self.optimizer = build_optimizer(model, settings)
        self.average = MovingAverage(model, settings.ema) if settings.ema else None
        self.iteration = 0
        self.best: float | None = None
        self.validation = validation
        use_precision(model, settings, self.device)

    @property
    def trained(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Train on one batch and return the unweighted terms, means over the workers."""
        torch.manual_seed(step_seed(self.settings.seed, self.iteration, self.workers.rank))
        set_rates(self.optimizer, self.settings, self.iteration)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.objective(self.model, batch.to(self.device), self.settings, self.workers)
        loss.total.backward()
        self.workers.average_gradients(self.trained)
        parts = {"loss": loss.total.detach(), **{key: value.detach() for key, value in loss.parts.items()}}
        if self.settings.clip_norm:
            parts["gradient_norm"] = nn.utils.clip_grad_norm_(self.trained, self.settings.clip_norm)
        self.optimizer.step()
        if self.average:
            self.average.update(self.model)
        self.iteration += 1
        return self.workers.average(parts)

    @contextmanager
    def evaluated_weights(self) -> Iterator[nn.Module]:
        """Lend the model with the weights that would ship, without gradients."""
        if self.average:
            self.average.exchange(self.model)
        try:
            with torch.no_grad():
                yield self.model
        finally:
            if self.average:
                self.average.exchange(self.model)

    def state(self) -> TrainingState:
        return TrainingState(
            iteration=self.iteration,
            settings=plain(self.settings.to_dict()),
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            average=self.average.values if self.average else None,
            best=self.best,
            validation=self.validation,
        )

    def check(self) -> None:
        """Raise `TrainingError` where a value is not finite, so that nothing of it is saved."""
        # A loss may be finite where its gradient is not: it would tell of that an iteration too late.
        values = {
            "weights": self.model.state_dict().values(),
            "averaged weights": self.average.values.values() if self.average else (),
            "optimiser's moments": [value for entry in self.optimizer.state.values() for value in entry.values()],
        }
        for what, found in values.items():
            if not all(bool(torch.isfinite(value).all()) for value in found if isinstance(value, Tensor)):
                raise TrainingError(
                    f"the {what} have values that are not finite after iteration {self.iteration}; lower the learning "
                    "rates, set clip_norm or look at the data; the last checkpoint is intact"
                )

    def restore(self, state: TrainingState) -> None:
        self.model.load_state_dict(state.model)
        self.optimizer.load_state_dict(state.optimizer)
        if self.average and state.average is not None:
            self.average.values = {key: value.to(self.device) for key, value in state.average.items()}
        self.iteration = state.iteration
        # A value of another measure, or on other clips, is no bar for this one's.
        same = state.settings.get("best") == self.settings.best and state.validation in (None, self.validation)
        self.best = state.best if same else None
        if state.best is not None and not same:
            logger.warning("best begins anew: what was best until now was measured otherwise, or on other clips")


def train(
    trainer: Trainer,
    source: BatchSource,
    folder: str | Path,
    *,
    evaluate: Evaluate | None = None,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[int, Mapping[str, float]], None] | None = None,
) -> Outcome:
    """Train to the end of `trainer.settings`, from the newest checkpoint in `folder` where there is one.

    The folder gets `state-<iteration>.pt` checkpoints, `curves.csv`, `evaluation.csv`, and `best.pt` (a plain state
    dict) where `settings.best` names a measure. With several workers all of them see the folder.

    Args:
        trainer: a fresh trainer.
        source: this worker's share of the batches.
        folder: of the run.
        evaluate: measures the model every `settings.evaluate_every` iterations and at the end.
        stop: asked after every iteration; when any worker says so, a checkpoint is written and the call returns.
        report: told the iteration and the curves' newest row (leading worker).

    Returns:
        `finished`, or `stopped` where the run has iterations left.

    Raises:
        TrainingError: the loss is not finite, the source ran dry, or the folder belongs to other settings.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings, workers = trainer.settings, trainer.workers
    resume(trainer, folder)
    curves = CurveFile(folder / "curves.csv", start=trainer.iteration) if workers.leads else None
    window = Window()
    batches = source.batches(trainer.iteration)
    stopping = False
    while trainer.iteration < settings.total_iterations and not stopping:
        _train_on_next(trainer, batches, window)
        done = trainer.iteration
        if done % settings.log_every == 0:
            window.check(done)
            row = window.row()
            window = Window()
            if curves:
                _log(trainer, curves, row)
                if report:
                    report(done, row)
        stopping = workers.agree(stop(), trainer.device)
        finished = done == settings.total_iterations
        due = settings.evaluate_every > 0 and done % settings.evaluate_every == 0
        if evaluate and (finished or due):
            trainer.check()
            _evaluate(trainer, evaluate, folder)
        if finished or stopping or done % settings.checkpoint_every == 0:
            window.check(done)
            trainer.check()
            if workers.leads:
                save_state(folder, trainer.state(), keep=settings.keep_checkpoints)
            workers.wait()
    return "stopped" if trainer.iteration < settings.total_iterations else "finished"


def step_seed(seed: int, iteration: int, rank: int) -> int:
    """Return the seed of whatever a step draws by itself, the same in a resumed run."""
    return int(np.random.SeedSequence([seed, iteration, rank]).generate_state(1)[0])


def resume(trainer: Trainer, folder: Path) -> None:
    """Put the newest checkpoint of `folder` into `trainer`, if there is one."""
    files = state_files(folder)
    if not files:
        return
    state = load_state(files[-1])
    check_settings(state, trainer.settings, files[-1])
    trainer.restore(state)
    logger.info("going on from iteration %d (%s)", state.iteration, files[-1].name)


def _train_on_next(trainer: Trainer, batches: Iterator[Batch], window: Window) -> None:
    asked = time.perf_counter()
    batch = next(batches, None)
    if batch is None:
        total = trainer.settings.total_iterations
        raise TrainingError(f"the data ended after {trainer.iteration} of {total} iterations")
    waited = time.perf_counter() - asked
    for reason in batch.skipped:
        logger.warning("skipped %s", reason)
    window.add(trainer.step(batch), waited=waited, skipped=len(batch.skipped))


def _log(trainer: Trainer, curves: CurveFile, row: Mapping[str, float]) -> None:
    done = trainer.iteration
    rates = {f"rate.{group['prefix']}": float(group["lr"]) for group in trainer.optimizer.param_groups}
    curves.add(done, {"epoch": done / trainer.settings.iterations_per_epoch, **row, **rates})
    logger.info("iteration %d: %s", done, _listed(row))


def _evaluate(trainer: Trainer, evaluate: Evaluate, folder: Path) -> None:
    if trainer.workers.leads:
        measure = trainer.settings.best
        with trainer.evaluated_weights() as model:
            values = evaluate(model)
            CurveFile(folder / "evaluation.csv", start=trainer.iteration - 1).add(trainer.iteration, values)
            if measure is not None:
                if measure not in values:
                    raise TrainingError(f"best is {measure!r}, but the evaluation measures {', '.join(values)}")
                if is_better(measure, values[measure], trainer.best):
                    trainer.best = float(values[measure])
                    write_atomically(folder / "best.pt", model.state_dict())
        logger.info("evaluation at %d: %s", trainer.iteration, _listed(values))
    trainer.workers.wait()


def is_better(measure: str, value: float, before: float | None) -> bool:
    """Return whether a measure's value is better than the best one before: lower for losses, higher for all others."""
    if not math.isfinite(value):
        return False
    return before is None or (value < before if any(loss in measure for loss in LOSSES) else value > before)


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in values.items())
