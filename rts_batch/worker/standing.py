"""How far a video is, and what an earlier attempt has left of it to go on from."""

from __future__ import annotations

from dataclasses import dataclass, field

from rts_batch.errors import CheckpointError, VideoError
from rts_batch.io.video.frames import Damage
from rts_batch.manifest import VideoTask
from rts_batch.worker.checkpoints import Checkpoint, read_latest
from rts_batch.worker.passes import Forward
from rts_batch.worker.tracker import LoadedTracker


@dataclass
class Standing:
    """Where a video stands; before its first frame, unless an earlier attempt has left it elsewhere."""

    earlier: Checkpoint | None = None
    """Where that has left it."""
    forward: Forward = field(default_factory=Forward)
    frame: int | None = None
    """The last frame that was tracked."""
    count: int = 0
    """Frames tracked, those of earlier attempts included."""
    end: int = 0
    """One past the highest of them."""

    def advance(self, frame: int) -> None:
        """Note that a frame has been tracked."""
        self.frame, self.count, self.end = frame, self.count + 1, max(self.end, frame + 1)

    def check_size(self, video_id: str, size: tuple[int, int]) -> None:
        """Raise VideoError where the frames are not of the size (height, width) that the checkpoint's were."""
        if self.earlier is not None and self.earlier.size not in (None, size):
            raise VideoError(f"video {video_id}: its frames have another size than at its checkpoint")

    def damage(self, found: Damage) -> Damage:
        """What is wrong with the video, as far as it has been read by any attempt; `found` by this one."""
        return found.merged(self.earlier.damage) if self.earlier else found

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of earlier attempts."""
        return self.earlier.warnings if self.earlier else ()


def left_by_earlier(
    task: VideoTask, tracker: LoadedTracker, checkpoints: str, *, version: str, below: int | None = None
) -> Standing:
    """Put back the state in which an earlier attempt left a video, if it wrote a checkpoint that can be used.

    Args:
        checkpoints: the video's folder of them.
        version: of the video's content; a checkpoint of another one is passed over.
        below: a frame; only checkpoints before it count.
    """
    earlier = read_latest(checkpoints, version=version, below=below)
    if earlier is None:
        return Standing()
    try:
        scene = None if earlier.state is None else tracker.open_scene(task, earlier.state)
    except CheckpointError:
        return Standing()  # another version's: begin again
    return Standing(earlier, Forward(scene, earlier.frame), earlier.frame, earlier.count, earlier.frame + 1)
