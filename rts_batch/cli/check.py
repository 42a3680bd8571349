"""`rts-batch probe`, `verify` and the deep half of `validate`: looking before and after a run."""

from __future__ import annotations

import json
import tempfile
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rts_batch.cli.read import reported
from rts_batch.errors import EXIT_FAILED, ManifestError

if TYPE_CHECKING:
    from rts_batch.manifest import Manifest

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")]


def probe(
    video: Annotated[str, typer.Argument(metavar="VIDEO", help="A file or a folder of images; path or URI.")],
    as_json: JsonOption = False,
) -> None:
    """Say what a video is, which decoder would read it and why."""
    with reported(as_json):
        from rts_batch.io.storage import files, uris
        from rts_batch.io.video.description import describe_video

        shown = uris.safe_uri(video)
        with tempfile.TemporaryDirectory(prefix="rts-batch-") as folder:
            found = describe_video(str(files.fetch(video, folder)))
    if as_json:
        _print_json("video", {"video": shown, **found})
        return
    print(f"video            {shown}")
    for name, value in found.items():
        if name != "reason":
            print(f"{name.replace('_', ' '):<17}{_shown(value)}")
        elif value is not None:
            print(f"{'':<17}and not decord: {value}")


def verify(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder; path or URI.")],
    as_json: JsonOption = False,
) -> None:
    """Check every results file of a run: rows against task, masks, checksums. Ends with 1 where something is wrong."""
    wrong = files = rows = 0
    with reported(as_json):
        from rts_batch.runs.paths import MASKS
        from rts_batch.runs.verification import verify_run

        for found in verify_run(run):
            files, rows, wrong = files + 1, rows + found.rows, wrong + bool(found.problems)
            if as_json:
                content = {"file": found.name, "video_id": found.video_id, "rows": found.rows}
                _print_json("file", {**content, "problems": list(found.problems)})
            for problem in () if as_json else found.problems:
                print(f"{MASKS}/{found.name}: {problem}")
    if as_json:
        _print_json("summary", {"files": files, "rows": rows, "wrong": wrong})
    else:
        print(f"{run}: {files} files with {rows} rows, {wrong} of them wrong")
    if wrong:
        raise typer.Exit(EXIT_FAILED)


def check_deep(manifest: Manifest, uri: str, *, as_json: bool) -> list[str]:
    """Opens every video of a manifest and returns the warnings.

    Raises:
        ManifestError: with every video that a run would give up.
    """
    from rich.console import Console
    from rich.progress import track

    from rts_batch.actors.cluster import usable_cores
    from rts_batch.worker.precheck import check_videos

    console = Console(stderr=True)
    checks = check_videos(manifest.tasks, processes=max(1, min(8, usable_cores())))
    problems, warnings = [], []
    for found in track(
        checks, "opening videos", len(manifest.tasks), console=console, disable=not console.is_terminal, transient=True
    ):
        if found.problem is not None:
            problems.append(f"{found.video_id}: {found.problem}")
        warnings += [f"{found.video_id}: {warning}" for warning in found.warnings]
        if as_json:
            content = {"video_id": found.video_id, "decoder": found.decoder, "problem": found.problem}
            _print_json("video", {**content, "warnings": list(found.warnings)})
    if problems:
        raise ManifestError(f"{uri}: {len(problems)} of {len(manifest.tasks)} videos cannot be done", problems)
    return warnings


def _shown(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _print_json(event: str, content: dict[str, Any]) -> None:
    print(json.dumps({"event": event, **content}, ensure_ascii=False), flush=True)
