"""Training on several workers through Ray Train."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Final

from rts_batch.errors import ClusterError, RtsBatchError, SettingsError
from rts_batch.training.recipe import Recipe

logger = logging.getLogger(__name__)

RETRIES: Final = 3
"""How often lost workers are replaced."""


def train_on_workers(
    recipe: Recipe,
    folder: str | Path,
    *,
    workers: int,
    use_gpu: bool = False,
    cpus_per_worker: float = 1,
    loaders: int = 0,
) -> None:
    """Train one recipe with `workers` processes of a running Ray cluster that share every global batch.

    Ray Train starts the workers and joins them in a process group (NCCL on GPUs, Gloo otherwise). When one is lost, all
    of them start again and go on from the newest checkpoint.

    Args:
        recipe: its batch must divide by `workers`.
        folder: of the run, on storage that all workers see.
        workers: processes.
        use_gpu: one GPU for each.
        cpus_per_worker: that Ray sets aside for each.
        loaders: processes that make clips, for each worker.

    Raises:
        SettingsError: the batch does not divide by `workers`.
        ClusterError: Ray Train is not installed, or the training failed for another reason than the recipe.
        RtsBatchError: what a worker raised.
    """
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    try:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
    except ImportError as error:
        raise ClusterError(
            f"training on several workers needs Ray Train: pip install 'rts-batch[train]' ({error})"
        ) from error

    check_share(recipe, workers)
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for attempt in range(1 + RETRIES):
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"recipe": recipe, "folder": str(folder), "loaders": loaders},
            scaling_config=ScalingConfig(
                num_workers=workers,
                use_gpu=use_gpu,
                resources_per_worker={"CPU": cpus_per_worker, "GPU": float(use_gpu)},
            ),
            run_config=RunConfig(name="ray-train", storage_path=str(folder)),
        )
        try:
            trainer.fit()
            return
        except Exception as error:
            # Ray Train's own retries would also repeat what can only fail again, such as a wrong setting.
            ours = _first_of_ours(error)
            if ours is not None:
                raise ours from error
            if attempt == RETRIES:
                raise ClusterError(f"the training on {workers} workers failed: {error}") from error
            logger.warning("the training on %d workers failed and starts again: %s", workers, error)


def check_share(recipe: Recipe, workers: int) -> None:
    """Raise SettingsError where the recipe's global batch does not divide by `workers`."""
    if recipe.settings.batch % workers:
        raise SettingsError(f"a batch of {recipe.settings.batch} cannot be shared by {workers} workers")


def train_worker(config: dict[str, Any]) -> None:
    """What every worker runs."""
    from ray.train.torch import get_device

    from rts_batch.training.run import run_recipe

    run_recipe(config["recipe"], config["folder"], device=get_device(), loaders=config["loaders"])


def _first_of_ours(error: BaseException | None) -> RtsBatchError | None:
    """Find what a worker raised on purpose in what Ray made of it."""
    seen: list[BaseException] = []
    pending = [error]
    while pending:
        current = pending.pop()
        if current is None or current in seen:
            continue
        if isinstance(current, RtsBatchError):
            return current
        seen.append(current)
        failures = getattr(current, "worker_failures", None) or {}
        pending += [current.__cause__, current.__context__, getattr(current, "cause", None), *failures.values()]
    return None
