"""Ray, started for one run and taken away with it, or a cluster that runs already."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from rts_batch.errors import ClusterError
from rts_batch.runs.settings import RunSettings

OBJECT_STORE_BYTES = 80 * 2**20
"""Only events pass through the object store; Ray's own minimum is 75 MiB."""

CONNECT_SECONDS = 60.0
"""After so long without an answer a cluster counts as unreachable; Ray itself may try for ever."""

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray binds to every interface of a Linux host unless it is told that it is no node of a cluster. The variable is
    # named after the systems where that is the default.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Threads that spin while they wait for each other make a worker up to ten times slower on a machine that has other
    # work as well, and save next to nothing on one that has not. The workers inherit this.
    "OMP_WAIT_POLICY": "PASSIVE",
}


@contextlib.contextmanager
def ray_session(settings: RunSettings, *, workers: int, folder: Path | None) -> Iterator[None]:
    """Starts a local Ray (address `local`) or connects to a cluster, and ends it or disconnects at exit.

    Call it from the main thread: Ray's processes are tied to the life of the thread that starts them, so that they end
    with this process even when it is killed.

    Args:
        settings: Where, and what each worker takes.
        workers: For so many a local Ray must have room.
        folder: Where a local Ray keeps its sockets and logs.

    Raises:
        ClusterError: Ray does not start or cannot be reached.
    """
    address = settings.address
    local = address == "local"
    for name, value in _QUIET.items():
        if local or not name.startswith("RAY_ENABLE_WINDOWS"):
            os.environ.setdefault(name, value)
    import ray

    options = (
        {
            "num_cpus": math.ceil(workers * settings.cpus_per_worker),
            "resources": {name: workers * amount for name, amount in settings.resources.items()},
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_temp_dir": str(folder),
        }
        if local
        else {}
    )
    # Ray prints a worker's death to standard output, from a thread of its own and until it is shut down. That stream
    # belongs to data here, and the pool tells the story better.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):

        def connect() -> None:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)

        try:
            if local:
                connect()
            else:
                _within(CONNECT_SECONDS, connect)
        except Exception as error:
            what = f"did not start (its logs are in {folder})" if local else f"cannot be reached at {address!r}"
            raise ClusterError(f"Ray {what}: {error}") from error
        try:
            yield
        finally:
            ray.shutdown()


def _within(seconds: float, call: Callable[[], None]) -> None:
    """Calls in a thread of its own; raises what the call raises, or TimeoutError and leaves it to itself."""
    outcome: list[BaseException | None] = []

    def run() -> None:
        try:
            call()
            outcome.append(None)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, name="connect", daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    if outcome[0] is not None:
        raise outcome[0]


def usable_cores() -> int:
    """CPU cores that this process may use, a container's limit included."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores
