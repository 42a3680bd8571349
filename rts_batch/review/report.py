"""The report of a run: one HTML file that needs nothing else, from a disk or from a bucket.

Its size is bounded: the table lists the videos that most ask for a look, the first of them have pages, and their
pictures share one budget.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rts_batch.errors import ResultsError, RtsBatchError
from rts_batch.io.storage import files, uris
from rts_batch.review.overlay_video import write_overlay_video
from rts_batch.review.pages import Page, Row, Shares, keep_greatest, make_page, make_row, overlay_name
from rts_batch.review.template import write_html
from rts_batch.runs.paths import RunPaths
from rts_batch.runs.reading import Masks, read_masks
from rts_batch.runs.reports import (
    SubmissionSpeed,
    read_failures,
    read_json,
    read_reports,
    settings_shown,
    sum_speeds,
    texts,
)
from rts_batch.runs.sources import VideoSources
from rts_batch.runs.statistics import Statistics
from rts_batch.runs.video_masks import VideoMasks

PAGES: Final = 100
KEY_FRAMES: Final = 6

ROWS_SHOWN: Final = 5_000
"""Videos that the table lists; some 2 kB each."""

PICTURE_BUDGET: Final = 24 << 20
"""Bytes of all pictures together; as text in the file they take a third more."""

Watch = Callable[[Iterable[Any], str], Iterable[Any]]
"""Passes on what it is given, and shows how far that is."""


@dataclass
class Reviewed:
    """What a review has written."""

    report: str | None = None
    videos: int = 0
    pages: int = 0
    pictures: int = 0
    bytes: int = 0
    """Of the report."""
    overlays: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Videos whose masks file is damaged, and overlay videos that could not be written, each with its reason."""
    warnings: list[str] = field(default_factory=list)


def review_run(
    run_folder: str,
    out: str | None = None,
    *,
    pages: int = PAGES,
    key_frames: int = KEY_FRAMES,
    overlays: Iterable[str] = (),
    report: bool = True,
    watch: Watch = lambda things, _: things,
) -> Reviewed:
    """Write `report.html`, and an overlay video of each chosen video into `overlays/`.

    Args:
        run_folder: a run's folder or a compacted one, path or URI.
        out: the folder to write to; None is the run's own.
        pages: videos that get a page, those first that most ask for a look.
        key_frames: pictures on each page; with 0 no video is opened.
        overlays: ids of the videos to write overlay videos of.
        report: False writes overlay videos only.

    Raises:
        ResultsError: not a run's folder, or an overlay's id that the run has not finished.
        StorageError: the run cannot be read, or `out` not written.
    """
    out = out or run_folder
    reviewed = Reviewed()
    masks = _masks(run_folder)
    sources = VideoSources(run_folder) if masks is None else masks.sources  # the manifest is read once
    wanted = list(dict.fromkeys(overlays))
    if wanted and masks is None:
        raise ResultsError(f"{run_folder} has no finished video {wanted[0]!r}: it has none yet")
    if wanted and masks is not None:
        for video in watch(masks.videos(wanted), "overlay videos"):
            _write_overlay(video, out, sources, reviewed)
    if report:
        content = _Content(run_folder, out, sources, masks, reviewed, pages, key_frames, watch)
        uri = uris.join(out, "report.html")
        with tempfile.TemporaryDirectory(prefix="rts-batch-") as scratch:
            path = Path(scratch) / "report.html"
            write_html(path, content.context())
            reviewed.bytes = path.stat().st_size
            files.put_file(path, uri)
        reviewed.report = uri
    return reviewed


def _masks(run_folder: str) -> Masks | None:
    """The run's masks; None where none is finished."""
    try:
        return read_masks(run_folder)
    except ResultsError:
        paths = RunPaths(run_folder)
        if any(files.exists(uri) for uri in (paths.record, paths.manifest, paths.summary)):
            return None
        raise


def _write_overlay(video: VideoMasks, out: str, sources: VideoSources, reviewed: Reviewed) -> None:
    uri = uris.join(out, "overlays", overlay_name(video))
    try:
        write_overlay_video(video, uri, sources)
    except RtsBatchError as error:
        reviewed.left_out.append(f"overlay of {video.video_id!r}: {error}")
    else:
        reviewed.overlays.append(uri)


class _Content:
    """Gathers what the template shows. Pages are made one by one while the file is written."""

    def __init__(
        self,
        run_folder: str,
        out: str,
        sources: VideoSources,
        masks: Masks | None,
        reviewed: Reviewed,
        pages: int,
        key_frames: int,
        watch: Watch,
    ) -> None:
        self._paths = RunPaths(run_folder)
        self._sources = sources
        self._reviewed = reviewed
        self._key_frames = key_frames
        self._watch = watch
        self._total = Statistics()
        self._targets = self._frames = 0
        self._done: set[str] = set()
        self._damaged: list[str] = []
        self._rows: list[Row] = []
        self._videos: dict[int, VideoMasks] = {}
        if masks is not None:
            self._read_rows(masks, pages)
        self._paged = [row for row in self._rows if row.has_page]
        self._reports = read_reports(run_folder, {row.key for row in self._rows if row.key})
        for row in self._rows:
            speed = self._reports.get(row.key or "", {}).get("frames_per_second")
            row.frames_per_second = speed if isinstance(speed, (int, float)) else None
        self._overlays = set(files.list_names(uris.join(out, "overlays")))

    def _read_rows(self, masks: Masks, pages: int) -> None:
        """Find the rows that the table shows, those first that most ask for a look, and the videos that get a page."""
        rows: list[tuple[tuple[float, float], int, Row]] = []
        videos: list[tuple[tuple[float, float], int, VideoMasks]] = []
        for place, (video, row) in enumerate(self._watch(self._readable(masks), "videos")):
            self._total.merge(row.statistics)
            self._reviewed.videos += 1
            self._targets += row.targets
            self._frames += row.frames
            if row.key:
                self._done.add(row.key)
            keep_greatest(rows, (row.concern, -place, row), ROWS_SHOWN)
            keep_greatest(videos, (row.concern, -place, video), min(pages, ROWS_SHOWN))
        paged = {-place: video for _, place, video in videos}
        for number, (_, place, row) in enumerate(sorted(rows, reverse=True), start=1):
            row.number, row.has_page = number, -place in paged
            self._rows.append(row)
            if row.has_page:
                self._videos[number] = paged[-place]
        self._reviewed.left_out += self._damaged

    def _readable(self, masks: Masks) -> Iterator[tuple[VideoMasks, Row]]:
        """Yield the videos whose masks are not damaged, each with its row."""
        for uri in masks.files:
            with self._noted(uri):
                for video in masks.of_file(uri):
                    with self._noted(uri):
                        _ = video.size  # which its page needs beside what the row reads
                        yield video, make_row(video)

    @contextlib.contextmanager
    def _noted(self, uri: str) -> Iterator[None]:
        """Go on after a masks file that is damaged, and remember what is wrong with it."""
        try:
            yield
        except ResultsError as error:
            self._damaged.append(str(error).replace(uri, uris.safe_uri(uri)))

    def context(self) -> dict[str, Any]:
        """What the template needs of the run. `pages` is read as the file is written."""
        record = read_json(self._paths.record)
        last = read_json(self._paths.summary)
        failures, failed = read_failures(self._paths.uri, self._done)
        videos, done = self._sources.total, self._reviewed.videos
        reports = self._reports.values()
        return {
            "title": uris.safe_uri(self._paths.uri),
            "total": self._total,
            "measure": self._total.measure,
            "shares": Shares.of(self._total),
            "videos": videos,
            "done": done,
            "failed": failed,
            "not_started": None if videos is None else max(0, videos - done - failed - len(self._damaged)),
            "damaged": self._damaged,
            "targets": self._targets,
            "frames": self._frames,
            "weights": last.get("weights"),
            "fingerprint": _first(record.get("results"), "weights"),
            "settings": [
                ("results", list(settings_shown(_mapping(record.get("results"))))),
                ("environment", list(settings_shown(_mapping(record.get("environment"))))),
            ],
            "submission": SubmissionSpeed.of(last),
            "left_out": texts(last.get("rows_left_out")),
            "warnings": texts(last.get("warnings")),
            "failures": failures,
            "speeds": [("Worker", sum_speeds(reports, "worker")), ("Decoder", sum_speeds(reports, "decoder"))],
            "rows": self._rows,
            "pages": self._pages(),
            "pages_total": len(self._paged),
            "key_frames": self._key_frames,
        }

    def _pages(self) -> Iterator[Page]:
        used, unseen = 0, 0
        places = range(len(self._paged))
        for place in self._watch(places, "pages"):
            row = self._paged[place]
            video = self._videos.pop(row.number)  # what it has read goes with it
            page = make_page(
                video,
                row,
                self._sources,
                self._reports.get(row.key or "", {}),
                key_frames=self._key_frames,
                pictures=used < PICTURE_BUDGET,
            )
            used += sum(len(shown.picture.webp) for shown in page.pictures)
            unseen += page.problem is not None
            name = overlay_name(video)
            page.overlay = f"overlays/{name}" if name in self._overlays else None
            page.before = self._paged[place - 1] if place else None
            page.after = self._paged[place + 1] if place + 1 < len(self._paged) else None
            self._reviewed.pages += 1
            self._reviewed.pictures += len(page.pictures)
            yield page
        if unseen:
            self._reviewed.warnings.append(f"{unseen} videos could not be shown as they are; their pages say why")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _first(value: Any, name: str) -> str | None:
    found = _mapping(value).get(name)
    return None if found is None else str(found)
