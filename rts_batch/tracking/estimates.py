"""The estimates of a scene: each target's frames are judged in their order, whenever somebody looks at them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

from rts_batch.config import QualityMap
from rts_batch.masks import Marking, TrackedFrame
from rts_batch.tracking.quality import History
from rts_batch.tracking.result import Pending

MOST_UNREAD: Final = 8
"""Frames of a target that may wait to be judged: more than a device is behind, and few enough to hold their masks."""


class Estimates:
    """How good the masks of a scene's targets are, each judged in the order of its frames.

    Args:
        quality: the map; None estimates nothing.
    """

    def __init__(self, quality: QualityMap | None) -> None:
        self._quality = quality
        self._histories: dict[int, History] = {}
        self._unread: dict[int, deque[Pending]] = {}
        """The latest frames of each target, in their order: each one's estimate needs those of the frames before."""

    def of(self, frames: Mapping[int, Pending], prompts: Mapping[int, Marking]) -> Mapping[int, TrackedFrame]:
        """Return a frame's results with their estimates, which are made when they are looked up."""
        if self._quality is None:
            return LateFrames(frames)
        late = {}
        for object_id, pending in frames.items():
            judged = Pending(partial(self._judge, object_id, pending, prompts.get(object_id), self._quality))
            unread = self._unread.setdefault(object_id, deque())
            unread.append(judged)
            if len(unread) > MOST_UNREAD:
                _read_up_to(unread[0], unread)
            late[object_id] = Pending(partial(_read_up_to, judged, unread))
        return LateFrames(late)

    def _judge(self, object_id: int, pending: Pending, prompt: Marking | None, quality: QualityMap) -> TrackedFrame:
        frame = pending.read()
        if prompt is not None:
            self._histories[object_id] = History.from_prompt(frame, from_box=prompt.mask is None)
        history = self._histories.get(object_id)
        # None where an earlier version's state was gone on with: nothing is known since the prompt.
        return frame if history is None else history.judge(frame, quality)

    def snapshot(self) -> dict[int, dict[str, Any]]:
        """Return the histories as plain values; waits for all frames."""
        for unread in self._unread.values():
            if unread:
                _read_up_to(unread[-1], unread)
        return {object_id: history.snapshot() for object_id, history in self._histories.items()}

    def restore(self, values: Mapping[int, Mapping[str, Any]]) -> None:
        """Put a `snapshot` back."""
        self._unread = {}
        self._histories = {int(object_id): History.restore(history) for object_id, history in values.items()}


def _read_up_to(wanted: Pending, unread: deque[Pending]) -> TrackedFrame:
    """Read a target's frames in their order up to the wanted one, and return that; it may have been read before."""
    while wanted in unread:
        unread[0].read()
        unread.popleft()
    return wanted.read()


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
