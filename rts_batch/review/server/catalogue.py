"""What the page knows of a run: its videos in the order in which they ask for a look, their numbers, their masks."""

from __future__ import annotations

import base64
import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import ResultsError, RtsBatchError
from rts_batch.io.storage import uris
from rts_batch.masks import STATES
from rts_batch.review.key_frames import KeyFrames
from rts_batch.review.pages import Row, make_row
from rts_batch.review.report import Watch
from rts_batch.review.server.frames import Source
from rts_batch.review.tracks import Track, read_tracks
from rts_batch.review.worst import choose_worst
from rts_batch.runs.paths import RunPaths
from rts_batch.runs.reading import Masks
from rts_batch.runs.reports import read_failures
from rts_batch.runs.video_masks import VideoMasks

WORST: Final = 40
"""Places of a video that are worth a look, at most."""

WORTH: Final = 1.0
"""IoU, summed over frames, that a correction must be expected to bring for its place to be shown."""

MOST_FRAMES: Final = 64
"""Frames whose masks are given at once."""

Numbers = dict[str, Any]


@dataclass
class _Known:
    """A finished video."""

    masks: VideoMasks
    row: Row | None = None
    problem: str | None = None
    numbers: Numbers | None = None
    times: dict[int, float | None] | None = None
    """Of its frames, in seconds."""


class Catalogue:
    """The finished videos of a run, for several threads.

    Args:
        run_folder: path or URI.
        watch: shows how far reading them has come.
    """

    def __init__(self, run_folder: str, watch: Watch = lambda things, _: things) -> None:
        self.folder = run_folder
        self._watch = watch
        self._lock = threading.RLock()
        self._known: dict[str, _Known] = {}
        self._damaged: dict[str, str] = {}
        """What is wrong with each masks file that cannot be opened, by its video's key."""
        self._failed: tuple[frozenset[str], dict[str, Any]] = frozenset(), {"count": 0, "videos": []}
        """Keys of the failed videos when they were read last, and what was read."""
        self.refresh()

    kind: Literal["run"] = "run"

    @property
    def title(self) -> str:
        return uris.safe_uri(self.folder)

    def refresh(self) -> None:
        """Look for videos that were finished, or tracked again, since the last time.

        Raises:
            ResultsError: no video is finished.
        """
        with self._lock:
            run = Masks(self.folder)
            there = set(run.files)
            found = {name: known for name, known in self._known.items() if known.masks.file in there}
            new = there - {known.masks.file for known in found.values()}
            for known in self._known.values():
                if known.masks.file not in there:
                    known.masks.close()
            self._damaged = {}
            readable = itertools.chain.from_iterable(self._of_file(run, uri) for uri in sorted(new))
            for masks in self._watch(readable, "videos"):
                found[masks.video_id] = _look(masks)
            self._known = found
            self._look_for_failures(run)

    def _of_file(self, run: Masks, uri: str) -> Iterator[VideoMasks]:
        """Yield the videos of a masks file, or remember that it cannot be opened."""
        try:
            yield from run.of_file(uri)
        except ResultsError as error:
            self._damaged[PurePosixPath(uri).stem] = str(error).replace(uri, uris.safe_uri(uri))

    def _look_for_failures(self, run: Masks) -> None:
        failed = RunPaths(self.folder).failed()
        keys = frozenset(failed) - run.keys if failed else frozenset()
        if keys != self._failed[0]:
            videos, count = read_failures(self.folder, run.keys)
            listed = [{"video_id": one.video_id, "reason": f"{one.error}: {one.message}"} for one in videos]
            self._failed = keys, {"count": count, "videos": listed}

    def failures(self) -> dict[str, Any]:
        """Return how many videos failed, and the first some hundred of them with their reasons."""
        with self._lock:
            return self._failed[1]

    def has(self, video_id: str) -> bool:
        return video_id in self._known

    def listing(self) -> list[dict[str, Any]]:
        """Return the videos, those first that most ask for a look; one whose file cannot be opened by its key."""
        with self._lock:
            worst = (float("inf"), 0.0)
            order = sorted(
                self._known.items(),
                key=lambda item: item[1].row.concern if item[1].row is not None else worst,
                reverse=True,
            )
            damaged = [{"video_id": key, "problem": problem} for key, problem in self._damaged.items()]
            return damaged + [_entry(video_id, known) for video_id, known in order]

    def numbers(self, video_id: str) -> Numbers:
        """Return quality, area and state of each target of a video, and the places worth a look.

        Raises:
            ResultsError: there is no such video, or its file is damaged.
        """
        with self._lock:
            known = self._of(video_id)
            if known.numbers is not None:
                return known.numbers
            video = known.masks
            tracks = list(read_tracks(video))
            height, width = video.size
            first = min(self._times(known), default=0)
            last = max(self._times(known), default=-1)
            known.numbers = {
                "video_id": video_id,
                "width": width,
                "height": height,
                "first": first,
                "end": last + 1,
                "fps": video.fps,
                "times": [self._times(known).get(frame) for frame in range(first, last + 1)],
                "threshold": (video.quality or {}).get("threshold"),
                "targets": [_target(track) for track in tracks],
                "worst": _worst(video_id, tracks),
            }
            return known.numbers

    def masks(self, video_id: str, first: int, count: int) -> dict[int, list[list[Any]]]:
        """Return object id, counts of the COCO RLE, state and quality of the targets on some frames, by frame."""
        wanted = range(first, first + min(count, MOST_FRAMES))
        found: dict[int, list[list[Any]]] = {frame: [] for frame in wanted}
        with self._lock:
            for row in self._of(video_id).masks.rows_at(wanted):
                quality = None if row.quality is None else round(row.quality, 3)
                counts = row.rle.decode() if isinstance(row.rle, bytes) else str(row.rle)
                found[row.frame].append([row.object_id, counts, row.state, quality])
        return found

    def source(self, video_id: str) -> Source:
        """Say where a video is."""
        with self._lock:
            known = self._of(video_id)
            if known.masks.uri is None:
                raise ResultsError(f"the run's manifest does not say where video {video_id!r} is")
            return Source(known.masks.uri, known.masks.size, lambda frame: self.time_of(video_id, frame))

    def size(self, video_id: str) -> tuple[int, int]:
        """Height and width of a video's frames."""
        with self._lock:
            return self._of(video_id).masks.size

    def time_of(self, video_id: str, frame: int) -> float | None:
        """When a frame is shown, in seconds, where its rows say so."""
        with self._lock:
            return self._times(self._of(video_id)).get(frame)

    def frame_at(self, video_id: str, time: float) -> int | None:
        """The frame that is shown nearest to a time, among those that have rows."""
        with self._lock:
            known = {frame: at for frame, at in self._times(self._of(video_id)).items() if at is not None}
        return min(known, key=lambda frame: abs(known[frame] - time), default=None)

    def is_prompt(self, video_id: str, object_id: int, frame: int) -> bool:
        """Whether the target was marked on this frame."""
        with self._lock:
            rows = self._of(video_id).masks.rows_at([frame], [object_id])
            return any(row.state == "prompt" for row in rows)

    def _of(self, video_id: str) -> _Known:
        try:
            return self._known[video_id]
        except KeyError:
            problem = self._damaged.get(video_id)
            raise ResultsError(problem or f"the run has no finished video {video_id!r}") from None

    def _times(self, known: _Known) -> dict[int, float | None]:
        if known.times is None:
            known.times = {}
            for table in known.masks.tables(["frame", "time"]):
                known.times.update(zip(table["frame"].to_pylist(), table["time"].to_pylist(), strict=True))
        return known.times


def _look(masks: VideoMasks) -> _Known:
    known = _Known(masks)
    try:
        known.row = make_row(masks)
    except RtsBatchError as error:
        known.problem = str(error)
    masks.close()
    return known


def _entry(video_id: str, known: _Known) -> dict[str, Any]:
    row = known.row
    if row is None:
        return {"video_id": video_id, "problem": known.problem}
    mean = row.statistics.mean_mark
    return {
        "video_id": video_id,
        "targets": row.targets,
        "frames": row.frames,
        "measure": row.statistics.measure,
        "quality": None if mean is None else round(mean, 3),
        "lowest": None if row.lowest_mark is None else round(row.lowest_mark, 3),
        "uncertain": round(row.shares.uncertain, 4),
        "lost": round(row.shares.lost, 4),
        "problem": None,
    }


def _target(track: Track) -> dict[str, Any]:
    qualities = np.where(np.isnan(track.marks), 255, np.round(np.clip(track.marks, 0, 1) * 200)).astype(np.uint8)
    return {
        "object_id": track.target.object_id,
        "label": track.target.label,
        "category": track.target.category,
        "measure": track.measure,
        "frames": _packed(track.frames.astype("<i4")),
        "qualities": _packed(qualities),
        "areas": _packed(track.areas.astype("<i4")),
        "states": _packed(track.states.astype(np.uint8)),
        "state_names": STATES,
    }


def _packed(values: NDArray[Any]) -> str:
    """Little-endian bytes in base64, which a page reads as a typed array; ten times shorter than JSON."""
    return base64.b64encode(values.tobytes()).decode()


def _worst(video_id: str, tracks: list[Track]) -> list[dict[str, Any]]:
    """Places worth a look: those first whose correction mends most, as far as the run estimates quality."""
    try:
        found = [one for one in choose_worst(((video_id, track) for track in tracks), WORST) if one.gain >= WORTH]
    except ResultsError:  # no row has a quality
        return _key_places(tracks)
    return [
        {
            "frame": one.frame,
            "object_id": one.object_id,
            "reasons": [f"object {one.label}: {one.state.replace('_', ' ')}, quality {one.quality:.2f}"],
        }
        for one in found
    ]


def _key_places(tracks: list[Track]) -> list[dict[str, Any]]:
    """The key frames at which something happens, those of the lowest scores first."""
    chosen = KeyFrames(WORST, several=len(tracks) > 1)
    lowest: dict[int, float] = {}
    for track in tracks:
        chosen.add(track)
        for frame, mark in zip(track.frames.tolist(), track.marks.tolist(), strict=True):
            lowest[frame] = min(lowest.get(frame, 1.0), 1.0 if np.isnan(mark) else mark)
    fillers = {"first", "last", "evenly spaced"}
    places = [place for place in chosen.choose() if not set(place.reasons) <= fillers]
    places.sort(key=lambda place: (lowest.get(place.index, 1.0), place.index))
    return [{"frame": place.index, "object_id": None, "reasons": place.reasons} for place in places]
