"""What the report says of each video: a row of its table, and the page of those that most need a look."""

from __future__ import annotations

import heapq
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from rts_batch.errors import ResultsError
from rts_batch.io.storage import uris
from rts_batch.manifest.task import task_digest, task_key
from rts_batch.masks import STATES
from rts_batch.review.axis import Tick, ticks
from rts_batch.review.key_frames import KeyFrame, KeyFrames
from rts_batch.review.painting import COLOURS
from rts_batch.review.pictures import Picture, Pictures, paint_pictures
from rts_batch.review.tracks import Strip, Track, VideoTrack, draw_line, draw_strip, read_tracks, shrink
from rts_batch.runs.reports import texts
from rts_batch.runs.sources import VideoSources
from rts_batch.runs.statistics import Statistics
from rts_batch.runs.video_masks import VideoMasks

SPARK: Final = (120, 26)
"""Width and height of a sparkline, in its own units."""

LINE: Final = (480, 60)
"""Of a line on a video's page."""

POINTS: Final = {SPARK: 60, LINE: 160}

TARGETS_SHOWN: Final = 24
"""Targets that a page draws, those that are worst off."""

STRETCHES_SHOWN: Final = 12


@dataclass(frozen=True)
class Shares:
    """Parts of the rows, which add up to 1."""

    tracked: float
    """What a person has said included: prompts, and that a target is absent."""
    uncertain: float
    lost: float
    """With and without localisation."""

    @classmethod
    def of(cls, statistics: Statistics) -> Shares:
        rows, states = max(1, statistics.rows), statistics.states
        return cls(
            (states["prompt"] + states["tracked"] + statistics.absent) / rows,
            states["uncertain"] / rows,
            (states["mask_lost"] + states["lost"] - statistics.absent) / rows,
        )


@dataclass
class Row:
    video_id: str
    key: str | None
    targets: int
    frames: int
    """Frames that a target covers."""
    statistics: Statistics
    shares: Shares
    lowest_mark: float | None
    mark_line: str
    """The lowest quality among the targets, from 0 to 1; the lowest score where there is none."""
    area_line: str
    """All targets' area, from 0 to its greatest."""
    number: int = 0
    """Place in the order in which the videos ask for a look, from 1."""
    has_page: bool = False
    frames_per_second: float | None = None

    @property
    def concern(self) -> tuple[float, float]:
        """The greater, the more the video asks for a look: by lost and uncertain rows, then by its mean quality."""
        mean = self.statistics.mean_mark
        return 2 * self.shares.lost + self.shares.uncertain, -1.0 if mean is None else -mean


@dataclass(frozen=True)
class TargetPanel:
    object_id: int
    label: str
    colour: int
    """Place in the palette."""
    category: str | None
    statistics: Statistics
    lowest_mark: float | None
    largest_area: int
    mark_line: str
    area_line: str
    first: int
    last: int
    """First and last frame."""
    mark_top: float
    """What the top of the first chart stands for; the second one's is `largest_area`."""
    ticks: tuple[Tick, ...]
    strip: Strip
    stretches: tuple[tuple[str, int, int], ...]
    """State, first and last frame."""
    more_stretches: int


@dataclass(frozen=True)
class KeyPicture:
    frame: KeyFrame
    seconds: float | None
    picture: Picture


@dataclass
class Page:
    row: Row
    size: tuple[int, int]
    """Height and width of the frames."""
    uri: str | None
    file: str
    fps: float | None
    duration: float | None
    report: Mapping[str, Any]
    """`videos/<key>.json`, empty where there is none."""
    warnings: tuple[str, ...]
    panels: list[TargetPanel]
    more_targets: int
    pictures: list[KeyPicture] = field(default_factory=list)
    problem: str | None = None
    """Why there are no pictures, or none of the video's own frames."""
    overlay: str | None = None
    """The overlay video, relative to the report."""
    before: Row | None = None
    after: Row | None = None


def make_row(video: VideoMasks) -> Row:
    """Read a video's numbers, not its masks.

    Raises:
        ResultsError: a damaged masks file.
    """
    together = VideoTrack(video)
    statistics = Statistics()
    for track in read_tracks(video):
        statistics.merge(track.statistics)
        together.add(track)
    return Row(
        video_id=video.video_id,
        key=video.key,
        targets=len(video.targets),
        frames=together.span,
        statistics=statistics,
        shares=Shares.of(statistics),
        lowest_mark=together.lowest_mark,
        mark_line=_mark_line(together, SPARK),
        area_line=_area_line(together, SPARK),
    )


def make_page(
    video: VideoMasks, row: Row, sources: VideoSources, report: Mapping[str, Any], *, key_frames: int, pictures: bool
) -> Page:
    """Read a video once more, choose its key frames and paint them.

    Args:
        pictures: whether there is room for pictures.

    Raises:
        ResultsError: a damaged masks file; damaged masks in it are a problem of the page.
    """
    colours = {object_id: place % len(COLOURS) for place, object_id in enumerate(sorted(video.targets))}
    chosen = KeyFrames(key_frames if pictures else 0, several=len(colours) > 1)
    worst: list[tuple[float, int, TargetPanel]] = []
    for place, track in enumerate(read_tracks(video)):
        chosen.add(track)
        entry = (float(track.severity.mean()), -place, _panel(track, colours[track.target.object_id], video.fps))
        keep_greatest(worst, entry, TARGETS_SHOWN)
    uri = video.uri
    page = Page(
        row=row,
        size=video.size,
        uri=None if uri is None else uris.safe_uri(uri),
        file=uris.safe_uri(video.file),
        fps=video.fps,
        duration=video.duration,
        report=report,
        warnings=tuple(texts(report.get("warnings"))),
        panels=sorted((panel for _, _, panel in worst), key=lambda panel: panel.object_id),
        more_targets=max(0, len(colours) - len(worst)),
    )
    frames = chosen.choose()
    if key_frames and not pictures:
        page.problem = "those of the videos before this one have used up the report's room for them"
    elif frames:
        try:
            painted = paint_pictures(video, [frame.index for frame in frames], sources)
        except ResultsError as error:
            painted = Pictures({}, str(error))
        page.problem = painted.problem
        page.pictures = [
            KeyPicture(frame, frame.index / video.fps if video.fps else None, painted.by_frame[frame.index])
            for frame in frames
            if frame.index in painted.by_frame
        ]
    return page


def keep_greatest(heap: list[Any], entry: tuple[Any, ...], limit: int) -> None:
    """Put an entry into a heap, which keeps the greatest ones."""
    if len(heap) < limit:
        heapq.heappush(heap, entry)
    elif heap:
        heapq.heappushpop(heap, entry)


def overlay_name(video: VideoMasks) -> str:
    """The name of a video's overlay video: its key, if that is fit for a file's name."""
    key = video.key or ""
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,120}", key):
        key = task_key(video.video_id, task_digest(video.video_id))
    return f"{key}.mp4"


def _panel(track: Track, colour: int, fps: float | None) -> TargetPanel:
    severity = shrink(track.frames, track.severity, POINTS[LINE], np.maximum)
    changes = (np.diff(track.states) != 0) | (np.diff(track.frames) != 1)
    edges = [0, *(np.flatnonzero(changes) + 1).tolist(), len(track.states)]
    stretches = [
        (STATES[track.states[start]], int(track.frames[start]), int(track.frames[stop - 1]))
        for start, stop in itertools.pairwise(edges[: STRETCHES_SHOWN + 1])
    ]
    first, last = (int(track.frames[place]) if len(track.frames) else 0 for place in (0, -1))
    return TargetPanel(
        object_id=track.target.object_id,
        label=track.target.label,
        colour=colour,
        category=track.target.category,
        statistics=track.statistics,
        lowest_mark=track.lowest_mark,
        largest_area=int(track.areas.max(initial=0)),
        mark_line=_mark_line(track, LINE),
        area_line=_area_line(track, LINE),
        first=first,
        last=last,
        mark_top=_top(track.marks),
        ticks=ticks(first, last, fps),
        strip=draw_strip(severity, width=LINE[0], height=12),
        stretches=tuple(stretches),
        more_stretches=max(0, len(edges) - 1 - STRETCHES_SHOWN),
    )


def _mark_line(track: Track | VideoTrack, size: tuple[int, int]) -> str:
    values = shrink(track.frames, track.marks, POINTS[size], np.fmin)
    return draw_line(values, top=_top(track.marks), width=size[0], height=size[1])


def _area_line(track: Track | VideoTrack, size: tuple[int, int]) -> str:
    values = shrink(track.frames, track.areas, POINTS[size], np.maximum)
    return draw_line(values, top=float(track.areas.max(initial=0)), width=size[0], height=size[1])


def _top(marks: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    return max(1.0, float(marks[~np.isnan(marks)].max(initial=0)))
