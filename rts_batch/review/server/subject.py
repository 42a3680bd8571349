"""What the page is about: a run whose labels are put right, or new videos whose targets are marked first."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from rts_batch.review.server.frames import Source


class Subject(Protocol):
    """Videos by name. What concerns one raises ResultsError, StorageError or VideoError where it cannot be had."""

    @property
    def kind(self) -> Literal["run", "mark"]: ...

    @property
    def title(self) -> str: ...

    def refresh(self) -> None:
        """Look for what has changed."""

    def listing(self) -> list[dict[str, Any]]:
        """The videos in the order in which they are shown, each with its `video_id` and `problem`."""

    def failures(self) -> dict[str, Any]:
        """The `count` of videos that failed, and the first as `videos`, each with `video_id` and `reason`."""

    def has(self, video_id: str) -> bool: ...

    def numbers(self, video_id: str) -> dict[str, Any]:
        """Size, length and targets of a video."""

    def masks(self, video_id: str, first: int, count: int) -> dict[int, list[list[Any]]]:
        """Object id, counts of the COCO RLE, state and quality of the targets on some frames, by frame."""

    def source(self, video_id: str) -> Source: ...

    def size(self, video_id: str) -> tuple[int, int]:
        """Height and width of the frames."""

    def time_of(self, video_id: str, frame: int) -> float | None:
        """When a frame is shown, in seconds, where that is known."""

    def frame_at(self, video_id: str, time: float) -> int | None:
        """Which frame is shown at a time, where that is known."""

    def is_prompt(self, video_id: str, object_id: int, frame: int) -> bool:
        """Whether the target was marked on this frame when it was tracked."""
