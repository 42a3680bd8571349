"""A submission as a job of a cluster."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from rts_batch.actors.job import submit_job
from rts_batch.errors import ClusterError, UsageError


def test_a_job_runs_these_words_on_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def __init__(self, address: str | None) -> None:
            sent["address"] = address

        def submit_job(self, **job: Any) -> str:
            sent.update(job)
            return "job"

    sent: dict[str, Any] = {}
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", Client)
    words = ["--out=s3://bucket/a run", "--limit=3", "--", "/here/m.csv"]
    assert submit_job(words, address="http://head:8265") == "job"
    assert (shlex.split(sent["entrypoint"]), sent["address"]) == (["python", "track.py", *words], "http://head:8265")
    assert Path(sent["runtime_env"]["working_dir"], "track.py").is_file()


def test_a_cluster_that_has_just_started_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def __init__(self, address: str | None) -> None: ...

        def submit_job(self, **job: Any) -> str:
            if left.pop(0):
                raise RuntimeError("Request failed with status code 500: No available agent to submit job")
            return "job"

    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", Client)
    monkeypatch.setattr("rts_batch.actors.job.time.sleep", lambda seconds: None)
    left = [True, True, False]
    assert submit_job(["m.csv"], address="http://head:8265") == "job"
    monkeypatch.setattr("rts_batch.actors.job.CONNECT_SECONDS", -1)
    left = [True, False]
    with pytest.raises(ClusterError, match="among Ray's logs on the head says why"):
        submit_job(["m.csv"], address="http://head:8265")
    assert left == [False]


def test_detaching_needs_a_cluster() -> None:
    with pytest.raises(UsageError, match="--detach needs a cluster"):
        submit_job(["m.csv"], address="local")
