"""What an attempt leaves behind beside the masks: the content of `videos/<key>.json`, or why it failed."""

from __future__ import annotations

import os
import socket
import traceback
from dataclasses import asdict, dataclass
from typing import Any

from rts_batch.errors import RtsBatchError, StorageError
from rts_batch.io.results.writer import WrittenMasks
from rts_batch.io.storage import uris
from rts_batch.io.video.frames import Damage
from rts_batch.manifest import VideoTask
from rts_batch.worker.messages import Failed, FailureKind, WorkerSettings
from rts_batch.worker.timing import Timing


class Leaving(Exception):
    """The worker's machine is about to go; the video goes on elsewhere."""


def describe(task: VideoTask) -> dict[str, Any]:
    """Return the fields of a video that its files carry; not where it lies, which is no part of its masks."""
    return {
        "video_id": task.video_id,
        "key": task.key,
        "start": task.start,
        "end": task.end,
        "direction": task.direction,
        "objects": [target.object_id for target in task.targets],
    }


@dataclass(frozen=True, kw_only=True)
class Report:
    """How the attempt went that finished a video."""

    attempt: int
    frames: int
    """Read and tracked, those of earlier attempts included."""
    earlier: int
    """The latter."""
    results: WrittenMasks
    decoder: str
    streamed: bool
    """The video was read from its store by ranges, and never lay on local disk."""
    damage: Damage
    warnings: tuple[str, ...]
    timing: Timing
    resumed_after: int | None
    """The frame of the checkpoint that it went on from."""
    checkpoints_written: int

    def to_dict(self, task: VideoTask, settings: WorkerSettings) -> dict[str, Any]:
        """Return the content of `videos/<key>.json`."""
        seconds = self.timing.total
        return {
            **describe(task),
            "uri": uris.safe_uri(task.uri),
            "attempt": self.attempt,
            "frames": self.frames,
            **asdict(self.results),
            "decoder": self.decoder,
            "damage": asdict(self.damage),
            "warnings": list(self.warnings),
            "started": self.timing.started.isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "frames_per_second": round((self.frames - self.earlier) / max(seconds, 1e-9), 2),
            "worker": f"{socket.gethostname()}:{os.getpid()}",
            "threads": settings.threads,
            "lanes": settings.lanes,
            "environment": dict(settings.tracker.environment),
            "streamed": self.streamed,
            "step_seconds": self.timing.rounded(),
            "checkpoints": {"resumed_after": self.resumed_after, "written": self.checkpoints_written},
            "checkpoints_kept": settings.keep_checkpoints,
        }


def failure(error: Exception, *, key: str, frame: int | None) -> Failed:
    """Return what is said of an attempt that ended with `error`, after `frame`."""
    kind: FailureKind = "crash"
    message = str(error)
    if isinstance(error, Leaving):
        kind = "preempted"
    elif isinstance(error, RtsBatchError):
        kind = "transient" if isinstance(error, StorageError) and error.transient else "permanent"
    elif isinstance(error, OSError):
        kind = "transient"  # local trouble, a full disk say: another worker, or a later moment, may have none
    else:
        message = "".join(traceback.format_exception(error, limit=-8))
    return Failed(key=key, kind=kind, error=_name(error), message=message, frame=frame)


NO_DEVICE_MEMORY = ("STATUS_ALLOC_FAILED", "DEVICE_ALLOCATION_FAILED", "CUDA error: out of memory")
"""How CUDA, cuBLAS and cuDNN say it where PyTorch's own allocator was not asked, all of them as a RuntimeError."""


def _name(error: Exception) -> str:
    """The class's name; NumPy and PyTorch have names of their own for a lack of memory."""
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "MemoryError"
    if isinstance(error, RuntimeError) and any(text in str(error) for text in NO_DEVICE_MEMORY):
        return "OutOfMemoryError"
    return type(error).__name__
