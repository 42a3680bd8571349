"""A run's folder: what it belongs to, which videos are done, and what is written for one that is done or failed.

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

A submission of one shard has `lease-<i>-of-<n>.json`, `status-…` and `summary-…` of its own.

`<key>` is `VideoTask.key`, which covers every manifest field of the video. A listing of `masks/` alone says what is
left; everything else is for people.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from rts_batch.config import Scope, Shard
from rts_batch.errors import RunFolderError, RunMismatchError
from rts_batch.io.storage import files as storage
from rts_batch.manifest import Manifest, VideoTask
from rts_batch.version import __version__

FORMAT = 1
PACKAGES = ("torch", "ray", "numpy", "opencv-python-headless", "av", "decord", "pyarrow", "pycocotools")
"""What may change a byte of the results, beside this package."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The content of `run.json`.

    `results` decides the masks: a folder takes only one value of it. `environment` decides their last bits: it is
    recorded, and a later submission whose environment differs goes on with a warning.
    """

    results: Mapping[str, Any]
    environment: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The first submission's `RunSettings`, with which `resume` goes on."""

    def to_json(self) -> bytes:
        content = {"results": self.results, "environment": self.environment, "settings": self.settings}
        return _json({"format": FORMAT, **content})

    @classmethod
    def from_json(cls, data: bytes, *, where: str) -> RunRecord:
        try:
            content = json.loads(data)
            if content["format"] != FORMAT:
                raise RunFolderError(
                    f"{where}: format {content['format']} is not one this version ({FORMAT}) can go on with"
                )
            return cls(
                results=content["results"], environment=content["environment"], settings=content.get("settings", {})
            )
        except (ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{where} is not a run's record ({error}); give another folder with --out") from error


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a submission has to do."""

    left: tuple[VideoTask, ...]
    """In the manifest's order."""
    done: int
    """Videos that need nothing."""
    videos: int
    """All videos of the manifest, or of the shard."""
    failed_before: frozenset[str] = frozenset()
    """Keys of the videos that earlier submissions gave up."""
    warnings: tuple[str, ...] = ()


class RunFolder:
    """One run's folder at any URI. Hold its lease (`lease_uri`) before calling what writes."""

    def __init__(self, uri: str, shard: Shard | None = None) -> None:
        self.uri = uri.rstrip("/") or uri
        self.shard = shard
        self.lease_uri = self._of_shard("lease")

    def _of_shard(self, name: str) -> str:
        return storage.join(self.uri, f"{name}-{self.shard}.json" if self.shard else f"{name}.json")

    def record(self) -> RunRecord | None:
        """Reads `run.json`, None in a folder that has none yet."""
        uri = storage.join(self.uri, "run.json")
        return RunRecord.from_json(storage.read_bytes(uri), where=uri) if storage.exists(uri) else None

    def done(self) -> set[str]:
        """Keys of the videos whose masks are in place."""
        return self._keys("masks", ".parquet")

    def failed(self) -> set[str]:
        """Keys of the videos that were given up; masks that are in place win over that."""
        return self._keys("failed", ".json") - self.done()

    def other_leases(self) -> list[str]:
        """Leases of the same folder that belong to the whole run or to other divisions of it."""
        names = [name for name in storage.list_names(self.uri) if re.fullmatch(r"lease(-\d+-of-\d+)?\.json", name)]
        if self.shard is not None:
            names = [name for name in names if not name.endswith(f"-of-{self.shard.count}.json")]
        return [uri for uri in (storage.join(self.uri, name) for name in names) if uri != self.lease_uri]

    def look(self, manifest: Manifest, record: RunRecord, scope: Scope = Scope()) -> Plan:  # noqa: B008 - frozen
        """Says what is left to do, and writes nothing.

        Raises:
            RunMismatchError: The folder holds the results of other settings, other weights or another manifest.
        """
        return self._look(manifest, record, scope, self.done())

    def _look(self, manifest: Manifest, record: RunRecord, scope: Scope, done: set[str]) -> Plan:
        warnings: tuple[str, ...] = ()
        earlier = self.record()
        if earlier is None:
            if done:
                raise RunFolderError(f"{self.uri} holds masks but no run.json; give another folder with --out")
        else:
            self._refuse_other_results(earlier, record)
            changes = _differences(earlier.environment, record.environment)
            if changes:
                warnings = (
                    "the remaining videos run in another environment than the first ones, so their masks may differ "
                    "in single pixels from an undisturbed run's: " + "; ".join(changes),
                )
        self._refuse_other_manifest(done - {task.key for task in manifest.tasks})
        tasks = [task for task in manifest.tasks if self._is_ours(task)]
        left = [task for task in tasks if task.key not in done]
        undone = len(left)
        failed = self._keys("failed", ".json")
        if scope.only_failed:
            left = [task for task in left if task.key in failed]
        return Plan(
            left=tuple(left[: scope.limit]),
            done=len(tasks) - undone,
            videos=len(tasks),
            failed_before=frozenset(failed),
            warnings=warnings,
        )

    def prepare(self, manifest: Manifest, record: RunRecord, scope: Scope = Scope()) -> Plan:  # noqa: B008 - frozen
        """Makes the folder this run's, or checks that it is, and says what is left to do; raises as `look` does."""
        done = self.done()
        plan = self._look(manifest, record, scope, done)
        if self.record() is None:
            self._put("run.json", record.to_json())
            written = self.record()  # another shard may have begun with other settings at the same moment
            if written is not None:
                self._refuse_other_results(written, record)
        self._put("manifest.parquet", manifest.to_parquet())
        keys = {task.key for task in manifest.tasks}
        for key in plan.failed_before:
            # A video that got done later, or whose row has been corrected since, has not failed.
            if key in done or key not in keys:
                storage.delete(storage.join(self.uri, "failed", f"{key}.json"))
        if self.shard is None:  # another shard may be writing
            storage.remove_temporaries(storage.join(self.uri, "masks"))
        storage.delete(self._of_shard("cancel"))
        return plan

    def _is_ours(self, task: VideoTask) -> bool:
        """By the digest, so that a growing manifest moves no video to another shard."""
        return self.shard is None or int(task.digest, 16) % self.shard.count == self.shard.index - 1

    def commit(
        self, task: VideoTask, masks: Path, report: Mapping[str, Any], *, results: Mapping[str, Any] | None = None
    ) -> None:
        """Puts one video's finished masks in place: with this the video is done, and not before.

        Masks that are there already stay, and a folder that has become another run's (other `results` in its record)
        gets none. So a worker that was thought dead may finish whenever it likes.
        """
        if results is not None:
            now = self.record()
            if now is None or _differences(now.results, results):
                raise RunMismatchError(f"{self.uri} has become another run's folder; this worker's masks are not kept")
        target = storage.join(self.uri, "masks", f"{task.key}.parquet")
        if storage.exists(target):
            return
        self._put(f"videos/{task.key}.json", _json(report))
        storage.put_file(masks, target)

    def fail(self, task: VideoTask, attempts: Sequence[Mapping[str, Any]]) -> None:
        """Records that a video is given up, with every attempt's error."""
        report = {"video_id": task.video_id, "uri": storage.safe_uri(task.uri), "key": task.key, "attempts": attempts}
        self._put(f"failed/{task.key}.json", _json(report))

    def forget_failure(self, task: VideoTask) -> None:
        """Removes the record of an earlier submission's failure, after the video got done."""
        storage.delete(storage.join(self.uri, "failed", f"{task.key}.json"))

    def checkpoints_of(self, task: VideoTask) -> str:
        """The URI of the folder of a video's checkpoints."""
        return storage.join(self.uri, "checkpoints", task.key)

    def checkpointed(self) -> frozenset[str]:
        """Keys of the videos that have checkpoints."""
        return frozenset(storage.list_folders(storage.join(self.uri, "checkpoints")))

    def put_summary(self, summary: Mapping[str, Any]) -> None:
        storage.put_bytes(self._of_shard("summary"), _json(summary))

    def put_status(self, status: Mapping[str, Any]) -> None:
        storage.put_bytes(self._of_shard("status"), _json(status))

    def ask_to_stop(self, *, now: bool) -> None:
        """Asks the submission that holds the lease to finish what is in hand, or to stop at once."""
        storage.put_bytes(self._of_shard("cancel"), _json({"now": now}))

    def asked_to_stop(self) -> Literal["no", "finish", "now"]:
        uri = self._of_shard("cancel")
        if not storage.exists(uri):
            return "no"
        return "now" if json.loads(storage.read_bytes(uri)).get("now") else "finish"

    def forget_cancel(self) -> None:
        storage.delete(self._of_shard("cancel"))

    def _put(self, name: str, data: bytes) -> None:
        storage.put_bytes(storage.join(self.uri, name), data)

    def _keys(self, folder: str, suffix: str) -> set[str]:
        names = storage.list_names(storage.join(self.uri, folder))
        return {name.removesuffix(suffix) for name in names if name.endswith(suffix)}

    def _refuse_other_results(self, earlier: RunRecord, record: RunRecord) -> None:
        differences = _differences(earlier.results, record.results)
        if differences:
            shown = "\n".join(f"  {line}" for line in differences)
            raise RunMismatchError(
                f"{self.uri} belongs to a run with other settings:\n{shown}\n"
                "Give the run's own settings, or another folder with --out."
            )

    def _refuse_other_manifest(self, unknown: Iterable[str]) -> None:
        names = sorted(unknown)
        if names:
            raise RunMismatchError(
                f"{self.uri} holds masks of {len(names)} video(s) that this manifest does not have or has with other "
                f"fields; the first is masks/{names[0]}.parquet. A run's manifest may only grow: put the rows back, "
                "or give another folder with --out."
            )


def versions() -> dict[str, str]:
    """The installed versions of everything that may change a byte of the results."""
    installed = {package: _version(package) for package in PACKAGES}
    found = {package: version for package, version in installed.items() if version is not None}
    return {"rts-batch": __version__, **found}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def expected_lengths(tasks: Iterable[VideoTask]) -> dict[str, int]:
    """Guesses every video's number of frames, for the order and the progress bar only.

    The manifest's `frames` is taken where it is given, else the size of a local file or folder, unless those are so
    many that looking at each would take long.
    """
    tasks = list(tasks)
    look = sum(task.frames is None for task in tasks) <= MOST_LOOKED_AT
    return {task.key: _expected_length(task) if look or task.frames is not None else 0 for task in tasks}


def _expected_length(task: VideoTask) -> int:
    length = task.frames
    if length is None:
        path = storage.local_path(task.uri)
        try:
            if path is None:
                length = 0
            elif path.is_dir():
                length = sum(1 for _ in path.iterdir())
            else:
                length = path.stat().st_size // BYTES_PER_FRAME
        except OSError:
            length = 0
    return max(0, min(length, task.end if task.end is not None else length) - task.start)


MOST_LOOKED_AT = 20_000
"""Videos without a given length beyond which none is looked at."""

BYTES_PER_FRAME = 8192
"""A usual compressed frame; only videos without a given length are put in order by it."""


def _differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line for every value that differs, by its dotted name."""
    before, after = _flat(json.loads(_json(earlier))), _flat(json.loads(_json(now)))
    return [
        f"{name}: the run has {_shown(before.get(name))}, this command {_shown(after.get(name))}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _shown(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value)


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
