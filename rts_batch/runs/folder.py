"""A run's folder: what is left to do in it, and what is written for a video that is done or failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rts_batch.errors import ManifestError, ResultsError, RunFolderError, RunMismatchError, StorageError, UsageError
from rts_batch.io.results.file import MasksFile, video_entries
from rts_batch.io.storage import files, uris
from rts_batch.manifest import Manifest, VideoTask, read_manifest
from rts_batch.runs import leftovers
from rts_batch.runs.json_files import read_object
from rts_batch.runs.lease import token_of
from rts_batch.runs.paths import MASKS, RECORD, RunPaths, shards_among
from rts_batch.runs.record import RunRecord, differences, other_results, to_json
from rts_batch.runs.settings import Scope, Shard


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
    replaces: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Key of a video whose rows have changed → keys under which it was done before; they go once it is done again."""


class RunFolder:
    """One run's folder at any URI. Hold its lease (`paths.lease`) before calling what writes."""

    def __init__(self, uri: str, shard: Shard | None = None) -> None:
        if not uri:
            raise UsageError("the run's folder has no name; give one with --out, '.' for the current folder")
        self.uri = uris.absolute(uri).rstrip("/") or "/"  # workers run in folders of their own
        self.shard = shard
        self.paths = RunPaths(self.uri, str(shard) if shard else None)

    def record(self) -> RunRecord | None:
        """Read `run.json`, None in a folder that has none yet."""
        uri = self.paths.record
        return RunRecord.from_json(files.read_bytes(uri), where=uri) if files.exists(uri) else None

    def refuse_compacted(self) -> None:
        """Raise `RunFolderError` where `rts-batch compact` wrote the folder, whose masks are not under videos' keys."""
        if self.paths.is_compacted:
            raise RunFolderError(
                f"{self.uri} was written by `rts-batch compact`, to be read from; give the run's own folder to go on "
                "with the run, to check or to stop it"
            )

    def done(self) -> set[str]:
        """Keys of the videos whose masks are in place."""
        return set(self.paths.finished())

    def failed(self) -> set[str]:
        """Keys of the videos that were given up; masks that are in place win over that."""
        failed = set(self.paths.failed())
        return failed - self.done() if failed else failed

    def other_leases(self) -> list[str]:
        """Leases of the same folder that belong to the whole run or to other divisions of it."""
        mine = self.paths.shard
        division = f"-of-{self.shard.count}" if self.shard else "no division"
        others = [shard for shard in shards_among(files.list_names(self.uri), "lease") if shard != mine]
        return [RunPaths(self.uri, shard).lease for shard in others if not (shard or "").endswith(division)]

    def look(self, manifest: Manifest, record: RunRecord, scope: Scope = Scope()) -> Plan:  # noqa: B008 - frozen
        """Say what is left to do, and write nothing.

        Raises:
            RunMismatchError: The folder holds the results of other settings, other weights or another manifest.
        """
        return self._look(manifest, record, scope, self.done())

    def _look(self, manifest: Manifest, record: RunRecord, scope: Scope, done: set[str]) -> Plan:
        warnings: tuple[str, ...] = ()
        earlier = self.record()
        if earlier is None:
            if done:
                raise RunFolderError(f"{self.uri} holds masks but no {RECORD}; give another folder with --out")
        else:
            self._refuse_other_results(earlier, record)
            changes = differences(earlier.environment, record.environment)
            if changes:
                warnings = (
                    "the remaining videos run in another environment than the first ones, so their masks may differ "
                    "in single pixels from an undisturbed run's: " + "; ".join(changes),
                )
        replaces = self._accept_manifest(done - {task.key for task in manifest.tasks}, manifest, scope)
        tasks = [task for task in manifest.tasks if self._is_ours(task)]
        left = [task for task in tasks if task.key not in done]
        undone = len(left)
        failed = frozenset(self.paths.failed())
        if scope.only_failed:
            left = [task for task in left if task.key in failed]
        return Plan(
            left=tuple(left[: scope.limit]),
            done=len(tasks) - undone,
            videos=len(tasks),
            failed_before=failed,
            warnings=warnings,
            replaces=replaces,
        )

    def prepare(self, manifest: Manifest, record: RunRecord, scope: Scope = Scope()) -> Plan:  # noqa: B008 - frozen
        """Make the folder this run's, or check that it is, and say what is left to do; raise as `look` does."""
        done = self.done()
        plan = self._look(manifest, record, scope, done)
        if self.record() is None:
            files.put_bytes(self.paths.record, record.to_json())
            written = self.record()  # another shard may have begun with other settings at the same moment
            if written is not None:
                self._refuse_other_results(written, record)
        keys, content = {task.key for task in manifest.tasks}, manifest.to_parquet()
        # A submission was killed between the new masks and the old ones' end. Where the new ones are now replaced in
        # their turn, the old ones would count beside them.
        self.drop(key for key in self.paths.outdated() if key not in keys)
        # First the note, without which the new manifest would be one that does not fit the masks.
        self._note_replaced(plan.replaces, manifest, content)
        files.put_bytes(self.paths.manifest, content)
        self.drop(self.paths.outdated())
        for key in plan.failed_before:
            # A video that got done later, or whose row has been corrected since, has not failed.
            if key in done or key not in keys:
                files.delete(self.paths.failure(key))
        if self.shard is None:  # another shard may be writing
            kept = bool(record.settings.get("keep_checkpoints"))
            leftovers.remove(self.paths, keys, done, keep_checkpoints=kept)
        return plan

    def ours(self, manifest: Manifest) -> set[str]:
        """Keys of the manifest's videos that are in this shard."""
        return {task.key for task in manifest.tasks if self._is_ours(task)}

    def _is_ours(self, task: VideoTask) -> bool:
        """By the digest, so that a growing manifest moves no video to another shard."""
        return self.shard is None or int(task.digest, 16) % self.shard.count == self.shard.index - 1

    def commit(
        self, task: VideoTask, masks: Path, report: Mapping[str, Any], *, results: Mapping[str, Any] | None = None
    ) -> None:
        """Put one video's finished masks in place: with this the video is done, and not before.

        Masks that are there already stay, and a folder that has become another run's (other `results` in its record)
        gets none, nor do rows of the video that have changed since. So a worker that was thought dead may finish
        whenever it likes.
        """
        if results is not None:
            now = self.record()
            if now is None:  # its driver notices too, and ends the run
                raise StorageError(f"{self.uri} is no run's folder any more: {RECORD} is gone", transient=True)
            if other_results(now.results, results):
                raise RunMismatchError(f"{self.uri} has become another run's folder; this worker's masks are not kept")
        if task.key in self.paths.replaced_by():
            raise RunMismatchError(
                f"{self.uri}: the rows of video {task.video_id} have changed since; this worker's masks are not kept"
            )
        target = self.paths.masks_file(task.key)
        if files.exists(target):
            return
        files.put_bytes(self.paths.report(task.key), to_json(report))
        files.put_file(masks, target)

    def fail(self, task: VideoTask, attempts: Sequence[Mapping[str, Any]]) -> None:
        """Record that a video is given up, with every attempt's error."""
        report = {"video_id": task.video_id, "uri": uris.safe_uri(task.uri), "key": task.key, "attempts": attempts}
        files.put_bytes(self.paths.failure(task.key), to_json(report))

    def forget_failure(self, task: VideoTask) -> None:
        """Remove the record of an earlier submission's failure, after the video got done."""
        files.delete(self.paths.failure(task.key))

    def drop(self, keys: Iterable[str]) -> None:
        """Remove what was done and noted under keys of rows that have changed since."""
        for key in keys:
            # The report, by which the video is known, outlives the masks; `prepare` removes one that is left alone.
            paths = self.paths
            for uri in (paths.failure(key), paths.checkpoints(key), paths.masks_file(key), paths.report(key)):
                files.delete(uri)

    def checkpoints_of(self, task: VideoTask) -> str:
        """The URI of the folder of a video's checkpoints."""
        return self.paths.checkpoints(task.key)

    def checkpointed(self) -> frozenset[str]:
        """Keys of the videos that have checkpoints."""
        return frozenset(self.paths.checkpointed())

    def put_summary(self, summary: Mapping[str, Any]) -> None:
        files.put_bytes(self.paths.summary, to_json(summary))

    def put_status(self, status: Mapping[str, Any]) -> None:
        files.put_bytes(self.paths.status, to_json(status))

    def ask_to_stop(self, *, now: bool) -> None:
        """Ask the submission that holds the lease to finish what is in hand, or to stop at once."""
        files.put_bytes(self.paths.cancel, to_json({"now": now, "lease": token_of(self.paths.lease)}))

    def asked_to_stop(self, lease: str) -> Literal["no", "finish", "now"]:
        """Whether the submission whose lease has this token is to stop; what an earlier one was asked is not meant."""
        uri = self.paths.cancel
        if not files.exists(uri):
            return "no"
        wish = read_object(uri)
        if wish.get("lease") != lease:
            return "no"
        return "now" if wish.get("now") else "finish"

    def forget_cancel(self) -> None:
        files.delete(self.paths.cancel)

    def _refuse_other_results(self, earlier: RunRecord, record: RunRecord) -> None:
        if different := other_results(earlier.results, record.results):
            shown = "\n".join(f"  {line}" for line in different)
            raise RunMismatchError(
                f"{self.uri} belongs to a run with other settings:\n{shown}\n"
                "Give the run's own settings, or another folder with --out."
            )

    def _accept_manifest(self, unknown: set[str], manifest: Manifest, scope: Scope) -> dict[str, tuple[str, ...]]:
        """Return which videos of the manifest replace results of other rows; refuse results that nothing replaces.

        Changed rows are accepted where the scope says so, or where an earlier submission has begun with them.
        """
        if not unknown:
            return {}
        tasks = {task.video_id: task for task in manifest.tasks}
        changed = {key: name for key in unknown if (name := self._video_of(key)) in tasks}
        begun = self.paths.replaced_by()
        accepted = scope.redo_changed or all(begun.get(key) == tasks[name].key for key, name in changed.items())
        names = sorted(unknown - changed.keys() if accepted else unknown)
        if names:
            hint = (
                f" Of {len(changed)} of them the rows have changed: --redo-changed tracks those videos again."
                if changed and not accepted
                else ""
            )
            raise RunMismatchError(
                f"{self.uri} holds masks of {len(names)} video(s) that this manifest does not have or has with other "
                f"fields; the first is {MASKS}/{names[0]}.parquet.{hint} Otherwise a run's manifest may only grow: put "
                "the rows back, or give another folder with --out."
            )
        replaces: dict[str, tuple[str, ...]] = {}
        for key, name in sorted(changed.items()):
            new = tasks[name].key
            replaces[new] = (*replaces.get(new, ()), key)
        return replaces

    def _video_of(self, key: str) -> str:
        """The name of a video that is done, by its report or in its absence its masks; empty where neither says."""
        uri = self.paths.report(key)
        if files.exists(uri):
            return str(read_object(uri).get("video_id", ""))
        try:
            (entry,) = video_entries(MasksFile(self.paths.masks_file(key)), "")
        except (ResultsError, ValueError):
            return ""
        return entry.video_id

    def _note_replaced(self, replaces: Mapping[str, Sequence[str]], manifest: Manifest, content: bytes) -> None:
        """Record which keys count no more once the others' masks are in place, of videos done and under way.

        `content` is the manifest as it is written.
        """
        before = self.paths.replaced_by()
        current = {task.key for task in manifest.tasks}
        # A worker that was thought dead may still be at work on rows that the last submission had.
        newer = self._gone_since(manifest, content)
        newer |= {old: new for new, outdated in replaces.items() for old in outdated}
        # Rows that have been changed back replace those that had replaced them.
        newer |= {new: old for old, new in before.items() if new and old in current and new not in current}
        # What was replaced by a key that is now replaced itself follows it.
        after = {old: newer.get(new, new) for old, new in before.items() if old not in current} | newer
        if after != before:
            files.put_bytes(self.paths.replaced, to_json(after))

    def _gone_since(self, manifest: Manifest, content: bytes) -> dict[str, str]:
        """For keys of the folder's manifest that this one has no more, their videos' keys now; empty without any."""
        uri = self.paths.manifest
        if not files.exists(uri) or files.read_bytes(uri) == content:
            return {}
        now = {task.video_id: task.key for task in manifest.tasks}
        try:
            earlier = read_manifest(uri, skip_invalid=True).tasks
        except ManifestError:  # of a version with other rules, whose workers this one has no part with
            return {}
        return {task.key: now.get(task.video_id, "") for task in earlier if task.key != now.get(task.video_id)}
