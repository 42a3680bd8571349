"""The names of everything in a run's folder. No other module spells them.

::

    run.json                what decides the masks, and the environment that the first submission ran in
    manifest.parquet        the validated manifest
    masks/<key>.parquet     the masks of one video; the file exists if and only if the video is done
    videos/<key>.json       how it went
    failed/<key>.json       why a video could not be done, with every attempt's error
    checkpoints/<key>/      the state of a long video under way; see `rts_batch.worker.checkpoints`
    lease.json              who is writing now
    status.json             how far the present submission, or the last one, has come
    summary.json            the last submission's result
    cancel.json             asks the present submission to stop
    log.txt                 what submissions with `--verbose` said, line by line
    replaced.json           keys of rows that have changed since → the keys that their videos have now, if any
    corrections.csv         rows that correct labels, to be tracked again; see `rts_batch.runs.corrections`

A submission of one shard has `lease-<i>-of-<n>.json`, `status-…`, `summary-…`, `cancel-…` and `log-….txt` of its own.

`<key>` is `VideoTask.key`, which covers every manifest field of the video. A listing of `masks/` alone says what is
left; everything else is for people. A folder that `rts-batch compact` wrote has masks files of many videos, and in
`videos/` a file of the same name for each, that says which rows are whose.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from rts_batch.io.storage import files, uris
from rts_batch.runs.json_files import read_object

RECORD: Final = "run.json"
MANIFEST: Final = "manifest.parquet"
MASKS: Final = "masks"
_REPORTS: Final = "videos"
_FAILURES: Final = "failed"
_CHECKPOINTS: Final = "checkpoints"


@dataclass(frozen=True)
class RunPaths:
    """Where everything is in the run's folder at `uri`, for the whole run or one shard of it (`i-of-n`)."""

    uri: str
    shard: str | None = None

    @property
    def record(self) -> str:
        return self._join(RECORD)

    @property
    def manifest(self) -> str:
        return self._join(MANIFEST)

    @property
    def masks(self) -> str:
        """The folder of the masks files."""
        return self._join(MASKS)

    def masks_file(self, key: str) -> str:
        return self._join(MASKS, f"{key}.parquet")

    def finished(self) -> list[str]:
        """Keys of the videos whose masks are in place; masks of rows that have changed only until the new ones are."""
        return self._masks()[0]

    def outdated(self) -> list[str]:
        """Keys of masks that are there beside those that replace them, and count no longer."""
        return self._masks()[1] if files.exists(self.replaced) else []

    def _masks(self) -> tuple[list[str], list[str]]:
        """Keys of the masks that are there: those that count, and those that are outdated."""
        keys = self._keys(MASKS, ".parquet")
        replaced, there = self.replaced_by(), set(keys)
        outdated = {key for key in keys if replaced.get(key) in there}
        return [key for key in keys if key not in outdated], sorted(outdated)

    def replaced_by(self) -> dict[str, str]:
        """For the keys of rows that have changed, the keys that their videos have now; empty for videos that went."""
        uri = self.replaced
        return read_object(uri) if files.exists(uri) else {}

    @property
    def replaced(self) -> str:
        return self._join("replaced.json")

    @property
    def of_videos(self) -> tuple[str, ...]:
        """The folders that have a file for each video."""
        return self.masks, self._join(_REPORTS), self._join(_FAILURES)

    @property
    def own(self) -> tuple[str, ...]:
        """The files that lie right inside the run's folder and are written as wholes."""
        return self.record, self.manifest, self.replaced, self.lease, self.status, self.summary, self.cancel

    def report(self, key: str) -> str:
        return self._join(_REPORTS, f"{key}.json")

    def reported(self) -> list[str]:
        """Keys of the videos that have a report."""
        return self._keys(_REPORTS, ".json")

    def index(self, masks_file: str) -> str:
        """In a compacted folder, what says which rows of this file of `masks/` are whose."""
        return self._join(_REPORTS, masks_file.rpartition("/")[2])

    @property
    def is_compacted(self) -> bool:
        """Whether `rts-batch compact` wrote this folder; a run's own has no index. One look, and no listing."""
        return files.exists(self.index(f"{part_key(0)}.parquet"))

    def failure(self, key: str) -> str:
        return self._join(_FAILURES, f"{key}.json")

    def failed(self) -> list[str]:
        """Keys of the videos that were given up."""
        return self._keys(_FAILURES, ".json")

    def checkpoints(self, key: str) -> str:
        """The folder of a video's checkpoints."""
        return self._join(_CHECKPOINTS, key)

    def checkpointed(self) -> list[str]:
        """Keys of the videos that have checkpoints."""
        return files.list_folders(self._join(_CHECKPOINTS))

    @property
    def lease(self) -> str:
        return self._of_submission("lease")

    @property
    def status(self) -> str:
        return self._of_submission("status")

    @property
    def summary(self) -> str:
        return self._of_submission("summary")

    @property
    def cancel(self) -> str:
        return self._of_submission("cancel")

    @property
    def corrections(self) -> str:
        return self._join("corrections.csv")

    @property
    def log(self) -> str:
        return self._of_submission("log", "txt")

    def _of_submission(self, name: str, suffix: str = "json") -> str:
        return self._join(f"{name}-{self.shard}.{suffix}" if self.shard else f"{name}.{suffix}")

    def _join(self, *parts: str) -> str:
        return uris.join(self.uri, *parts)

    def _keys(self, folder: str, suffix: str) -> list[str]:
        names = files.list_names(self._join(folder))
        return [name.removesuffix(suffix) for name in names if name.endswith(suffix)]


def part_key(number: int) -> str:
    """What the masks file of this number in a compacted folder has in the place of a video's key."""
    return f"part-{number:05d}"


def shards_among(names: Iterable[str], *kinds: Literal["lease", "status"]) -> list[str | None]:
    """Which submissions have a file of these kinds in a listing of the folder; None is the whole run's."""
    pattern = re.compile(rf"(?:{'|'.join(kinds)})(?:-(\d+-of-\d+))?\.json")
    found = {match[1] for name in names if (match := pattern.fullmatch(name))}
    return sorted(found, key=lambda shard: [int(part) for part in re.findall(r"\d+", shard or "")])
