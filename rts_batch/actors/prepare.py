"""What is known of a submission before anything is written or started."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from rts_batch.actors.sizing import choose_cpus, choose_size
from rts_batch.errors import ManifestError, UsageError
from rts_batch.io.storage import files, uris
from rts_batch.manifest import Manifest, read_manifest
from rts_batch.manifest.boxes import nested_boxes
from rts_batch.runs.folder import Plan, RunFolder
from rts_batch.runs.lease import holder_of
from rts_batch.runs.record import RunRecord, versions
from rts_batch.runs.settings import RunSettings, Scope
from rts_batch.weights.publications import DEFAULT_WEIGHTS, NAMES
from rts_batch.worker.prompts import BOX_NEEDS_STA
from rts_batch.worker.tracker import TrackerDescription, find_factory

DEFAULT_SCOPE = Scope()


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is known of a submission before anything is written or started."""

    manifest: Manifest
    tracker: TrackerDescription
    folder: RunFolder
    record: RunRecord
    workers: int
    threads: int
    lanes: int
    cpus: float
    """That are set aside for each worker."""

    @property
    def warnings(self) -> list[str]:
        """What the rows say that was probably not meant so."""
        of_overlap = nested_boxes(self.manifest.tasks) if self.tracker.overlap == "merge" else ()
        return [*self.manifest.warnings, *of_overlap]


def finished(manifest: Manifest, folder: RunFolder, settings: RunSettings, scope: Scope) -> RunRecord | None:
    """The run's record where every video of the manifest is done under these settings and nothing is to be removed.

    None where something is left to do.

    It takes the weights by the name that the run has recorded, and reads neither them nor any library for networks.
    """
    record = folder.record()
    if record is None or not _is_asked_for(record, settings):
        return None
    keys, done = {task.key for task in manifest.tasks}, folder.done()
    if folder.failed() or folder.paths.outdated() or holder_of(folder.paths.lease).state == "dead":
        return None
    return record if folder.ours(manifest) <= done <= keys and _has_taken(folder, manifest) else None


def _is_asked_for(record: RunRecord, settings: RunSettings) -> bool:
    recorded = record.settings
    weights = settings.weights or (DEFAULT_WEIGHTS if settings.tracker == RunSettings.tracker else None)
    if weights is not None and weights not in NAMES:
        weights = uris.without_query(str(Path(weights).absolute()) if Path(weights).exists() else weights)
    return (
        weights in (None, recorded.get("weights"))
        and settings.profile in ("auto", record.results.get("profile", "exact"))
        and all(recorded.get(name) == settings.to_dict()[name] for name in ("tracker", "tracker_options", "overlap"))
    )


def _has_taken(folder: RunFolder, manifest: Manifest) -> bool:
    """Whether the folder's manifest is this one, and nothing says that its rows have changed since.

    Rows that were changed and changed back may be done, while `resume` would go on with the others.
    """
    uri = folder.paths.manifest
    if not files.exists(uri) or files.read_bytes(uri) != manifest.to_parquet():
        return False
    return folder.paths.replaced_by().keys().isdisjoint(task.key for task in manifest.tasks)


def look(
    manifest_uri: str, out: str, settings: RunSettings, *, scope: Scope = DEFAULT_SCOPE, skip_invalid: bool = False
) -> tuple[Prepared, Plan]:
    """Check everything that can be checked, and say what a submission would do. Raise as `submit` does."""
    prepared = prepare(read_manifest(manifest_uri, skip_invalid=skip_invalid), out, settings, scope=scope)
    return prepared, prepared.folder.look(prepared.manifest, prepared.record, scope)


def prepare(manifest: Manifest, out: str, settings: RunSettings, *, scope: Scope = DEFAULT_SCOPE) -> Prepared:
    """Check everything that can be checked without the run's folder being ours. Raise as `submit` does."""
    folder = RunFolder(out, scope.shard)
    if not uris.is_utf8(folder.uri):
        raise UsageError(f"the run's folder {folder.uri} has a name that is no UTF-8; give another one with --out")
    folder.refuse_compacted()
    begun = folder.record()
    if settings.profile == "auto" and begun is not None:
        settings = replace(settings, profile=begun.results.get("profile", "exact"))
    tracker = find_factory(settings.tracker).describe(settings)
    _refuse_boxes_without_sta(manifest, tracker)
    workers, threads = choose_size(settings, tracker, begun, videos=len(manifest.tasks))
    lanes = settings.lanes or (begun.environment.get("lanes") if begun is not None else None) or 1
    environment = {**tracker.environment, "threads_per_worker": threads, "lanes": lanes, "versions": versions()}
    record = RunRecord(
        results={
            "weights": tracker.fingerprint,
            **tracker.settings,
            "profile": tracker.profile,
            "overlap": tracker.overlap,
        },
        environment=environment,
        settings={**settings.to_dict(), "weights": uris.without_query(tracker.weights)},
    )
    return Prepared(
        manifest=manifest,
        tracker=tracker,
        folder=folder,
        record=record,
        workers=workers,
        threads=threads,
        lanes=lanes,
        cpus=choose_cpus(settings, lanes),
    )


def _refuse_boxes_without_sta(manifest: Manifest, tracker: TrackerDescription) -> None:
    if tracker.boxes:
        return
    lines = [
        prompt.line
        for task in manifest.tasks
        for target in task.targets
        for prompt in target.prompts
        if prompt.box is not None
    ]
    if lines:
        raise ManifestError(
            f"{len(lines)} prompt(s) are boxes (the first in line {lines[0]}): {BOX_NEEDS_STA}. "
            f"The weights are {tracker.weights}."
        )
