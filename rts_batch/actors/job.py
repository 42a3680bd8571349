"""Hands a submission to a cluster as a Ray job, whose driver runs there."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable
from pathlib import Path

from rts_batch.actors.cluster import CONNECT_SECONDS
from rts_batch.errors import ClusterError, UsageError

PACKAGE = Path(__file__).parents[1]
JOBS = PACKAGE.parent / "jobs"

NO_AGENT = (
    " (the head's agent is not there; dashboard_agent.log among Ray's logs on the head says why, mostly another Ray on "
    "that machine with the same --dashboard-agent-listen-port)"
)


def submit_job(words: list[str], *, address: str) -> str:
    """Submit a job that runs `rts-batch submit` with these words on the cluster, and return the job's id.

    The package of this process travels with it (`py_modules`); its dependencies must be installed on the nodes.

    Args:
        words: without an address; a job has a working folder of its own.
        address: `auto`, or the cluster's or its dashboard's address.

    Raises:
        UsageError: `local` has no cluster that could go on after this process.
        ClusterError: the cluster does not answer.
    """
    if address == "local":
        raise UsageError("--detach needs a cluster that stays: give --address auto, or the cluster's address")
    from ray.job_submission import JobSubmissionClient

    logging.getLogger("ray").setLevel(logging.ERROR)
    environment: dict[str, object] = {"py_modules": [str(PACKAGE)]}
    if (JOBS / "track.py").is_file():
        environment["working_dir"] = str(JOBS)
        entrypoint = ["python", "track.py", *words]
    else:  # installed without the repository: what the script does
        entrypoint = ["python", "-m", "rts_batch.cli", "submit", "--address", "auto", *words]
    client_address = None if address == "auto" else address

    def submit() -> str:
        return str(
            JobSubmissionClient(client_address).submit_job(entrypoint=shlex.join(entrypoint), runtime_env=environment)
        )

    try:
        return _once_there_is_an_agent(submit)
    except Exception as error:
        hint = NO_AGENT if _lacks_agent(error) else ""
        raise ClusterError(f"the cluster at {address!r} takes no job: {error}{hint}") from error


def _once_there_is_an_agent(call: Callable[[], str]) -> str:
    """Call again for a while where a cluster has only just started and has nobody yet who takes jobs."""
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            return call()
        except RuntimeError as error:
            if not _lacks_agent(error) or time.monotonic() > deadline:
                raise
        time.sleep(2.0)


def _lacks_agent(error: Exception) -> bool:
    return "No available agent" in str(error)
