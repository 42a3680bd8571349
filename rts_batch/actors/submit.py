"""One submission from its manifest to its summary: what `rts-batch submit` does."""

from __future__ import annotations

from collections.abc import Callable

from rts_batch.actors.display import Display
from rts_batch.actors.driver import Driver
from rts_batch.actors.prepare import DEFAULT_SCOPE, Prepared, prepare
from rts_batch.actors.summary import Summary
from rts_batch.io.storage import uris
from rts_batch.runs.folder import Plan, RunFolder
from rts_batch.runs.lease import Lease
from rts_batch.runs.settings import RunSettings, Scope


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
    prepared = prepare(manifest_uri, out, settings, scope=scope, skip_invalid=skip_invalid)
    folder, tracker, manifest = prepared.folder, prepared.tracker, prepared.manifest
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
        summary = Summary(
            out=folder.uri,
            weights=uris.safe_uri(tracker.weights),
            videos=plan.videos,
            done=plan.done + driver.progress.done,
            already_done=plan.done,
            failures=tuple(driver.failures),
            left_out=manifest.invalid,
            frames=driver.progress.finished_frames,
            seconds=driver.progress.seconds if plan.left else 0.0,
            interrupted=interrupted,
            step_seconds=driver.progress.step_seconds,
            states=driver.progress.states,
            video_seconds=driver.progress.video_seconds,
            stopped=driver.stopped,
            warnings=(*warnings, *driver.warnings),
        )
        folder.put_summary(summary.to_dict())
        folder.put_status({**driver.status(), "state": "interrupted" if interrupted else "ended"})
        folder.forget_cancel()
    return summary


def refuse_other_divisions(folder: RunFolder, *, note: Callable[[str], None] = lambda text: None) -> None:
    """Raise RunBusyError where the whole run, or another division of it into shards, is under way."""
    for other in folder.other_leases():
        with Lease(other, note=note):  # what a dead process left behind is removed thereby
            pass


def _warnings(prepared: Prepared, plan: Plan) -> list[str]:
    """Return what is to be known before the first video begins."""
    of_tracker = [prepared.tracker.warning] if prepared.tracker.warning else []
    return [*of_tracker, *prepared.warnings, *plan.warnings]
