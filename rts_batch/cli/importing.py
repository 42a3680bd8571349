"""`rts-batch manifest from-…`: a manifest from other tools' annotations."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from rts_batch.cli.options import JsonOption
from rts_batch.cli.output import print_json, print_left_out
from rts_batch.errors import UsageError
from rts_batch.words import counted

if TYPE_CHECKING:
    from rts_batch.manifest.importers.base import ImportOptions, Keep
    from rts_batch.manifest.importers.detections import BoxFormat
    from rts_batch.manifest.importers.imported import Imported
else:  # the importers need NumPy and pycocotools: `rts-batch --help` shall not wait for them
    from typing import Literal

    Keep = Literal["first", "all"]
    BoxFormat = Literal["xyxy", "xywh", "cxcywh"]

Source = Annotated[str, typer.Argument(metavar="SOURCE", help="The annotations: a local file or folder.")]
Out = Annotated[str, typer.Option("-o", "--out", help="The manifest to write: .csv or .jsonl, path or URI.")]
Video = Annotated[
    str,
    typer.Option("--video", help="The videos' paths: clips/{name}.mp4 say, with {name} as the annotations call one."),
]
Prompts = Annotated[Keep, typer.Option("--prompts", help="Each target's first annotation, or all of them.")]
Pattern = Annotated[
    str | None,
    typer.Option(help="Regular expression for image names, with (?P<video>…) and (?P<frame>…). [default: one_000120]"),
]
FirstFrame = Annotated[int, typer.Option(min=0, help="The number that image names give a video's first frame.")]
Size = Annotated[str | None, typer.Option(metavar="WxH", help="The frames' size, where the annotations do not say it.")]
FullSize = Annotated[
    str | None,
    typer.Option(
        "--size", metavar="WxH", help="The frames' size, where the annotated pictures have another, or none is said."
    ),
]
MinScore = Annotated[float | None, typer.Option(help="Least score, where annotations have one.")]


def from_coco(
    source: Source,
    out: Out,
    video: Video = "{name}",
    prompts: Prompts = "first",
    pattern: Pattern = None,
    first_frame: FirstFrame = 0,
    size: FullSize = None,
    min_score: MinScore = None,
    crowds: Annotated[bool, typer.Option("--crowds", help="Take annotations that are marked as crowds, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """COCO instances and YouTube-VIS: boxes, polygons, RLE; images as frames."""
    from rts_batch.manifest.importers.coco import from_coco as read

    options = _options(video, prompts, pattern, first_frame, size, min_score)
    _finish(read(source, options, crowds=crowds), out, as_json)


def from_yolo(
    source: Source,
    out: Out,
    video: Video = "{name}",
    prompts: Prompts = "first",
    pattern: Pattern = None,
    first_frame: FirstFrame = 0,
    size: FullSize = None,
    min_score: MinScore = None,
    as_json: JsonOption = False,
) -> None:
    """YOLO detect or segment labels: data.yaml, its folder, or a folder of labels."""
    from rts_batch.manifest.importers.yolo import from_yolo as read

    _finish(read(source, _options(video, prompts, pattern, first_frame, size, min_score)), out, as_json)


def from_cvat(
    source: Source,
    out: Out,
    video: Video = "{name}",
    prompts: Prompts = "first",
    pattern: Pattern = None,
    first_frame: FirstFrame = 0,
    size: FullSize = None,
    as_json: JsonOption = False,
) -> None:
    """CVAT for video or for images 1.1: an XML file, or a folder of them."""
    from rts_batch.manifest.importers.cvat import from_cvat as read

    _finish(read(source, _options(video, prompts, pattern, first_frame, size)), out, as_json)


def from_label_studio(
    source: Source,
    out: Out,
    video: Video = "{name}",
    prompts: Prompts = "first",
    pattern: Pattern = None,
    first_frame: FirstFrame = 0,
    size: FullSize = None,
    as_json: JsonOption = False,
) -> None:
    """Label Studio's JSON: boxes, polygons, brushes, boxes on a video's time line."""
    from rts_batch.manifest.importers.label_studio import from_label_studio as read

    _finish(read(source, _options(video, prompts, pattern, first_frame, size)), out, as_json)


def from_labelme(
    source: Source,
    out: Out,
    video: Video = "{name}",
    prompts: Prompts = "first",
    pattern: Pattern = None,
    first_frame: FirstFrame = 0,
    size: FullSize = None,
    min_score: MinScore = None,
    as_json: JsonOption = False,
) -> None:
    """LabelMe's and X-AnyLabeling's JSON beside each picture, one or a folder."""
    from rts_batch.manifest.importers.labelme import from_labelme as read

    _finish(read(source, _options(video, prompts, pattern, first_frame, size, min_score)), out, as_json)


def from_voc(
    source: Source,
    out: Out,
    video: Video = "{name}",
    prompts: Prompts = "first",
    pattern: Pattern = None,
    first_frame: FirstFrame = 0,
    size: FullSize = None,
    as_json: JsonOption = False,
) -> None:
    """Pascal VOC's XML for each picture, as labelImg and ImageNet VID have it."""
    from rts_batch.manifest.importers.voc import from_voc as read

    _finish(read(source, _options(video, prompts, pattern, first_frame, size)), out, as_json)


def from_masks(
    source: Source,
    out: Out,
    video: Video = "{name}",
    prompts: Prompts = "first",
    pattern: Pattern = None,
    first_frame: FirstFrame = 0,
    as_json: JsonOption = False,
) -> None:
    """A folder of mask images: DAVIS, YouTube-VOS, MOTS, or a folder for each target."""
    from rts_batch.manifest.importers.label_images import from_masks as read

    _finish(read(source, _options(video, prompts, pattern, first_frame)), out, as_json)


def from_fiftyone(
    source: Source,
    out: Out,
    video: Video = "{name}",
    prompts: Prompts = "first",
    size: Size = None,
    min_score: MinScore = None,
    as_json: JsonOption = False,
) -> None:
    """A folder that FiftyOne exported as FiftyOneVideoLabelsDataset."""
    from rts_batch.manifest.importers.fiftyone import from_fiftyone as read

    _finish(read(source, _options(video, prompts, None, 0, size, min_score)), out, as_json)


def from_detections(
    source: Source,
    out: Out,
    video: Video = "{name}",
    prompts: Prompts = "first",
    pattern: Pattern = None,
    first_frame: FirstFrame = 0,
    size: Size = None,
    min_score: MinScore = None,
    box_format: Annotated[BoxFormat | None, typer.Option(help="What the numbers of a column box or bbox are.")] = None,
    normalised: Annotated[bool, typer.Option("--normalised", help="Boxes are fractions of --size.")] = False,
    as_json: JsonOption = False,
) -> None:
    """A detector's output: CSV, JSON, or MOTChallenge's text."""
    from rts_batch.manifest.importers.detections import from_detections as read

    options = _options(video, prompts, pattern, first_frame, size, min_score)
    _finish(read(source, options, box_format=box_format, normalised=normalised), out, as_json)


def _options(
    video: str,
    keep: Keep,
    pattern: str | None,
    first_frame: int,
    size: str | None = None,
    min_score: float | None = None,
) -> ImportOptions:
    from rts_batch.manifest.importers.base import FRAME_NAME, ImportOptions

    return ImportOptions(
        video=video,
        keep=keep,
        pattern=pattern or FRAME_NAME,
        first_frame=first_frame,
        size=None if size is None else _size(size),
        min_score=min_score,
    )


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{0,4})[x×,]([1-9]\d{0,4})", text)
    if not found:
        raise UsageError(f"--size: {text!r} is no size; give width and height, as 1920x1080")
    return int(found[1]), int(found[2])


def _finish(imported: Imported, out: str, as_json: bool) -> None:
    imported.write(out)
    rows = imported.rows
    if as_json:
        content = {"manifest": out, "left_out": imported.left_out, "warnings": imported.warnings}
        print_json("import", {**content, "prompts": len(rows)})
        return
    targets = {(row["video_id"], row["object_id"]) for row in rows}
    videos = {row["video_id"] for row in rows}
    print(
        f"{out}: {counted(len(rows), 'prompt')} of {counted(len(targets), 'target')} in {counted(len(videos), 'video')}"
    )
    print_left_out(imported.report(), imported.warnings)
