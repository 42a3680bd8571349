"""Videos to be done, without a manifest."""

from __future__ import annotations

from rts_batch.manifest import VideoTask


def tasks(count: int, scheme: str = "", frames: int = 1) -> list[VideoTask]:
    return [
        VideoTask(
            video_id=f"v{number}",
            uri=f"{scheme}v{number}",
            targets=(),
            start=0,
            end=None,
            direction="forward",
            frames=frames,
            digest="",
            key=f"v{number}",
        )
        for number in range(count)
    ]
