"""`rts-batch validate`, `probe` and `verify`: looking before and after a run."""

from __future__ import annotations

import sys
import tempfile
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rts_batch.cli.options import JsonOption, ManifestArgument, OverlapOption, RunArgument, SkipInvalidOption
from rts_batch.cli.output import print_json, watch
from rts_batch.errors import EXIT_FAILED, ManifestError
from rts_batch.words import counted

if TYPE_CHECKING:
    from rts_batch.config import Overlap
    from rts_batch.manifest import Manifest


def validate(
    manifest: ManifestArgument,
    deep: Annotated[
        bool, typer.Option("--deep", help="Open every video as well, and decode it up to its last prompt.")
    ] = False,
    overlap: OverlapOption = "merge",
    skip_invalid: SkipInvalidOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check every row of a manifest, with --deep against the videos themselves."""
    from rts_batch.manifest import read_manifest
    from rts_batch.manifest.boxes import nested_boxes

    found = read_manifest(manifest, skip_invalid=skip_invalid)
    warnings = [*found.warnings, *(nested_boxes(found.tasks) if overlap == "merge" else ())]
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    of_videos = _check_deep(found, manifest, overlap, as_json=as_json) if deep else []
    targets = sum(len(task.targets) for task in found.tasks)
    if as_json:
        content = {"manifest": manifest, "videos": len(found.tasks), "targets": targets}
        print_json("manifest", {**content, "left_out": list(found.invalid), "warnings": [*warnings, *of_videos]})
        return
    print(f"{manifest}: {counted(len(found.tasks), 'video')}, {counted(targets, 'target')}")
    for problem in found.invalid:
        print(f"left out: {problem}", file=sys.stderr)
    for warning in of_videos:
        print(f"warning: {warning}", file=sys.stderr)


def probe(
    video: Annotated[str, typer.Argument(metavar="VIDEO", help="A file or a folder of images; path or URI.")],
    as_json: JsonOption = False,
) -> None:
    """Say what a video is, which decoder would read it and why."""
    from rts_batch.io.storage import files, uris
    from rts_batch.io.video.description import describe_video

    shown = uris.safe_uri(video)
    with tempfile.TemporaryDirectory(prefix="rts-batch-") as folder:
        found = describe_video(str(files.fetch(video, folder)))
    if as_json:
        print_json("video", {"video": shown, **found})
        return
    print(f"video            {shown}")
    for name, value in found.items():
        if name != "reason":
            print(f"{name.replace('_', ' '):<17}{_shown(value)}")
        elif value is not None:
            print(f"{'':<17}and not decord: {value}")


def verify(
    run: RunArgument,
    as_json: JsonOption = False,
) -> None:
    """Check every results file of a run: rows against task, masks, checksums. Ends with 1 where something is wrong."""
    wrong = files = rows = 0
    from rts_batch.runs.paths import MASKS
    from rts_batch.runs.verification import verify_run

    for found in verify_run(run):
        files, rows, wrong = files + 1, rows + found.rows, wrong + bool(found.problems)
        if as_json:
            content = {"file": found.name, "video_id": found.video_id, "rows": found.rows}
            print_json("file", {**content, "problems": list(found.problems)})
        for problem in () if as_json else found.problems:
            print(f"{MASKS}/{found.name}: {problem}")
    if as_json:
        print_json("summary", {"files": files, "rows": rows, "wrong": wrong})
    else:
        print(f"{run}: {counted(files, 'file')} with {counted(rows, 'row')}, {wrong} of them wrong")
    if wrong:
        raise typer.Exit(EXIT_FAILED)


def _check_deep(manifest: Manifest, uri: str, overlap: Overlap, *, as_json: bool) -> list[str]:
    """Open every video of a manifest; return the warnings.

    Raises:
        ManifestError: with every video that a run would give up.
    """
    from rts_batch.actors.cluster import usable_cores
    from rts_batch.worker.precheck import check_boxes, check_videos

    checks = check_videos(manifest.tasks, overlap=overlap, processes=max(1, min(8, usable_cores())))
    problems, warnings, everyone = [], [], []
    for found in watch(checks, "opening videos", len(manifest.tasks)):
        everyone.append(found)
        if found.problem is not None:
            problems.append(f"{found.video_id}: {found.problem}")
        warnings += [f"{found.video_id}: {warning}" for warning in found.warnings]
        if as_json:
            content = {"video_id": found.video_id, "decoder": found.decoder, "problem": found.problem}
            print_json("video", {**content, "warnings": list(found.warnings)})
    hints = check_boxes(manifest.tasks, everyone)
    if problems:
        shown = "".join(f"; {hint}" for hint in hints)
        raise ManifestError(f"{uri}: {len(problems)} of {len(manifest.tasks)} videos cannot be done{shown}", problems)
    return [*hints, *warnings]


def _shown(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
