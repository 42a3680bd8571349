"""What one process of `test_training_workers` does; on its own so that a spawned process imports little."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist

from rts_batch.training.clips.batches import Batch
from rts_batch.training.distributed import Workers
from rts_batch.training.objectives import build_network, objective_of
from rts_batch.training.optimisation import build_optimizer
from rts_batch.training.settings import TrainSettings


def gradients(batch: Batch, settings: TrainSettings, workers: Workers) -> tuple[dict[str, torch.Tensor], float]:
    """One backward pass in float64; the averaged gradients by parameter name, and the Lovász term."""
    torch.manual_seed(0)
    model = build_network(settings).double()
    optimizer = build_optimizer(model, settings)
    loss = objective_of(settings)(model, batch, settings, workers)
    loss.total.backward()
    workers.average_gradients([p for group in optimizer.param_groups for p in group["params"]])
    parts = workers.average(loss.parts)
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return found, next(iter(parts.values())).item()


def run(rank: int, folder: str) -> None:
    """Trains rank's half of the batch in `folder` and, as the leader, writes the gradients there."""
    torch.set_num_threads(1)  # two processes that each take every core wait for each other at every operation
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    settings, whole = torch.load(Path(folder) / "task.pt", weights_only=False)
    share = slice(rank, rank + 1)
    batch = Batch(whole.images[:, share], whole.masks[:, share], whole.boxes[:, share], whole.train_frames)
    found = gradients(batch, settings, Workers.current())
    if rank == 0:
        torch.save(found, Path(folder) / "found.pt")
    dist.destroy_process_group()
