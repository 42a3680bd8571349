"""`rts-batch export`: the masks of a run in the formats of other tools."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from rts_batch.cli.options import JsonOption, MasksArgument
from rts_batch.cli.output import print_json, print_left_out
from rts_batch.errors import EXIT_FAILED, EXIT_SOME_FAILED, UsageError
from rts_batch.export.names import ExportName
from rts_batch.words import counted

if TYPE_CHECKING:
    from rts_batch.export.row_filter import RowFilter
    from rts_batch.export.run import Exported

FramesMode = Literal["reference", "extract"]

# The command imports pyarrow and OpenCV itself: `rts-batch --help` shall not wait for them.


def export(
    run: MasksArgument,
    format: Annotated[ExportName, typer.Option(help="What to write.")],
    out: Annotated[str, typer.Option(help="The folder to write, path or URI; it must not exist or be empty.")],
    frames: Annotated[
        FramesMode, typer.Option(help="reference names the frames; extract also writes them as JPEG.")
    ] = "reference",
    min_score: Annotated[float | None, typer.Option(help="Least score of the target's score map.")] = None,
    min_confidence: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least mean probability inside the mask.")
    ] = None,
    min_quality: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Least expected IoU; rows without an estimate are left out."),
    ] = None,
    min_area: Annotated[int, typer.Option(min=0, help="Least size of a mask in pixels.")] = 0,
    states: Annotated[
        str, typer.Option(help="States to take; `all` takes uncertain and lost ones too.", metavar="STATE,…")
    ] = "prompt,tracked",
    every: Annotated[int, typer.Option(min=1, metavar="K", help="Only frames whose index is a multiple of K.")] = 1,
    objects: Annotated[
        str | None, typer.Option(help="Object ids to take, as 1,2. [default: all]", metavar="ID,…")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Numbers of categories, as car=1,pedestrian=2. [default: alphabetical, from 1]")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Shares of train, val and test by whole videos, as 0.8,0.1,0.1 (yolo-seg).")
    ] = None,
    polygons: Annotated[bool, typer.Option("--polygons", help="Masks as polygons in place of RLE (coco).")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the masks of a run as COCO, YouTube-VIS, DAVIS, YOLO, CVAT and so on."""
    from rts_batch.export.choices import parse_classes, parse_split
    from rts_batch.export.row_filter import RowFilter
    from rts_batch.export.run import export_run
    from rts_batch.masks import State

    row_filter = RowFilter(
        min_score=min_score,
        min_confidence=min_confidence,
        min_area=min_area,
        min_quality=min_quality,
        states=None if states == "all" else frozenset(cast("list[State]", _listed("--states", states))),
        every=every,
        objects=None if objects is None else frozenset(map(_target, _listed("--objects", objects))),
    )
    exported = export_run(
        run,
        out,
        format,
        row_filter=row_filter,
        extract_frames=frames == "extract",
        classes=None if classes is None else parse_classes(classes),
        split=None if split is None else parse_split(split),
        polygons=polygons,
    )
    if as_json:
        print_json("summary", {"format": format, **asdict(exported)})
    else:
        _print_exported(exported, images=frames == "extract", filter=row_filter)
    if exported.left_out:
        raise typer.Exit(EXIT_SOME_FAILED if exported.videos else EXIT_FAILED)


def _print_exported(exported: Exported, *, images: bool, filter: RowFilter) -> None:
    masks, targets = counted(exported.masks, "mask"), counted(exported.targets, "target")
    written = f", {counted(exported.images, 'image')}" if images else ""
    print(f"{exported.out}: {masks} of {targets} in {counted(exported.videos, 'video')}{written}")
    if exported.doubted:
        without = " without --min-score, --min-confidence and --min-quality" if filter.minima else ""
        # With all states, what is still left out holds nothing that could be taken.
        hint = f". To take what they hold: --states all{without}" if without or filter.states is not None else ""
        print(
            f"left out {counted(exported.doubted, 'row')} as uncertain, lost or below what was asked for, which is not "
            f"background{hint}"
        )
    if exported.unmarked:
        print(
            f"on {counted(exported.unmarked, 'frame')} not every target is marked; where one is not, it may be "
            "anywhere, which is no background. To take targets by themselves: --objects"
        )
    print_left_out(exported.left_out, exported.warnings)


def _listed(option: str, text: str) -> list[str]:
    if not (parts := [part.strip() for part in text.split(",") if part.strip()]):
        raise UsageError(f"{option}: nothing is named, so nothing would be taken; leave it out for the default")
    return parts


def _target(text: str) -> int | str:
    """A number, or a name as manifests have them."""
    try:
        return text if text[:1].isalpha() else int(text)
    except ValueError:
        raise UsageError(f"--objects: {text!r} is not an object id; give whole numbers or names, as 1,2") from None
