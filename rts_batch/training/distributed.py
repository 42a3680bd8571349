"""Several workers on one global batch: what they exchange, on top of `torch.distributed`.

Each worker holds the same parameters and its share of the sequences. The Lovász term is one over the whole batch, so
its logits are gathered; everything else is a mean over sequences, so averaging the gradients is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Workers:
    """The group of workers that this process trains with; alone by default."""

    rank: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> Workers:
        """Return the initialised process group, or a group of one."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def gather(self, values: Tensor, *, dim: int) -> Tensor:
        """Return every worker's `values` side by side along `dim`, the same on all workers.

        The gradient of a loss that all workers compute alike flows into this worker's part, times the number of
        workers, which `average_gradients` takes out again.
        """
        if self.count == 1:
            return values
        gathered: Tensor = _Gather.apply(values, self, dim)  # type: ignore[no-untyped-call]
        return gathered

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its mean over the workers; all workers have gradients for the same parameters."""
        if self.count == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.count
        for gradient, values in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(values.view_as(gradient))

    def average(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean over the workers of each scalar."""
        if self.count == 1 or not values:
            return dict(values)
        flat = torch.stack([value.detach().float() for value in values.values()])
        dist.all_reduce(flat)
        return dict(zip(values, (flat / self.count).unbind(), strict=True))

    def agree(self, flag: bool, device: torch.device) -> bool:
        """Return whether any worker says so."""
        if self.count == 1:
            return flag
        votes = torch.tensor([float(flag)], device=device)
        dist.all_reduce(votes)
        return bool(votes.item() > 0)

    def wait(self) -> None:
        if self.count > 1:
            dist.barrier()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, workers: Workers, dim: int) -> Tensor:
        ctx.workers, ctx.dim = workers, dim
        parts = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(workers.count)]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts, dim=dim)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        own = gradient.chunk(ctx.workers.count, dim=ctx.dim)[ctx.workers.rank]
        return own * ctx.workers.count, None, None
