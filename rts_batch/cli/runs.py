"""The commands that run what a manifest says, watch it and stop it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rts_batch.errors import ManifestError, RtsBatchError, RunFolderError, UsageError
from rts_batch.runs.settings import DeviceName, RunSettings, Scope, Shard

if TYPE_CHECKING:
    from rts_batch.actors.summary import Summary
    from rts_batch.runs.status import RunStatus

OnError = Literal["continue", "stop"]

ManifestArgument = Annotated[str, typer.Argument(metavar="MANIFEST", help="CSV, JSON lines or Parquet; path or URI.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's folder, path or URI.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")]
SkipInvalidOption = Annotated[
    bool, typer.Option("--skip-invalid", help="Leave out the rows that are wrong, and report them.")
]
ShardOption = Annotated[str | None, typer.Option(metavar="I/N", help="Only the i-th of n parts of the manifest.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="At most so many of the videos that are left.")]
OnErrorOption = Annotated[OnError, typer.Option(help="stop hands out nothing more once a video has failed.")]
MaxFailuresOption = Annotated[
    int | None, typer.Option(min=1, help="Hand out nothing more once so many videos have failed.")
]
AddressOption = Annotated[
    str, typer.Option(help="local starts a Ray of its own; else a running cluster: auto, host:port or ray://host:port.")
]


def plan(
    manifest: ManifestArgument,
    out: Annotated[str, typer.Option(help="The run's folder, path or URI.")],
    weights: Annotated[str | None, typer.Option(help="Name, path or URI of the weights.")] = None,
    shard: ShardOption = None,
    limit: LimitOption = None,
    skip_invalid: SkipInvalidOption = False,
    as_json: JsonOption = False,
    tracker: Annotated[str, typer.Option(hidden=True)] = RunSettings.tracker,
) -> None:
    """Say what `submit` would do, without starting or writing anything."""
    with errors_told(as_json):
        settings = RunSettings(weights=weights, tracker=tracker, device="cpu")
        scope = make_scope(shard, limit, "continue", None)
        # The device is not the run's own, so what it would warn of is not meant.
        show_plan(manifest, out, settings, scope, skip_invalid=skip_invalid, as_json=as_json, warn=False)


def resume(
    run: RunArgument,
    workers: Annotated[int | None, typer.Option("--workers", "--max-workers", min=1, help="Workers at most.")] = None,
    lanes: Annotated[int | None, typer.Option(min=1, help="Other lanes than the run began with.")] = None,
    device: Annotated[DeviceName | None, typer.Option(help="Another device than the run began with.")] = None,
    shard: ShardOption = None,
    limit: LimitOption = None,
    on_error: OnErrorOption = "continue",
    max_failures: MaxFailuresOption = None,
    address: Annotated[str | None, typer.Option(help="Another Ray than the run began with.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run, with the manifest and the settings in its folder."""
    with errors_told(as_json):
        scope = make_scope(shard, limit, on_error, max_failures)
        code = _go_on(run, scope, as_json=as_json, workers=workers, lanes=lanes, device=device, address=address)
    raise typer.Exit(code)


def retry(
    run: RunArgument,
    failed: Annotated[bool, typer.Option("--failed", help="The videos that failed; required.")] = False,
    workers: Annotated[int | None, typer.Option("--workers", "--max-workers", min=1, help="Workers at most.")] = None,
    address: Annotated[str | None, typer.Option(help="Another Ray than the run began with.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Try the videos again that a run gave up, and no others."""
    with errors_told(as_json):
        if not failed:
            raise UsageError("say what to try again: --failed; to go on with everything that is left, use resume")
        code = _go_on(run, Scope(only_failed=True), as_json=as_json, workers=workers, address=address)
    raise typer.Exit(code)


def status(
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", help="Say it every few seconds until the run ends.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say where a run stands, from its folder alone."""
    with errors_told(as_json):
        from rts_batch.io.storage.uris import absolute
        from rts_batch.runs.status import read_status

        while True:
            found = read_status(absolute(run))
            if as_json:
                print_json("status", found.to_dict())
            else:
                _print_status(found)
            if not (follow and found.is_running):
                return
            time.sleep(5)


def cancel(
    run: RunArgument,
    now: Annotated[bool, typer.Option("--now", help="Stop at once; else the videos in hand are finished.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask a run that is under way, wherever its process is, to stop; `resume` goes on with it."""
    with errors_told(as_json):
        from rts_batch.io.storage.uris import absolute
        from rts_batch.runs.status import ask_to_stop

        asked = ask_to_stop(absolute(run), now=now)
        if as_json:
            print_json("cancel", {"asked": [one.process for one in asked], "now": now})
        elif not asked:
            print(f"{run}: nothing is running")
        for one in asked if not as_json else []:
            print(f"asked {one.process} to stop {'now' if now else 'after the videos in hand'}")


def make_scope(shard: str | None, limit: int | None, on_error: OnError, max_failures: int | None) -> Scope:
    if on_error == "stop":
        max_failures = 1
    return Scope(shard=Shard.parse(shard) if shard else None, limit=limit, max_failures=max_failures)


def run_submission(
    manifest: str, out: str, settings: RunSettings, scope: Scope, *, skip_invalid: bool, as_json: bool
) -> int:
    """Submits, shows it and prints how it went; returns the exit code."""
    from rts_batch.actors.display import choose_display
    from rts_batch.actors.submit import submit

    display = choose_display(as_json=as_json, stream=sys.stdout)
    summary = submit(manifest, out, settings, display=display, scope=scope, skip_invalid=skip_invalid)
    if as_json:
        print_json("summary", summary.to_dict())
    else:
        _print_summary(summary, again=["rts-batch", *sys.argv[1:]])
    return summary.exit_code


def show_plan(
    manifest: str,
    out: str,
    settings: RunSettings,
    scope: Scope,
    *,
    skip_invalid: bool,
    as_json: bool,
    warn: bool = True,
) -> None:
    from rts_batch.actors.prepare import look
    from rts_batch.manifest.lengths import expected_lengths

    prepared, found = look(manifest, out, settings, scope=scope, skip_invalid=skip_invalid)
    lengths = expected_lengths(found.left)
    warnings = [*prepared.manifest.warnings, *(found.warnings if warn else ())]
    content = {
        "out": prepared.folder.uri,
        "weights": prepared.tracker.weights,
        "videos": found.videos,
        "done": found.done,
        "to_do": len(found.left),
        "targets": sum(len(task.targets) for task in found.left),
        "estimated_frames": sum(lengths.values()),
        "videos_of_unknown_length": sum(not length for length in lengths.values()),
        "rows_left_out": list(prepared.manifest.invalid),
        "warnings": warnings,
    }
    if as_json:
        print_json("plan", content)
        return
    unknown = content["videos_of_unknown_length"]
    print(f"videos   {len(found.left)} to do, {found.done} of {found.videos} done")
    print(f"targets  {content['targets']}")
    print(
        f"frames   about {content['estimated_frames']}"
        + (f", and {unknown} videos of unknown length" if unknown else "")
    )
    print(f"weights  {content['weights']}")
    print(f"out      {content['out']}")
    for text in warnings:
        print(f"warning: {text}", file=sys.stderr)


def detached(manifest: str, out: str, address: str, *, as_json: bool) -> None:
    """Has the cluster run this very command as a job."""
    from rts_batch.actors.job import submit_job

    job = submit_job(sys.argv[2:], address=address, paths=(manifest, out))
    if as_json:
        print_json("job", {"job": job, "manifest": manifest, "out": out, "address": address})
        return
    where = "" if address == "auto" else f" --address {shlex.quote(address)}"
    print(f"job      {job}")
    print(f"follow   rts-batch status {shlex.quote(out)} --follow, or: ray job logs {job} --follow{where}")
    print(f"stop     rts-batch cancel {shlex.quote(out)}")


def _go_on(run: str, scope: Scope, *, as_json: bool, **changed: Any) -> int:
    from rts_batch.io.storage.uris import absolute
    from rts_batch.runs.folder import RunFolder

    folder = RunFolder(absolute(run))
    record = folder.record()
    if record is None or not record.settings:
        raise RunFolderError(f"{folder.uri} is not a run's folder that says how it was begun; use submit")
    settings = dataclasses.replace(
        RunSettings.from_dict(record.settings), **{name: value for name, value in changed.items() if value is not None}
    )
    return run_submission(folder.paths.manifest, folder.uri, settings, scope, skip_invalid=False, as_json=as_json)


@contextlib.contextmanager
def errors_told(as_json: bool) -> Iterator[None]:
    """Turns the package's own errors into a message and an exit code; anything else is a bug and keeps its trace."""
    try:
        yield
    except RtsBatchError as error:
        if as_json:
            content = {"error": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
            if isinstance(error, ManifestError):
                content["problems"] = list(error.problems)
            print_json("error", content)
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None


def print_json(event: str, content: dict[str, Any]) -> None:
    print(json.dumps({"event": event, **content}, ensure_ascii=False), flush=True)


def _print_status(found: RunStatus) -> None:
    left = found.videos - found.done - found.failed
    print(f"videos   {found.done} of {found.videos} done, {found.failed} failed, {left} left")
    for one in found.submissions:
        state = {"alive": "running", "unknown": "running unless silent", "dead": "died", "nobody": "ended"}[one.holder]
        shown = one.status
        name = f"shard {one.shard.replace('-of-', '/')}" if one.shard else "run"
        speed = f", {shown['frames_per_second']} frames/s, as of {shown['written']}" if shown else ""
        print(f"{name:<8} {state}{f' ({one.process})' if one.process else ''}{speed}")
        for video in shown.get("videos_running", []) if one.is_running else []:
            print(f"         {video['video_id']}: {video['frames']} of {video['expected'] or '?'} frames")


def _print_summary(summary: Summary, *, again: list[str]) -> None:
    content = summary.to_dict()
    already = f" ({summary.already_done} of them before)" if summary.already_done else ""
    left = f", {content['not_started']} left" if content["not_started"] else ""
    print(f"videos   {summary.done} of {summary.videos} done{already}, {len(summary.failures)} failed{left}")
    if summary.frames:
        print(f"frames   {summary.frames} in {summary.seconds:.1f} s, {content['frames_per_second']} frames/s")
    if content["efficiency"]:
        rest = [(step, seconds) for step, seconds in summary.step_seconds.items() if step != "track"]
        shares = ", ".join(f"{step} {seconds / summary.video_seconds:.0%}" for step, seconds in rest)
        print(f"tracker  {content['efficiency']:.0%} of the workers' time ({shares})")
    print(f"weights  {summary.weights}")
    print(f"masks    {content['masks']}/*.parquet")
    for failure in summary.failures:
        tries = f" after {failure.attempts} attempts" if failure.attempts > 1 else ""
        print(f"failed   {failure.video_id}{tries}: {failure.message}")
    for problem in summary.left_out:
        print(f"left out {problem}")
    if summary.warnings:
        print(f"warnings {len(summary.warnings)}, shown above and in {content['out']}/summary.json")
    if summary.interrupted:
        print(f"interrupted; to go on, run the same command again: {shlex.join(again)}", file=sys.stderr)
