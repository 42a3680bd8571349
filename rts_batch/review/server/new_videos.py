"""Videos whose targets are to be marked for the first time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from rts_batch.errors import ResultsError, StorageError, UsageError
from rts_batch.io.storage import files, uris
from rts_batch.io.video.frames import VideoInfo
from rts_batch.io.video.members import ARCHIVES
from rts_batch.io.video.picture_names import is_picture
from rts_batch.review.server.frames import FrameReader, Source
from rts_batch.runs.rows_file import Row
from rts_batch.words import counted

VIDEOS: Final = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".flv", ".3gp",
    ".ogv", ".mxf", ".y4m", ".gif", *ARCHIVES,
)  # fmt: skip
"""Endings of the files that are taken for videos in a folder; a file that is named itself may have any."""


def find_videos(given: Sequence[str]) -> list[str]:
    """Return the videos that paths and URIs mean: files as they are, the videos in folders, folders of pictures.

    Raises:
        StorageError: one is not there.
        UsageError: a folder that holds neither videos nor pictures.
    """
    found: list[str] = []
    for uri in map(uris.absolute, given):
        if not files.exists(uri):
            raise StorageError(f"{uris.safe_uri(uri)} does not exist")
        filesystem, path = files.open_filesystem(uri)
        if not filesystem.isdir(path):
            found.append(uri)
            continue
        names = [name for name in files.list_names(uri) if not name.startswith(".")]  # `._a.mp4` is macOS's
        inside = [uris.join(uri, name) for name in names if name.lower().endswith(VIDEOS)]
        if not inside and any(map(is_picture, names)):
            inside = [uri]
        if not inside:
            raise UsageError(f"{uris.safe_uri(uri)} holds neither videos nor pictures; name the videos themselves")
        found += inside
    return list(dict.fromkeys(found))


def _identity(uri: str) -> str:
    """What an address has in common with others of the same video, which are signed anew or spelled otherwise."""
    path = uris.local_path(uri)
    return uris.unsigned(uri) if path is None else os.path.normpath(path)


class NewVideos:
    """See `subject.Subject`. `reader` has to be set before a video is looked at.

    Args:
        videos: paths and URIs.
        saved: rows that mark some of them already; their names stay.
        folder: what relative paths in `saved` are relative to.
    """

    kind: Literal["mark"] = "mark"

    def __init__(self, videos: Sequence[str], saved: Sequence[Row] = (), folder: str = "") -> None:
        named = {_identity(uris.resolve(row["video"], folder)): row["video_id"] for row in saved}
        self._ranges = {row["video_id"]: (row["start"] or 0, row["end"]) for row in saved}
        """First frame that is worked on, and the one before which to stop, if any."""
        taken = {"", *named.values()}
        self._uris: dict[str, str] = {}
        for uri in videos:
            video = _identity(uri)
            stem = PurePosixPath(urlsplit(uri).path if uris.scheme_of(uri) else uri).stem
            name = named.setdefault(video, video if stem in taken else stem)
            self._uris[name] = uri
            taken.add(name)
        self._infos: dict[str, VideoInfo] = {}
        self.reader: FrameReader | None = None

    def failures(self) -> dict[str, Any]:
        """Nothing has been tracked, and so nothing has failed."""
        return {"count": 0, "videos": []}

    @property
    def title(self) -> str:
        return f"{counted(len(self._uris), 'video')} to mark"

    def refresh(self) -> None:
        pass

    def listing(self) -> list[dict[str, Any]]:
        return [{"video_id": name, "about": uris.safe_uri(uri), "problem": None} for name, uri in self._uris.items()]

    def has(self, video_id: str) -> bool:
        return video_id in self._uris

    def numbers(self, video_id: str) -> dict[str, Any]:
        info = self._info(video_id)
        length = info.frames or round((info.duration or 0.0) * (info.fps or 0.0)) or 1
        start, end = self._ranges.get(video_id, (0, None))
        return {
            "video_id": video_id,
            "width": info.width,
            "height": info.height,
            "first": start,
            "end": max(start + 1, min(length, end or length)),
            "fps": info.fps,
            "times": [],
            "threshold": None,
            "targets": [],
            "worst": [],
        }

    def masks(self, video_id: str, first: int, count: int) -> dict[int, list[list[Any]]]:
        return {}

    def source(self, video_id: str) -> Source:
        if video_id not in self._uris:
            raise ResultsError(f"{video_id!r} is not one of the videos to be marked")
        return Source(self._uris[video_id], None, lambda frame: None)

    def size(self, video_id: str) -> tuple[int, int]:
        info = self._info(video_id)
        return info.height, info.width

    def time_of(self, video_id: str, frame: int) -> float | None:
        return None

    def frame_at(self, video_id: str, time: float) -> int | None:
        fps = self._info(video_id).fps
        return None if fps is None else round((time - (self._info(video_id).first_time or 0.0)) * fps)

    def is_prompt(self, video_id: str, object_id: int, frame: int) -> bool:
        return False

    def _info(self, video_id: str) -> VideoInfo:
        if video_id not in self._infos:
            assert self.reader is not None
            self._infos[video_id] = self.reader.info(video_id)
        return self._infos[video_id]
