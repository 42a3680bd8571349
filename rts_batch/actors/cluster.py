"""Ray, started for one run and taken away with it, or a cluster that runs already."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rts_batch.errors import ClusterError
from rts_batch.io import processes
from rts_batch.io.cgroups import usable_cpus

logger = logging.getLogger(__name__)

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
    # Ray would start a Python process for each core before anybody asks for one, and wait for them.
    "RAY_prestart_worker_first_driver": "0",
}


_OF_ANOTHER_RAY: Final = ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_NAMESPACE", "RAY_RUNTIME_ENV_HOOK")
"""What a process of a Ray job has in its environment, and a Ray of its own would take for itself."""


@contextlib.contextmanager
def ray_session(
    address: str, *, folder: Path, cpus: float, resources: Mapping[str, float] | None = None, show_workers: bool = False
) -> Iterator[None]:
    """Start a local Ray (address `local`) or connect to a cluster, and end it or disconnect at exit.

    Call it from the main thread: Ray's processes are tied to the life of the thread that starts them, so that they end
    with this process even when it is killed.

    Args:
        address: `local`, `auto`, or a cluster's.
        folder: an empty one, where a local Ray keeps its sockets and logs.
        cpus: what all workers take together, which a local Ray must have.
        resources: the same of custom resources.
        show_workers: print what the workers print.

    Raises:
        ClusterError: Ray does not start or cannot be reached.
    """
    local = address == "local"
    for name, value in _QUIET.items():
        if local or not name.startswith("RAY_ENABLE_WINDOWS"):
            os.environ.setdefault(name, value)
    with contextlib.ExitStack() as stack:
        if local:
            stack.enter_context(_without(_OF_ANOTHER_RAY))
            if _home_takes_no_token():
                os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        import ray

        if not show_workers:
            # Ray prints a worker's death to standard output, from a thread of its own and until it is shut down. That
            # stream belongs to data here, and the pool tells the story better.
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        options = _local_options(folder, cpus, resources or {}) if local else {}

        def connect() -> None:
            ray.init(address=address, log_to_driver=show_workers, logging_level=logging.ERROR, **options)

        try:
            # Ray has its workers look for modules in the current folder of this process, and in its script's.
            with processes.elsewhere(folder), _interruptible():
                if local:
                    _twice(connect, between=ray.shutdown)
                else:
                    _within(CONNECT_SECONDS, connect)
        except Exception as error:
            what = f"did not start (its logs are in {_logs(folder)})" if local else f"cannot be reached at {address!r}"
            raise ClusterError(f"Ray {what}: {error}") from error
        try:
            yield
        except ClusterError as error:
            raise ClusterError(f"{error}\nRay's logs are in {_logs(folder)}") if local else error from error
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Have Ctrl-C and SIGTERM be interruptions meanwhile, where we have an answer to them, and SIGTERM ours afterwards.

    Ray puts in an exit with a code of its own at SIGTERM when it starts. What is raised at a signal may be lost: Python
    ignores it while it forks, and a Ray whose processes have got the signal, too, fails with another error.
    """
    handler = signal.getsignal(signal.SIGTERM)
    ours = {signal.SIGINT} if signal.getsignal(signal.SIGINT) is signal.default_int_handler else set()
    if callable(handler):
        ours.add(signal.SIGTERM)
    with _signals() as came:
        try:
            yield
        except (SystemExit, Exception) as error:
            if not ours.isdisjoint(came()):
                raise KeyboardInterrupt from error
            raise
        finally:
            if callable(handler):
                signal.signal(signal.SIGTERM, handler)
        if not ours.isdisjoint(came()):
            raise KeyboardInterrupt


@contextlib.contextmanager
def _signals() -> Iterator[Callable[[], bytes]]:
    """Give what tells the numbers of the signals that have come meanwhile, whatever has handled them; it tells once."""
    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
    earlier = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def came() -> bytes:
        with contextlib.suppress(BlockingIOError):
            return os.read(reading, 1 << 16)
        return b""

    try:
        yield came
    finally:
        signal.set_wakeup_fd(earlier)
        os.close(reading)
        os.close(writing)


def _local_options(folder: Path, cpus: float, resources: Mapping[str, float]) -> dict[str, Any]:
    return {
        "num_cpus": math.ceil(cpus),
        "resources": dict(resources),
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
        "_temp_dir": str(folder),
    }


@contextlib.contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    """Take variables out of the environment for a while."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _home_takes_no_token() -> bool:
    """Whether there is no home folder for the token by which Ray's processes know each other, nor another place."""
    if os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
        return False
    try:
        folder = Path.home() / ".ray"
        if os.access(folder / "auth_token", os.R_OK):
            return False
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a user id that the system does not know has none
        return True
    return not os.access(folder, os.W_OK)


def _logs(folder: Path) -> Path:
    logs = folder / "session_latest" / "logs"
    return logs if logs.exists() else folder


def _within(seconds: float, call: Callable[[], None]) -> None:
    """Call in a thread of its own; raise what the call raises, or TimeoutError and leave it to itself."""
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


def _twice(call: Callable[[], None], *, between: Callable[[], object]) -> None:
    """Call, and where that fails, after `between`, once more; raise what the second call raises."""
    # Ray gives its processes half a minute to start, a time that it takes from nowhere: on a machine that stands still
    # meanwhile, one more try is what helps.
    try:
        call()
    except Exception as error:
        logger.warning("Ray did not start and is started once more: %s", error)
        between()
        call()


def usable_cores() -> int:
    """CPU cores that this process may use, a container's limit included."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, usable_cpus() or cores)
