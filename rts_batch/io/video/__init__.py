"""The frames of videos: `opening` says how they are had in this process, `isolated` in one of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rts_batch.io.video.opening import open_video as open_video

__all__ = ["open_video"]
"""What programs outside of this repository take from here."""


def __getattr__(name: str) -> Any:
    if name == "open_video":  # late, because who only asks for a limit shall not wait for FFmpeg
        from rts_batch.io.video.opening import open_video

        return open_video
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
