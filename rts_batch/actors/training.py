"""Training on several workers through Ray Train."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rts_batch.errors import ClusterError, RtsBatchError
from rts_batch.training.recipe import Recipe


def train_on_workers(
    recipe: Recipe,
    folder: str | Path,
    *,
    workers: int,
    use_gpu: bool = False,
    cpus_per_worker: float = 1,
    loaders: int = 0,
    retries: int = 3,
) -> None:
    """Trains one recipe with `workers` processes of a running Ray cluster that share every global batch.

    Ray Train starts the workers, joins them in a process group (NCCL on GPUs, Gloo otherwise) and starts all of them
    again when one is lost; they then go on from the newest checkpoint.

    Args:
        recipe: its batch must divide by `workers`.
        folder: of the run, on storage that all workers see.
        workers: processes.
        use_gpu: one GPU for each.
        cpus_per_worker: that Ray sets aside for each.
        loaders: processes that make clips, for each worker.
        retries: how often lost workers are replaced.

    Raises:
        ClusterError: Ray Train is not installed, or the training failed for another reason than the recipe.
        RtsBatchError: what a worker raised.
    """
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
    except ImportError as error:
        raise ClusterError(
            f"training on several workers needs Ray Train: pip install 'rts-batch[train]' ({error})"
        ) from error

    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"recipe": recipe, "folder": str(folder), "loaders": loaders},
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=use_gpu, resources_per_worker={"CPU": cpus_per_worker, "GPU": float(use_gpu)}
        ),
        run_config=RunConfig(
            name="ray-train", storage_path=str(folder), failure_config=FailureConfig(max_failures=retries)
        ),
    )
    try:
        trainer.fit()
    except Exception as error:
        cause = _first_of_ours(error)
        if cause is not None:
            raise cause from error
        raise ClusterError(f"the training on {workers} workers failed: {error}") from error


def train_worker(config: dict[str, Any]) -> None:
    """What every worker runs."""
    from ray.train.torch import get_device

    from rts_batch.training.run import run_recipe

    run_recipe(config["recipe"], config["folder"], device=get_device(), loaders=config["loaders"])


def _first_of_ours(error: BaseException | None) -> RtsBatchError | None:
    """Finds what a worker raised on purpose in what Ray made of it."""
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
