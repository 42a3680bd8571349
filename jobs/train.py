"""Trains a recipe on several workers of the Ray cluster that this script runs on.

::

    ray job submit --working-dir . -- python jobs/train.py recipe.toml --out /shared/run --workers 8 --gpu

`--out` and the data must be where every node can reach them. The same command goes on with the training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rts_batch.actors.cluster import ray_session
from rts_batch.actors.scratch import scratch_folder
from rts_batch.actors.training import check_share, train_on_workers
from rts_batch.cli.output import telling_errors
from rts_batch.training.recipe import read_recipe


def main(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file, as for `rts-batch train`.")],
    out: Annotated[Path, typer.Option(help="The training's folder, on storage that all workers see.")],
    workers: Annotated[int, typer.Option(min=1, help="Processes that share every batch.")] = 2,
    gpu: Annotated[bool, typer.Option("--gpu", help="One GPU for each worker.")] = False,
    cpus_per_worker: Annotated[float, typer.Option(min=0, help="Cores that Ray sets aside for each worker.")] = 1,
    loaders: Annotated[int, typer.Option(min=0, help="Processes that make clips, for each worker.")] = 2,
    address: Annotated[str, typer.Option(help="Of the cluster; local starts one on this machine.")] = "auto",
) -> None:
    recipe = read_recipe(config)
    check_share(recipe, workers)  # before a Ray is started for nothing
    cpus = workers * cpus_per_worker
    with scratch_folder() as folder, ray_session(address, folder=folder, cpus=cpus, show_workers=True):
        train_on_workers(recipe, out, workers=workers, use_gpu=gpu, cpus_per_worker=cpus_per_worker, loaders=loaders)


if __name__ == "__main__":
    typer.run(telling_errors(main))
