"""What every importer shares: annotations, the reading they are collected in, and the manifest made of them.

An importer reads annotations into a `Reading`; `Reading.imported` then numbers the targets, leaves out what a manifest
cannot hold, and keeps the reason. From here on frames are indices from 0, boxes x, y, w, h in pixels, masks COCO RLEs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, filterfalse
from pathlib import Path
from typing import Any, Final, Literal

from pycocotools import mask as coco

from rts_batch.errors import ManifestError
from rts_batch.manifest.boxes import is_impossible
from rts_batch.manifest.importers.association import associate
from rts_batch.manifest.importers.files import read_names
from rts_batch.manifest.importers.imported import Imported
from rts_batch.masks import Box
from rts_batch.words import counted

__all__ = ["Annotation", "ImportOptions", "Imported", "Keep", "Reading", "Rle"]

Keep = Literal["first", "all"]
Rle = dict[str, Any]
"""`{"size": [height, width], "counts": str}`."""

MOST: Final = 2**31 - 1
"""Of frames and targets' numbers in a manifest."""

LONGEST_NAME: Final = 1000
"""Characters of a name."""

FRAME_NAME: Final = r"(?:(?P<video>.+?)(?:/(?:frame|image|img)[_-]?|[/_.-]))?(?P<frame>\d+)"
"""How an image's name, without its ending, says which frame of which video it is: `clips/one/000120`, `one_000120`,
`one/frame_000120`."""

_ROBOFLOW: Final = re.compile(r"_(?:jpe?g|png|webp|bmp)\.rf\.\w+$", re.I)
"""What Roboflow adds to the name of an image."""

_IMAGE_ENDING: Final = re.compile(r"\.(jpe?g|png|webp|bmp|tiff?|gif|jp2|ppm|avif|txt)$", re.I)


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What all importers understand.

    Raises:
        ManifestError: a pattern that is none, or without its groups.
    """

    video: str = "{name}"
    """The manifest's `video`: a template in which `{name}` is what the annotations call the video. What it gives is
    relative to the manifest's folder."""
    keep: Keep = "first"
    """`first` makes one prompt of each target, its earliest; `all` takes every annotation."""
    pattern: str = FRAME_NAME
    """Regular expression for a whole image name without ending, with the groups `video` and `frame`."""
    first_frame: int = 0
    """The number that image names give a video's first frame."""
    size: tuple[int, int] | None = None
    """Width and height of the frames in pixels, where a format counts in fractions or pictures were resized."""
    min_score: float | None = None
    """Annotations with a lower score are left out; those without one stay."""

    def __post_init__(self) -> None:
        try:
            groups = re.compile(self.pattern).groupindex
        except re.error as error:
            raise ManifestError(f"--pattern {self.pattern!r} is no regular expression: {error}") from None
        if "frame" not in groups:
            raise ManifestError(f"--pattern {self.pattern!r} has no group (?P<frame>…); name the frame's number so")
        if "{name}" not in self.video and re.search(r"[{}]", self.video):
            raise ManifestError(f"--video {self.video!r}: only {{name}} is known in it")


@dataclass(frozen=True, slots=True)
class Annotation:
    """A target on one frame, as a tool marked it, by a box or a mask."""

    video: str
    frame: int
    track: Any
    """What the tool calls the target, a number or a text; None where it does not say which annotations are one."""
    category: Any
    """A name; other values are taken as their text."""
    box: Box | None = None
    mask: Rle | None = None
    absent: bool = False
    """Whether it says, without box and mask, that the target is not in the picture from this frame on."""


class Reading:
    """The annotations of one source under way.

    Args:
        source: the file or folder; a table `names.csv` beside it or up to two folders up, as every export has one,
            gives videos their own names.
        options: see `ImportOptions`.
    """

    def __init__(self, source: str | Path, options: ImportOptions) -> None:
        self.options = options
        self.annotations: list[Annotation] = []
        self.result = Imported()
        self._places: dict[int, str] = {}
        self._frame_numbers: list[int] = []
        path = Path(source).absolute()
        folder = path if path.is_dir() else path.parent
        tables = (place / "names.csv" for place in (folder, *folder.parents[:2]))  # MOT's are in <video>/gt/
        self.names = read_names(next((table for table in tables if table.is_file()), None))
        """video_id and video by an export's name for it."""
        self.videos: dict[str, str] = {}
        """The manifest's `video` by the annotations' name, where an importer found it."""

    def leave_out(self, reason: str, place: str) -> None:
        self.result.left_out.setdefault(reason, []).append(place)

    def warn(self, text: str) -> None:
        if text not in self.result.warnings:
            self.result.warnings.append(text)

    def frame_of(self, image: str, unnamed: str = "video") -> tuple[str, int] | None:
        """Video and frame index of an image's name; None where the pattern does not fit or the number is too low.

        Args:
            image: its name, which may have folders.
            unnamed: what a video is called that the name does not say.
        """
        if (found := self._parts(image)) is None:
            self.leave_out("image names that --pattern does not fit", image)
            return None
        number = int(found["frame"])
        self._frame_numbers.append(number)
        if number < self.options.first_frame:
            self.leave_out(f"frame numbers below --first-frame {self.options.first_frame}", image)
            return None
        return found.groupdict().get("video") or unnamed, number - self.options.first_frame

    def video_of(self, image: str) -> str:
        """What an image's name calls its video; the whole name where it is none of a frame."""
        found = self._parts(image) if _IMAGE_ENDING.search(image) else None
        return image if found is None else found.groupdict().get("video") or "video"

    def _parts(self, image: str) -> re.Match[str] | None:
        stem = _ROBOFLOW.sub("", _IMAGE_ENDING.sub("", image.replace("\\", "/")))
        return re.fullmatch(self.options.pattern, stem)

    def add(self, annotation: Annotation, place: str, score: float | None = None) -> None:
        """Take an annotation, unless a manifest could not hold it; `place` says where in the source it stands."""
        least = self.options.min_score
        if score is not None and least is not None and score < least:
            self.leave_out(f"scores below {least:g}", place)
        elif annotation.mask is None and annotation.box is None and not annotation.absent:
            self.leave_out("neither a box nor a mask", place)
        elif annotation.box is not None and not all(map(math.isfinite, annotation.box)):
            self.leave_out("boxes of numbers that are not finite", place)
        elif annotation.mask is None and annotation.box is not None and _is_no_box(annotation.box):
            self.leave_out("boxes smaller than a pixel (fractions of the frame, perhaps)", place)
        elif annotation.frame < 0:
            self.leave_out("frames before the first", place)
        elif annotation.frame > MOST:
            self.leave_out("frames past any video's end", place)
        else:
            annotation = replace(
                annotation,
                video=_name(annotation.video) or "video",
                track=_track(annotation.track),
                category=_name(annotation.category),
            )
            self._places[id(annotation)] = place
            self.annotations.append(annotation)

    def imported(self) -> Imported:
        """Number the targets, keep the prompts that are wanted, and give the manifest's rows."""
        from_one = bool(self._frame_numbers) and min(self._frame_numbers) == 1
        if from_one and self.options.first_frame == 0 and not self.names:  # exports count from 0
            self.warn("image names begin with 1, taken as frame indices; if 1 is the first frame: --first-frame 1")
        self._take_prompts()
        self.result.leave_out_columns()
        return self.result

    def _take_prompts(self) -> None:
        """Take the annotations that are wanted, by video, frame and target, as the result's rows."""
        marked: dict[tuple[str, int], Annotation] = {}
        changed: dict[tuple[str, int], str] = {}
        taken: set[tuple[str, int, int]] = set()
        for number, annotation in self._numbered():
            key = (annotation.video, number)
            place = self._places.get(id(annotation), f"{annotation.video}, frame {annotation.frame}")
            if annotation.absent and key not in marked:
                continue  # before its first mark nothing has to be said of a target
            first = marked.setdefault(key, annotation)
            if first.category != annotation.category:
                changed.setdefault(key, f"{key[0]}, target {number}: {first.category!r} and {annotation.category!r}")
            if (*key, annotation.frame) in taken:
                self.leave_out("a second annotation of one target on one frame", place)
            elif first is not annotation and self.options.keep == "first":
                self.leave_out("later annotations of targets that have their prompt (--prompts all takes them)", place)
            else:
                taken.add((*key, annotation.frame))
                self.result.rows.append(self._row(replace(annotation, category=first.category), number))
        if changed:
            shown = "; ".join(list(changed.values())[:3])
            self.warn(
                f"{counted(len(changed), 'target')} with several categories, of which the first was taken ({shown})"
            )

    def _numbered(self) -> Iterator[tuple[int, Annotation]]:
        """Each annotation with its target's number, by video and frame; whole numbers from 1 stay what they are."""
        by_video: dict[str, list[Annotation]] = {}
        for annotation in self.annotations:
            by_video.setdefault(annotation.video, []).append(annotation)
        for ours in by_video.values():
            ours = self._told_apart(sorted(ours, key=lambda annotation: annotation.frame))
            unnamed = [a for a in ours if a.track is None]
            loose = dict(
                zip(map(id, unnamed), associate([(a.frame, a.category, _box(a)) for a in unnamed]), strict=True)
            )
            tracks = [a.track if a.track is not None else ("", loose[id(a)]) for a in ours]
            numbers: dict[Any, int] = {t: t for t in tracks if isinstance(t, int) and t >= 1}
            spare = filterfalse(set(numbers.values()).__contains__, count(1))
            for track, annotation in zip(tracks, ours, strict=True):
                if track not in numbers:
                    numbers[track] = next(spare)
                yield numbers[track], annotation

    def _told_apart(self, ours: list[Annotation]) -> list[Annotation]:
        """A video's annotations; with the category in each id where one id marks two categories on one frame."""
        known: dict[tuple[int, Any], str] = {}
        for a in ours:
            if a.track is None or a.category is None or a.absent:
                continue
            if (other := known.setdefault((a.frame, a.track), a.category)) != a.category:
                self.warn(
                    f"{a.video}: ids are taken to be counted in each category, as {a.track} is {other!r} and "
                    f"{a.category!r} on frame {a.frame}; targets are numbered anew"
                )
                break
        else:
            return ours
        apart = [a if None in (a.track, a.category) else replace(a, track=f"{a.category} {a.track}") for a in ours]
        for before, after in zip(ours, apart, strict=True):
            self._places[id(after)] = self._places[id(before)]
        return apart

    def _row(self, annotation: Annotation, number: int) -> dict[str, Any]:
        name = annotation.video
        video_id, video = self.names.get(name, (name, ""))
        if self.options.video != ImportOptions.video:  # frames of `self.videos` are places in just that folder
            video = ""
            if name in self.videos:
                self.warn("--video is not for videos whose pictures lie beside the annotations: these are the videos")
        return {
            "video": video or self.videos.get(name) or self.options.video.replace("{name}", name),
            "video_id": video_id,
            "object_id": number,
            "frame": annotation.frame,
            "prompt_kind": "absent" if annotation.absent else None,
            "box": None if annotation.box is None or annotation.mask is not None else list(annotation.box),
            "mask": annotation.mask,
            "category": annotation.category,
            "source_object": None if annotation.track is None else str(annotation.track),
        }


def _track(value: Any) -> int | str | None:
    """What a tool calls a target, `2.0` and "2" being 2; trackers say -1, and tables NaN, where they do not know."""
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}(\.0+)?", value):
        value = float(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or value == -1 or value != value:
        return None
    return value if type(value) is int and abs(value) <= MOST else str(value)


def _name(value: Any) -> str | None:
    """What a tool calls a video or a class, as a manifest may say it."""
    text = re.sub(r"[\x00-\x1f\x7f\ud800-\udfff]+", " ", str(value)).strip()
    return None if value is None else text[:LONGEST_NAME] or None


def _box(annotation: Annotation) -> Box:
    if annotation.mask is None:
        return annotation.box or (0.0, 0.0, 0.0, 0.0)
    x, y, w, h = (float(value) for value in coco.toBbox(annotation.mask))
    return x, y, w, h


def _is_no_box(box: Box) -> bool:
    return box[2] <= 0 or box[3] <= 0 or is_impossible(box)
