"""One submission from its manifest to its summary: what `rts-batch submit` does."""

from __future__ import annotations

import time
from collections.abc import Callable

from rts_batch.actors.display import Display
from rts_batch.actors.driver import Driver
from rts_batch.actors.interruptions import sigterm_as_interrupt
from rts_batch.actors.prepare import DEFAULT_SCOPE, Prepared, finished, prepare
from rts_batch.actors.summary import Summary
from rts_batch.io.storage import uris
from rts_batch.manifest import Manifest, read_manifest
from rts_batch.runs import leftovers
from rts_batch.runs.folder import Plan, RunFolder
from rts_batch.runs.lease import Lease
from rts_batch.runs.record import RunRecord
from rts_batch.runs.settings import RunSettings, Scope
from rts_batch.words import counted


@sigterm_as_interrupt()
def submit(
    manifest_uri: str,
    out: str,
    settings: RunSettings,
    *,
    display: Display,
    scope: Scope = DEFAULT_SCOPE,
    skip_invalid: bool = False,
) -> Summary:
    """Do what is left of a manifest and return how it went.

    Call it from the main thread (it handles Ctrl-C, and Ray ties itself to the thread that starts it).

    Raises:
        ManifestError: Rows that are wrong; nothing has started.
        SettingsError: Settings that cannot work together.
        RunFolderError: The folder is in use, or belongs to another run.
        WeightsError: The weights cannot be used.
        ClusterError: Ray or the device cannot be used.
    """
    started = time.monotonic()
    display.step(f"reading {uris.safe_uri(manifest_uri)}")
    manifest = read_manifest(manifest_uri, skip_invalid=skip_invalid)
    folder = RunFolder(out, scope.shard)
    record = finished(manifest, folder, settings, scope)
    if record is not None:
        return _nothing_to_do(manifest, folder, record, time.monotonic() - started)
    display.step(f"{counted(len(manifest.tasks), 'video')}; loading the weights")
    prepared = prepare(manifest, out, settings, scope=scope)
    folder = prepared.folder
    with Lease(folder.paths.lease, note=display.note) as lease:
        refuse_other_divisions(folder, note=display.note)
        plan = folder.prepare(manifest, prepared.record, scope)
        warnings = _warnings(prepared, plan)
        for text in warnings:
            display.note(f"warning: {text}")
        driver = Driver(
            prepared=prepared,
            plan=plan,
            settings=settings,
            max_failures=scope.max_failures,
            display=display,
            lease=lease,
        )
        interrupted = driver.run() if plan.left else False
        if driver.progress.retries and scope.shard is None:  # a worker may have been killed as it wrote
            leftovers.remove_temporaries(folder.paths)
        summary = _summary(driver, interrupted, warnings, time.monotonic() - started)
        folder.put_summary(summary.to_dict())
        folder.put_status({**driver.status(), "state": "interrupted" if interrupted else "ended"})
        folder.forget_cancel()
    return summary


def _summary(driver: Driver, interrupted: bool, warnings: list[str], seconds: float) -> Summary:
    """How a submission went, `seconds` long, with the warnings from before it began."""
    plan, progress = driver.plan, driver.progress
    return Summary(
        out=driver.folder.uri,
        weights=uris.safe_uri(driver.prepared.tracker.weights),
        videos=plan.videos,
        done=plan.done + progress.done,
        already_done=plan.done,
        failures=tuple(driver.failures),
        left_out=driver.prepared.manifest.invalid,
        frames=progress.finished_frames,
        seconds=progress.seconds if plan.left else 0.0,
        command_seconds=seconds,
        interrupted=interrupted,
        step_seconds=progress.step_seconds,
        states=progress.states,
        video_seconds=progress.video_seconds,
        stopped=driver.stopped,
        warnings=(*warnings, *driver.warnings),
    )


def _nothing_to_do(manifest: Manifest, folder: RunFolder, record: RunRecord, seconds: float) -> Summary:
    """The summary of a submission of a run that is finished; the one in its folder stays."""
    videos = len(folder.ours(manifest))
    return Summary(
        out=folder.uri,
        weights=uris.safe_uri(str(record.settings.get("weights"))),
        videos=videos,
        done=videos,
        already_done=videos,
        failures=(),
        left_out=manifest.invalid,
        frames=0,
        seconds=0.0,
        command_seconds=seconds,
        interrupted=False,
        warnings=manifest.warnings,
    )


def refuse_other_divisions(folder: RunFolder, *, note: Callable[[str], None] = lambda text: None) -> None:
    """Raise RunBusyError where the whole run, or another division of it into shards, is under way."""
    for other in folder.other_leases():
        with Lease(other, note=note):  # what a dead process left behind is removed thereby
            pass


def _warnings(prepared: Prepared, plan: Plan) -> list[str]:
    """Return what is to be known before the first video begins."""
    of_tracker = [prepared.tracker.warning] if prepared.tracker.warning else []
    return [*of_tracker, *prepared.warnings, *plan.warnings]
