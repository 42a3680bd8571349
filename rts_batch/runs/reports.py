"""What a run's folder says beside its masks: settings, the last submission, how each video went, what failed."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from rts_batch.errors import ResultsError
from rts_batch.io.storage import files, uris
from rts_batch.runs.paths import RunPaths
from rts_batch.runs.record import flatten

FAILURES_SHOWN: Final = 500

AT_ONCE: Final = 8
"""Small files that are read side by side, as an object store takes its time for each."""


@dataclass(frozen=True)
class FailedVideo:
    """A video that was given up."""

    video_id: str
    uri: str
    error: str
    """The kind of the last attempt's error."""
    message: str
    attempts: tuple[str, ...]
    """What each attempt ended with."""


@dataclass(frozen=True)
class SubmissionSpeed:
    """How fast the last submission was."""

    frames: int
    seconds: float
    frames_per_second: float
    interrupted: bool

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> SubmissionSpeed | None:
        """Read `summary.json`; None where it tracked nothing."""
        frames, seconds, speed = (summary.get(name) for name in ("frames", "seconds", "frames_per_second"))
        if not (isinstance(frames, int) and isinstance(seconds, (int, float)) and isinstance(speed, (int, float))):
            return None
        return cls(frames, seconds, speed, summary.get("interrupted") is True) if frames else None


@dataclass
class Speed:
    """Finished videos of one worker or one decoder."""

    name: str
    videos: int = 0
    frames: int = 0
    seconds: float = 0.0

    @property
    def frames_per_second(self) -> float | None:
        return self.frames / self.seconds if self.seconds else None


def read_json(uri: str) -> dict[str, Any]:
    """A JSON object of a run's folder; empty where there is none.

    Raises:
        ResultsError: something else is in its place.
    """
    if not files.exists(uri):
        return {}
    try:
        content = json.loads(files.read_bytes(uri))
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{uri} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ResultsError(f"{uri} is not a JSON object")
    return content


def read_failures(run_folder: str, done: Collection[str]) -> tuple[list[FailedVideo], int]:
    """The failed videos, the first some hundred of them, and how many there are.

    Args:
        done: keys of the finished videos: what got done later has not failed.
    """
    paths = RunPaths(run_folder)
    keys = [key for key in paths.failed() if key not in done]
    shown = keys[:FAILURES_SHOWN]
    contents = _read_all(map(paths.failure, shown))
    return [_failure(key, content) for key, content in zip(shown, contents, strict=True)], len(keys)


def read_reports(run_folder: str, keys: Collection[str]) -> dict[str, dict[str, Any]]:
    """How each of these videos went, as far as the folder says."""
    paths = RunPaths(run_folder)
    known = [key for key in paths.reported() if key in keys]
    return dict(zip(known, _read_all(map(paths.report, known)), strict=True))


def sum_speeds(reports: Iterable[Mapping[str, Any]], name: str) -> list[Speed]:
    """Add up the reports by one of their fields, `worker` or `decoder`."""
    speeds: dict[str, Speed] = {}
    for report in reports:
        seconds, frames = report.get("seconds"), report.get("frames")
        if isinstance(seconds, (int, float)) and isinstance(frames, int):
            speed = speeds.setdefault(str(report.get(name, "unknown")), Speed(str(report.get(name, "unknown"))))
            speed.videos += 1
            speed.frames += frames
            speed.seconds += seconds
    return sorted(speeds.values(), key=lambda speed: (-speed.frames, speed.name))


def settings_shown(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Nested settings as dotted names with their values as text."""
    for name, value in flatten(values):
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def texts(value: Any) -> list[str]:
    """The entries of a JSON list as text; none where it is no list."""
    return [str(entry) for entry in value] if isinstance(value, list) else []


def _read_all(names: Iterable[str]) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(_read_or_nothing, names))


def _read_or_nothing(uri: str) -> dict[str, Any]:
    """A damaged note about a video must not cost the report of the run."""
    try:
        return read_json(uri)
    except ResultsError as error:
        return {"error": str(error)}


def _failure(key: str, content: Mapping[str, Any]) -> FailedVideo:
    attempts = [attempt for attempt in content.get("attempts") or () if isinstance(attempt, Mapping)]
    texts = tuple(f"{attempt.get('error', 'error')}: {attempt.get('message', '')}" for attempt in attempts)
    last: Mapping[str, Any] = attempts[-1] if attempts else {}
    message = str(last.get("message") or content.get("error") or "no attempt is recorded")
    return FailedVideo(
        video_id=str(content.get("video_id", key)),
        uri=uris.safe_uri(str(content.get("uri", ""))),
        error=str(last.get("error", "unknown")),
        message=message.strip().splitlines()[-1] if message.strip() else "",
        attempts=texts,
    )
