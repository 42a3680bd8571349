"""Key frames as small pictures with the masks on them."""

from __future__ import annotations

import base64
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import StorageError, VideoError
from rts_batch.io.results.schema import Row
from rts_batch.review.painting import Colour, choose_colours, paint_rows
from rts_batch.runs.sources import VideoSources
from rts_batch.runs.video_masks import VideoMasks

PICTURE_SIDE: Final = 480
"""Longer side of a key frame's picture in pixels."""

SMALL_SIDE: Final = 240
"""Pictures whose longer side is shorter are enlarged, or nobody could read what is written on them."""

WEBP_QUALITY: Final = 70

GREY: Final = 96


@dataclass(frozen=True)
class Picture:
    width: int
    height: int
    webp: bytes

    @property
    def address(self) -> str:
        """As a `data:` URI."""
        return "data:image/webp;base64," + base64.b64encode(self.webp).decode()


@dataclass(frozen=True)
class Pictures:
    by_frame: dict[int, Picture]
    problem: str | None
    """Why the masks are shown on grey: the video, or some of its frames, cannot be read."""


def paint_pictures(video: VideoMasks, indices: Collection[int], sources: VideoSources) -> Pictures:
    """Paint some frames of a video. Where the video is not at hand the masks are painted on plain grey.

    Raises:
        ResultsError: a damaged mask.
    """
    colours = choose_colours(video.targets)
    rows: dict[int, list[Row]] = {index: [] for index in indices}
    for row in video.rows_at(indices):
        rows[row.frame].append(row)
    pictures: dict[int, Picture] = {}
    problem = None
    try:
        with sources.open(video.video_id, video.size, start=min(indices), end=max(indices) + 1) as source:
            for frame in source:
                if frame.index in rows:
                    pictures[frame.index] = _picture(frame.image, rows[frame.index], colours)
    except (StorageError, VideoError) as error:
        problem = str(error)
    missing = sorted(rows.keys() - pictures.keys())
    if missing and problem is None:
        problem = f"the video has no frame {missing[0]} any more"
    height, width = video.size
    for index in missing:
        pictures[index] = _picture(np.full((height, width, 3), GREY, np.uint8), rows[index], colours)
    return Pictures(pictures, problem)


def _picture(image: NDArray[np.uint8], rows: list[Row], colours: dict[int, Colour]) -> Picture:
    height, width = image.shape[:2]
    longer = max(height, width)
    scale = min(1.0, PICTURE_SIDE / longer) if longer > SMALL_SIDE else SMALL_SIDE // longer
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.array(image if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    paint_rows(small, rows, colours)
    done, data = cv2.imencode(".webp", small[:, :, ::-1], [cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY])
    if not done:
        raise StorageError("a key frame cannot be encoded as WebP")
    return Picture(size[0], size[1], data.tobytes())
