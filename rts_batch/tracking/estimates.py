"""The estimates of a scene: each target's frames are judged in their order, whenever somebody looks at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rts_batch.config import QualityMap
from rts_batch.masks import Marking, TrackedFrame
from rts_batch.tracking.quality import History
from rts_batch.tracking.result import Pending


class Estimates:
    """How good the masks of a scene's targets are, each judged in the order of its frames.

    Args:
        quality: the map; None estimates nothing.
    """

    def __init__(self, quality: QualityMap | None) -> None:
        self._quality = quality
        self._histories: dict[int, History] = {}
        self._last: dict[int, Pending] = {}
        """The latest frame of each target, which the next one's estimate waits for."""

    def of(self, frames: Mapping[int, Pending], prompts: Mapping[int, Marking]) -> Mapping[int, TrackedFrame]:
        """Return a frame's results with their estimates, which are made when they are looked up."""
        if self._quality is not None:
            for object_id, pending in frames.items():
                self._last[object_id] = Pending(self._reader(object_id, pending, prompts.get(object_id)))
            frames = {object_id: self._last[object_id] for object_id in frames}
        return LateFrames(frames)

    def _reader(self, object_id: int, pending: Pending, prompt: Marking | None) -> Callable[[], TrackedFrame]:
        before = self._last.get(object_id)
        assert self._quality is not None
        quality = self._quality

        def read() -> TrackedFrame:
            if before is not None:
                before.read()
            frame = pending.read()
            if prompt is not None:
                self._histories[object_id] = History.from_prompt(frame, from_box=prompt.mask is None)
            history = self._histories.get(object_id)
            # None where an earlier version's state was gone on with: nothing is known since the prompt.
            return frame if history is None else history.judge(frame, quality)

        return read

    def snapshot(self) -> dict[int, dict[str, Any]]:
        """Return the histories as plain values; waits for all frames."""
        for pending in self._last.values():
            pending.read()
        return {object_id: history.snapshot() for object_id, history in self._histories.items()}

    def restore(self, values: Mapping[int, Mapping[str, Any]]) -> None:
        """Put a `snapshot` back."""
        self._last = {}
        self._histories = {int(object_id): History.restore(history) for object_id, history in values.items()}


class LateFrames(Mapping[int, TrackedFrame]):
    """object id → frame, which is waited for when it is looked up."""

    def __init__(self, pending: Mapping[int, Pending]) -> None:
        self._pending = pending

    def __getitem__(self, object_id: int) -> TrackedFrame:
        return self._pending[object_id].read()

    def __iter__(self) -> Iterator[int]:
        return iter(self._pending)

    def __len__(self) -> int:
        return len(self._pending)
