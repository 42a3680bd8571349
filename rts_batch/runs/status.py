"""Where a run stands, from its folder alone; and how to ask the process that holds it to stop."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from rts_batch.errors import RunFolderError
from rts_batch.io.storage import files
from rts_batch.io.storage.parquet import read_parquet
from rts_batch.runs.folder import RunFolder
from rts_batch.runs.json_files import read_object
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
    beat: float | None = None
    """When it last renewed its lease, in seconds since the epoch by its own clock; None without a lease."""

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

    @property
    def is_known_to_run(self) -> bool:
        """Whether a process on this host is at work; of others only their leases tell."""
        return any(submission.holder == "alive" for submission in self.submissions)

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
        RunFolderError: it is no run's own folder.
    """
    folder = RunFolder(out)
    submissions = _read_submissions(folder.uri)
    # A submission holds its lease for a while before it has looked at everything and makes the folder a run's.
    if folder.record() is None and not any(submission.is_running for submission in submissions):
        raise _no_run(folder.uri)
    folder.refuse_compacted()
    # While a video is done again its old masks count for readers, but it is not done.
    done = folder.done() - folder.paths.replaced_by().keys()
    return RunStatus(
        out=folder.uri,
        videos=_count_videos(folder.paths.manifest),
        done=len(done),
        failed=len(set(folder.paths.failed()) - done),
        submissions=submissions,
    )


def ask_to_stop(out: str, *, now: bool) -> list[SubmissionStatus]:
    """Ask every submission that is at work on the run to stop; return them.

    Raises:
        RunFolderError: it is no run's own folder.
    """
    folder = RunFolder(out)
    found = [submission for submission in _read_submissions(folder.uri) if submission.is_running]
    if not found and folder.record() is None:
        raise _no_run(out)
    folder.refuse_compacted()
    for submission in found:
        shard = Shard.parse(submission.shard.replace("-of-", "/")) if submission.shard else None
        RunFolder(out, shard).ask_to_stop(now=now)
    return found


def _no_run(uri: str) -> RunFolderError:
    return RunFolderError(f"{uri} is not a run's folder: it has no {RECORD}")


def _read_submissions(uri: str) -> tuple[SubmissionStatus, ...]:
    shards = shards_among(files.list_names(uri), "lease", "status")
    return tuple(_read_submission(RunPaths(uri, shard)) for shard in shards)


def _read_submission(paths: RunPaths) -> SubmissionStatus:
    status = {}
    with contextlib.suppress(RunFolderError):  # a damaged one is written anew within seconds, or tells nothing more
        status = read_object(paths.status) if files.exists(paths.status) else {}
    holder = holder_of(paths.lease)
    return SubmissionStatus(
        shard=paths.shard, holder=holder.state, process=holder.process, status=status, beat=holder.beat
    )


def _count_videos(manifest: str) -> int:
    if not files.exists(manifest):
        return 0
    return int(pc.count_distinct(recorded_rows(manifest, ["video_id"])["video_id"]).as_py())


def recorded_rows(manifest: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of a run's own manifest as they are written: all their columns or those named.

    Raises:
        RunFolderError: it is damaged.
    """
    data = files.read_bytes(manifest)
    try:
        return read_parquet(data, columns=columns)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RunFolderError(f"{manifest} is damaged ({error}); submit the run's manifest again") from error
