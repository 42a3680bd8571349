"""What decoding may take of memory, disk and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DecoderName = Literal["auto", "decord", "pyav"]


@dataclass(frozen=True, kw_only=True)
class DecodingLimits:
    """What the process that decodes a worker's videos may take."""

    ring_frames: int = 8
    """Frames that may wait for the tracker; fewer where they would take more than `ring_bytes`, but at least 2."""
    ring_bytes: int = 128 << 20
    memory: int = 2 << 30
    """Bytes beyond what the process needs to start; a video that needs more is given up."""
    silence: float = 120.0
    """Seconds without any progress after which the process counts as hung."""
    decode_memory: int = 256 << 20
    """decord, which decodes ahead without limit, gets only what fits here as RGB."""
    restarts: int = 3
    """How often, for each video, a process that was killed from outside is replaced."""


@dataclass(frozen=True, kw_only=True)
class SpoolLimits:
    """Which videos of a store a worker copies to its disk; PyAV reads the others by ranges while they are decoded."""

    largest: int = 2 << 30
    """Bytes."""
    quota: int | None = None
    """Bytes of disk for a worker's `videos`, those in hand and the next; None leaves the disk itself as the limit."""
    videos: int = 2

    @property
    def most_of_one(self) -> int | None:
        """Bytes of the quota that one video may take, so that none has to know of the others."""
        return None if self.quota is None else self.quota // self.videos
