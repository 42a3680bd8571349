"""The frames of videos: `opening` says how they are had in this process, `isolated` in one of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rts_batch.late import late_names

if TYPE_CHECKING:
    from rts_batch.io.video.opening import open_video as open_video

__all__ = ["open_video"]
"""What programs outside of this repository take from here."""

# Who only asks for a limit shall not wait for FFmpeg.
__getattr__ = late_names(__name__, {"open_video": "rts_batch.io.video.opening"})
