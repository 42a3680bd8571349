"""Hands a submission to a cluster as a Ray job, whose driver runs there."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

import rts_batch
from rts_batch.errors import ClusterError, UsageError

PACKAGE = Path(rts_batch.__file__).parent
JOBS = PACKAGE.parent / "jobs"


def submit_job(arguments: list[str], *, address: str) -> str:
    """Submits `jobs/track.py` with the arguments of `rts-batch submit`, and returns the job's id.

    The package of this process travels with it (`py_modules`); its dependencies must be installed on the nodes.

    Args:
        arguments: what followed `rts-batch submit`; where to run is taken out of it.
        address: `auto`, or the cluster's or its dashboard's address.

    Raises:
        UsageError: `local` has no cluster that could go on after this process.
        ClusterError: the cluster does not answer.
    """
    if address == "local":
        raise UsageError("--detach needs a cluster that stays: give --address auto, or the cluster's address")
    from ray.job_submission import JobSubmissionClient

    logging.getLogger("ray").setLevel(logging.ERROR)
    given = shlex.join(_without_address(arguments))
    environment: dict[str, object] = {"py_modules": [str(PACKAGE)]}
    if (JOBS / "track.py").is_file():
        environment["working_dir"] = str(JOBS)
        entrypoint = f"python track.py {given}"
    else:  # installed without the repository: what the script does
        entrypoint = f"python -m rts_batch.cli submit --address auto {given}"
    try:
        client = JobSubmissionClient(None if address == "auto" else address)
        job = client.submit_job(entrypoint=entrypoint, runtime_env=environment)
    except Exception as error:
        raise ClusterError(f"the cluster at {address!r} takes no job: {error}") from error
    return str(job)


def _without_address(arguments: list[str]) -> list[str]:
    kept = []
    words = iter(arguments)
    for word in words:
        if word == "--address":
            next(words, None)
        elif word != "--detach" and not word.startswith("--address="):
            kept.append(word)
    return kept
