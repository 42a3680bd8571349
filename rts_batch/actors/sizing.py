"""How many workers a run gets, and how many CPU threads each."""

from __future__ import annotations

import contextlib
from pathlib import Path

from rts_batch.actors.cluster import usable_cores
from rts_batch.io.cgroups import free_memory
from rts_batch.runs.record import RunRecord
from rts_batch.runs.settings import RunSettings
from rts_batch.worker.tracker import TrackerDescription

MOST_THREADS = 4
"""Beyond this many threads one frame gains little; several videos side by side gain nearly everything."""


def choose_size(
    settings: RunSettings,
    tracker: TrackerDescription,
    recorded: RunRecord | None = None,
    *,
    videos: int | None = None,
    cores: int | None = None,
    memory: int | None = None,
) -> tuple[int, int]:
    """Return the number of workers and the CPU threads of each.

    On CPUs as many workers as give each the threads that its network gains from, as far as the memory goes; where there
    are fewer videos than that, each of them gets more threads. A run that was begun keeps its number of threads unless
    told otherwise, whatever the number of workers: with another one, sums are rounded in another order.

    Args:
        settings: what was asked for goes before everything else.
        tracker: says how many threads it gains from and what a worker of it takes.
        recorded: the run as it was begun.
        videos: that the manifest has.
        cores: usable here; None looks.
        memory: bytes usable here; None looks.
    """
    cores = cores or usable_cores()
    videos = videos or cores
    threads = settings.threads_per_worker
    if threads is None and recorded is not None:
        threads = recorded.environment.get("threads_per_worker")
    workers = settings.workers
    if workers is None:
        if tracker.device == "cuda":
            workers = _gpus(settings)
        else:
            fitting = (memory or usable_memory()) // tracker.worker_bytes
            workers = min(cores // (threads or tracker.threads), videos, fitting)
    workers = max(1, workers)
    return workers, threads or max(1, min(cores // workers, MOST_THREADS))


def choose_cpus(settings: RunSettings, lanes: int) -> float:
    """Return the CPUs that are set aside for a worker.

    A GPU that is shared by 16 lanes gives each some 50 frames a second of 480p; decoding these takes a quarter of a
    core, and encoding, writing and the engine as much.
    """
    return settings.cpus_per_worker or float(-(-lanes // 2))


def usable_memory() -> int:
    """Bytes of memory that are free here, a container's limit included."""
    free = 1 << 40
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    limit = free_memory()
    return free if limit is None else min(free, limit)


def _gpus(settings: RunSettings) -> int:
    """Workers that fit on this machine's GPUs; on a cluster, one (say how many with --workers)."""
    if settings.address != "local":
        return 1
    import torch

    return int(torch.cuda.device_count() / settings.gpus_per_worker)
