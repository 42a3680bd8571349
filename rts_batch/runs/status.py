"""Where a run stands, from its folder alone; and how to ask the process that holds it to stop."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pyarrow.compute as pc

from rts_batch.errors import RunFolderError
from rts_batch.io.storage import files
from rts_batch.io.storage.parquet import read_parquet
from rts_batch.runs.folder import RunFolder
from rts_batch.runs.lease import holder_of
from rts_batch.runs.paths import RECORD, RunPaths, shards_among
from rts_batch.runs.settings import Shard


@dataclass(frozen=True, kw_only=True)
class SubmissionStatus:
    """One process that works on the run, or did: the whole of it, or a shard."""

    shard: str | None
    """`i-of-n`."""
    holder: Literal["nobody", "alive", "dead", "unknown"]
    """Whether its process lives; `unknown`: it runs on another host, where only the status' age tells."""
    process: str
    status: dict[str, Any]
    """What it wrote last into its `status.json`."""

    @property
    def is_running(self) -> bool:
        return self.holder in ("alive", "unknown")


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    out: str
    videos: int
    """In the folder's manifest."""
    done: int
    failed: int
    submissions: tuple[SubmissionStatus, ...]

    @property
    def is_running(self) -> bool:
        return any(submission.is_running for submission in self.submissions)

    def to_dict(self) -> dict[str, Any]:
        return {
            "out": self.out,
            "videos": self.videos,
            "done": self.done,
            "failed": self.failed,
            "left": self.videos - self.done - self.failed,
            "running": self.is_running,
            "submissions": [asdict(submission) for submission in self.submissions],
        }


def read_status(out: str) -> RunStatus:
    """Read a run's folder.

    Raises:
        RunFolderError: it is no run's folder.
    """
    folder = RunFolder(out)
    if folder.record() is None:
        raise RunFolderError(f"{folder.uri} is not a run's folder: it has no {RECORD}")
    shards = shards_among(files.list_names(folder.uri), "lease", "status")
    return RunStatus(
        out=folder.uri,
        videos=_count_videos(folder.paths.manifest),
        done=len(folder.done()),
        failed=len(folder.failed()),
        submissions=tuple(_read_submission(RunPaths(folder.uri, shard)) for shard in shards),
    )


def ask_to_stop(out: str, *, now: bool) -> list[SubmissionStatus]:
    """Ask every submission that is at work on the run to stop; return them."""
    found = [submission for submission in read_status(out).submissions if submission.is_running]
    for submission in found:
        shard = Shard.parse(submission.shard.replace("-of-", "/")) if submission.shard else None
        RunFolder(out, shard).ask_to_stop(now=now)
    return found


def _read_submission(paths: RunPaths) -> SubmissionStatus:
    status = json.loads(files.read_bytes(paths.status)) if files.exists(paths.status) else {}
    holder, process = holder_of(paths.lease)
    return SubmissionStatus(shard=paths.shard, holder=holder, process=process, status=status)


def _count_videos(manifest: str) -> int:
    table = read_parquet(files.read_bytes(manifest), columns=["video_id"])
    return int(pc.count_distinct(table["video_id"]).as_py())
