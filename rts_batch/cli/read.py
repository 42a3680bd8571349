"""`rts-batch show` and `rts-batch compact`: looking at a run's masks, and merging its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from rts_batch.cli.options import JsonOption, MasksArgument
from rts_batch.cli.output import print_json, printable
from rts_batch.words import counted

if TYPE_CHECKING:
    from rts_batch.runs.statistics import Statistics

NO_QUALITY = "these masks have no estimate; an earlier version or another tracker made them"

# The commands import pyarrow themselves: `rts-batch --help` shall not wait for it.


def show(
    run: MasksArgument,
    video: Annotated[str | None, typer.Argument(metavar="[VIDEO]", help="A video_id: shows its targets.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Videos to list; 0 lists all. --json always does.")] = 50,
    worst: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="List the N frames whose correction would mend most.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show how many frames are in each state, and the quality: of a run, or of one video's targets."""
    if worst is not None:
        _show_worst(run, video, worst, as_json)
    elif video is None:
        _show_run(run, limit, as_json)
    else:
        _show_video(run, video, as_json)


def compact(
    run: MasksArgument,
    output: Annotated[str, typer.Option("--output", "-o", help="The folder to write; it must not exist or be empty.")],
    rows_per_file: Annotated[int, typer.Option(min=1, help="Rows after which a file is closed.")] = 1_000_000,
    as_json: JsonOption = False,
) -> None:
    """Merge the masks files of a run into few large ones elsewhere; the run's folder stays as it is."""
    from rts_batch.runs.compaction import compact as merge

    summary = merge(run, output, rows_per_file=rows_per_file)
    if as_json:
        print_json("summary", asdict(summary))
    else:
        rows, videos = counted(summary.rows, "row"), counted(summary.videos, "video")
        print(f"{output}: {rows} of {videos} in {counted(summary.files, 'file')}")


def _show_run(run: str, limit: int, as_json: bool) -> None:
    from rts_batch.masks import STATES
    from rts_batch.runs.reading import read_masks
    from rts_batch.runs.statistics import Statistics, video_statistics

    total, videos, targets, frames = Statistics(), 0, 0, 0
    lines = [["video", "targets", "frames", *STATES, "quality"]]
    for masks in read_masks(run):
        found = video_statistics(masks)
        total.merge(found.statistics)
        videos, targets, frames = videos + 1, targets + found.targets, frames + found.frames
        if as_json:
            print_json("video", found.to_dict())
        elif not limit or videos <= limit:
            counts = [str(found.statistics.states[state]) for state in STATES]
            quality = _decimals(found.statistics.mean_quality)
            lines.append([printable(found.video_id), str(found.targets), str(found.frames), *counts, quality])
    if as_json:
        print_json("summary", {"videos": videos, "targets": targets, "frames": frames, **total.to_dict()})
        return
    found_in_all = {"video": videos, "target": targets, "frame": frames, "row": total.rows}
    print(", ".join(counted(number, noun) for noun, number in found_in_all.items()) + "\n")
    _print_states(total)
    print()
    _print_columns(lines)
    if limit and videos > limit:
        print(f"… and {videos - limit} more videos; --limit 0 lists all")


def _show_video(run: str, video: str, as_json: bool) -> None:
    from rts_batch.runs.reading import read_masks
    from rts_batch.runs.statistics import Statistics, target_statistics

    masks = read_masks(run).video(video)
    height, width = masks.size
    total = Statistics()
    lines = [["object", "category", "frames", "state", "count"]]
    for target in target_statistics(masks):
        total.merge(target.statistics)
        if as_json:
            print_json("target", target.to_dict())
            continue
        for place, (state, first, last) in enumerate(target.stretches):
            name = [printable(target.label), printable(target.category or "")] if place == 0 else ["", ""]
            lines.append([*name, f"{first}–{last}" if last > first else str(first), state, str(last - first + 1)])
    if as_json:
        return
    length = f"{counted(masks.frames_total, 'frame')}, {counted(masks.rows_total, 'row')}"
    print(f"{printable(masks.video_id)}: {width}×{height}, {length}")
    print(f"video    {printable(masks.uri or 'unknown')}\nfile     {masks.file}\nweights  {masks.weights}\n")
    _print_states(total)
    print()
    _print_columns(lines)


def _show_worst(run: str, video: str | None, count: int, as_json: bool) -> None:
    from rts_batch.review.worst import worst_frames
    from rts_batch.runs.reading import read_masks

    masks = read_masks(run)
    lines = [["video", "object", "frame", "state", "quality", "gain"]]
    for found in worst_frames(masks if video is None else [masks.video(video)], count):
        if as_json:
            print_json("frame", asdict(found))
        name, place = printable(found.video_id), [printable(found.label), str(found.frame)]
        lines.append([name, *place, found.state, _decimals(found.quality), f"{found.gain:.1f}"])
    if not as_json:
        _print_columns(lines)
        print("\ngain: IoU, summed over frames, that marking the target there is expected to bring (docs/labels.md)")


def _print_states(statistics: Statistics) -> None:
    content = statistics.to_dict()
    lines = [["state", "rows", "share"]]
    for state, count in content["states"].items():
        lines.append([state, str(count), f"{100 * count / max(1, statistics.rows):.1f}%"])
    _print_columns(lines)
    if statistics.absent:
        print(f"lost: {statistics.absent} of these rows are of targets that the manifest says are absent")
    means = {"quality": statistics.mean_quality, "score": statistics.mean_score}
    means["confidence"] = statistics.mean_confidence
    print("\nmean " + ", ".join(f"{name} {_decimals(mean)}" for name, mean in means.items()))
    if statistics.mean_quality is None and statistics.rows > statistics.states["prompt"] + statistics.absent:
        print(f"quality: {NO_QUALITY}")


def _print_columns(lines: Sequence[Sequence[str]]) -> None:
    """Print a table: words to the left, numbers to the right. Nothing is cut off, as it may be piped."""
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numeric = [all(value[:1].isdigit() or value in ("", "-") for value in column[1:]) for column in columns]
    for line in lines:
        cells = zip(line, widths, numeric, strict=True)
        print("  ".join(cell.rjust(w) if right else cell.ljust(w) for cell, w, right in cells).rstrip())


def _decimals(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
