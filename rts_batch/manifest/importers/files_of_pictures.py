"""Which frame of which video a file is about, where each picture has a file of annotations of its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rts_batch.errors import VideoError
from rts_batch.manifest.importers.base import ImportOptions, Reading
from rts_batch.manifest.importers.stored_frames import stored_frames

_NUMBER: Final = re.compile(r"(?:frame|image|img)?[_-]?\d+", re.I)
"""The name of a frame that says no video."""
_ANNOTATIONS: Final = "Annotations"
_PICTURES: Final = "JPEGImages"
"""Where the pictures lie of which `Annotations` beside it has the files."""


class FilesOfPictures:
    """The files of a source, in folders of which each may be a video's.

    Where numbers alone name the files of a folder, its pictures beside them are the video, and a frame is the place of
    its picture there, unless `ImportOptions.video` says where the video is. Otherwise the number in the file's name
    counts.

    Args:
        files: all of them.
        root: the folder that they lie below.
        reading: is told of what is left out.
    """

    def __init__(self, files: Sequence[Path], root: Path, reading: Reading) -> None:
        self._root, self._reading = root, reading
        self._stored: dict[Path, dict[str, int]] = {}
        if reading.options.video == ImportOptions.video:
            named = {file.parent for file in files if not _NUMBER.fullmatch(file.stem)}
            for folder in sorted({file.parent for file in files} - named):
                self._look_for_pictures(folder)

    def of(self, file: Path) -> tuple[str, int] | None:
        """Return video and frame index of a file; None, and tell of it, where it has none."""
        video = self._name(file.parent)
        if (order := self._stored.get(file.parent)) is not None:
            if file.stem not in order:
                self._reading.leave_out("files without a picture of their name", file.name)
                return None
            return video, order[file.stem]
        usual = self._reading.options.pattern == ImportOptions.pattern
        name = video if usual and _NUMBER.fullmatch(file.stem) else self._below(file.parent)
        return self._reading.frame_of(f"{name}/{file.stem}" if name else file.stem, unnamed=video)

    def _look_for_pictures(self, folder: Path) -> None:
        """Take the pictures beside the files, or in a folder of pictures beside that of annotations, for a video."""
        apart = [*(_PICTURES if part == _ANNOTATIONS else part for part in folder.parts)]
        try:
            for place in dict.fromkeys((folder, Path(*apart))):
                if (order := stored_frames(place, self._name(folder), self._reading)) is not None:
                    self._stored[folder] = order
                    return
        except VideoError as error:
            self._reading.leave_out(f"pictures that are no video: {error}", folder.name)

    def _name(self, folder: Path) -> str:
        """What the video of a folder's files is called."""
        here = folder.absolute()
        return self._below(folder) or (here.parent if here.name == _ANNOTATIONS else here).name or "video"

    def _below(self, folder: Path) -> str:
        return "/".join(part for part in folder.relative_to(self._root).parts if part != _ANNOTATIONS)
