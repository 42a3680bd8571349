"""The names and numbers of all videos and targets of a run, which do not depend on what is finished.

They come from the run's manifest alone. Only a folder without one goes by the masks that are there.
"""

from __future__ import annotations

import csv
import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from rts_batch.io.storage import uris
from rts_batch.runs.reading import Masks
from rts_batch.runs.video_masks import VideoMasks

NAMES: Final = "names.csv"
"""The file beside every export that says which video each name is."""

TARGETS: Final = "targets.csv"
"""The file beside an export that says which number each named target has."""

TAKEN: Final = (NAMES, TARGETS, "labels.txt")
"""Files that lie where a format has a folder for each video, so that no video may be called so."""

NAME_CHARACTERS: Final = 100
NAME_BYTES: Final = 160
"""Of the 255 that file systems take; formats put numbers and endings behind it."""

Row = tuple[str, int, str | None]
"""video_id, object_id and category of a target."""


class Catalogue:
    """All videos and targets, in the order in which the manifest names them first.

    Args:
        rows: of the manifest; a target may have several.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._videos: dict[str, int] = {}
        self._targets: dict[tuple[str, int], int] = {}
        # Masks may be of another category than the manifest has by now.
        self._in_class: dict[Row, int] = {}
        self._classes: Counter[str | None] = Counter()
        for row in rows:
            self._enter(*row)
        self._names = file_names(self._videos)

    @classmethod
    def of(cls, masks: Masks) -> Catalogue:
        """Raise ResultsError where the manifest or, without one, a masks file cannot be read."""
        rows = masks.sources.targets()
        if rows is None:
            rows = [(v.video_id, t.object_id, t.category) for v in masks for t in v.targets.values()]
        return cls(rows)

    @property
    def categories(self) -> list[str]:
        """Those that are given, in no particular order."""
        return [category for category in self._classes if category is not None]

    @property
    def video_ids(self) -> list[str]:
        """All of the run, whatever is finished."""
        return list(self._videos)

    def name(self, video_id: str) -> str:
        """What a video's files are called: no separators, and no two alike on any file system."""
        if video_id not in self._names:  # its masks are there, but the manifest has it no more
            self._names[video_id] = _file_name(video_id, digits=64)
        return self._names[video_id]

    def video(self, video_id: str) -> int:
        """A video's number, from 1."""
        return self._videos.setdefault(video_id, len(self._videos) + 1)

    def target(self, video_id: str, object_id: int) -> int:
        """A target's number among all of the run, from 1."""
        return self._targets.setdefault((video_id, object_id), len(self._targets) + 1)

    def in_class(self, video_id: str, object_id: int, category: str | None) -> int:
        """A target's number among those of its category, from 1."""
        target = video_id, object_id, category
        if target not in self._in_class:
            self._classes[category] += 1
            self._in_class[target] = self._classes[category]
        return self._in_class[target]

    def _enter(self, video_id: str, object_id: int, category: str | None) -> None:
        self.video(video_id)
        if (video_id, object_id) not in self._targets:
            self.target(video_id, object_id)
            self.in_class(video_id, object_id, category)


def file_names(texts: Iterable[str], *, marks: str = "._-") -> dict[str, str]:
    """A name of letters and digits of any script for each text; a digest tells those apart that would be alike.

    Names count as alike where a file system may take them for the same: in capitals, or composed otherwise. None is one
    of `TAKEN`.

    Args:
        texts: of which none is twice.
        marks: what may stand in a name beside letters and digits; anything else becomes `_`.
    """
    digits = dict.fromkeys(texts, 0)
    for more in (8, 64):
        names = {text: _file_name(text, digits=length, marks=marks) for text, length in digits.items()}
        alike = Counter(map(_fold, (*names.values(), *TAKEN)))
        twice = [text for text, name in names.items() if alike[_fold(name)] > 1]
        if not twice:
            break
        digits |= dict.fromkeys(twice, more)
    return {text: _file_name(text, digits=length, marks=marks) for text, length in digits.items()}


def _file_name(text: str, *, digits: int = 0, marks: str = "._-") -> str:
    composed = unicodedata.normalize("NFC", text)
    kept = "".join(c if c in marks or unicodedata.category(c)[0] in "LMN" else " " for c in composed)
    name = "_".join(kept.split())[-NAME_CHARACTERS:]  # the end of a long path says more than its beginning
    name = name.encode()[-NAME_BYTES:].decode(errors="ignore").strip("._-") or "video"
    return f"{name}_{hashlib.sha256(text.encode()).hexdigest()[:digits]}" if digits else name


def _fold(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def write_names(folder: Path, catalogue: Catalogue, videos: Sequence[VideoMasks]) -> None:
    """Write the table of the names that an export uses and, where targets have names, that of their numbers."""
    with (folder / NAMES).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "video_id", "video"])
        for video in videos:
            uri = video.uri
            writer.writerow([catalogue.name(video.video_id), video.video_id, uri and uris.safe_uri(uri)])
    targets = [(video.video_id, target) for video in videos for target in video.targets.values() if target.name]
    if targets:
        with (folder / TARGETS).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "video_id", "object_id", "number", "object_name"])
            for video_id, target in targets:
                number = catalogue.target(video_id, target.object_id)
                writer.writerow([catalogue.name(video_id), video_id, target.object_id, number, target.name])
