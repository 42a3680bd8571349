"""`rts-batch status` and `cancel`: watching a run and stopping it, from its folder alone."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rts_batch.cli.options import JsonOption, RunArgument
from rts_batch.cli.output import print_json, printable

if TYPE_CHECKING:
    from rts_batch.runs.status import RunStatus

FOLLOW_SECONDS = 5.0


def status(
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", help="Say it every few seconds until the run ends.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say where a run stands, from its folder alone."""
    from rts_batch.runs.lease import SILENT_SECONDS
    from rts_batch.runs.status import read_status

    seen: Any = None
    silent_since = time.monotonic()
    while True:
        found = read_status(run)
        if as_json:
            print_json("status", found.to_dict())
        else:
            _print_status(found)
        if not (follow and found.is_running):
            return
        if found.submissions != seen:
            seen, silent_since = found.submissions, time.monotonic()
        if not found.is_known_to_run and time.monotonic() - silent_since > SILENT_SECONDS:
            # As a submission would that takes the run over.
            words = f"{found.out}: silent for {SILENT_SECONDS:.0f} s, so its process has died; rts-batch resume goes on"
            print(words, file=sys.stderr)
            return
        time.sleep(FOLLOW_SECONDS)


def cancel(
    run: RunArgument,
    now: Annotated[
        bool,
        typer.Option(
            "--now",
            help="Stop after the frames in hand, with checkpoints of long videos; else videos in hand are finished.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask a run that is under way, wherever its process is, to stop; `resume` goes on with it."""
    from rts_batch.runs.status import ask_to_stop

    asked = ask_to_stop(run, now=now)
    if as_json:
        print_json("cancel", {"asked": [submission.process for submission in asked], "now": now})
        return
    if not asked:
        print(f"{run}: nothing is running")
    elif now:
        print("now: videos in hand stop after the frame at work; long ones keep a checkpoint, short ones begin anew")
    for submission in asked:
        print(f"asked {submission.process} to stop {'now' if now else 'after the videos in hand'}")
        for video in submission.status.get("videos_running", []) if now else []:
            print(f"  in hand: {printable(video['video_id'])}, {video['frames']} of {video['expected'] or '?'} frames")
    if asked:
        print(f"it does so within some seconds; rts-batch resume {run} goes on")


def _print_status(found: RunStatus) -> None:
    left = found.videos - found.done - found.failed
    print(f"videos   {found.done} of {found.videos} done, {found.failed} failed, {left} left")
    for submission in found.submissions:
        holders = {"alive": "running", "unknown": "running unless silent", "dead": "died", "nobody": "ended"}
        process = f" ({submission.process})" if submission.process else ""
        shown = submission.status
        name = f"shard {submission.shard.replace('-of-', '/')}" if submission.shard else "run"
        speed = f", {shown['frames_per_second']} frames/s, as of {shown['written']}" if shown else ""
        print(f"{name:<8} {holders[submission.holder]}{process}{speed}")
        for video in shown.get("videos_running", []) if submission.is_running else []:
            print(f"         {video['video_id']}: {video['frames']} of {video['expected'] or '?'} frames")
