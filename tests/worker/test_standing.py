"""Where a video stands, with and without what an earlier attempt has left."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest

from rts_batch.errors import CheckpointError, VideoError
from rts_batch.io.video.frames import Damage
from rts_batch.manifest import VideoTask, read_manifest
from rts_batch.worker.checkpoints import Checkpoints
from rts_batch.worker.standing import Standing, left_by_earlier
from rts_batch.worker.tracker import LoadedTracker
from tests.support.running import write_manifest


class Tracker:
    """Opens the scenes of one version only."""

    def open_scene(self, task: VideoTask, state: bytes | None = None) -> str:
        if state != b"mine":
            raise CheckpointError("another version's")
        return "a scene"


TRACKER = cast(LoadedTracker, Tracker())


@pytest.fixture
def task(tmp_path: Path) -> VideoTask:
    cv2.imwrite(str(tmp_path / "mask.png"), np.full((8, 8), 255, np.uint8))
    write_manifest(tmp_path / "m.jsonl", [{"video": "v.mp4", "mask": "mask.png"}])
    (task,) = read_manifest(str(tmp_path / "m.jsonl")).tasks
    return task


def leave(task: VideoTask, folder: Path, frame: int, **given: Any) -> None:
    """Write a checkpoint after `frame`, the first of its attempt."""
    checkpoints = Checkpoints(folder=str(folder), task=task, attempt="1", interval=1.0, version="v", count=frame + 1)
    state = given.pop("state", b"mine")
    content = {"size": (8, 6), "prompts": {}, "damage": Damage(corrupt_frames=2), "warnings": ("early",), **given}
    checkpoints.write(frame=frame, snapshot=None if state is None else lambda: state, **content)


def test_a_video_stands_after_the_last_of_its_frames_whichever_way_they_are_read() -> None:
    standing = Standing()
    for frame in (5, 6, 4, 3):
        standing.advance(frame)
    assert (standing.frame, standing.count, standing.end) == (3, 4, 7)


def test_what_an_earlier_attempt_has_left_is_gone_on_with(tmp_path: Path, task: VideoTask) -> None:
    leave(task, tmp_path / "c", 4)
    leave(task, tmp_path / "c", 9)
    standing = left_by_earlier(task, TRACKER, str(tmp_path / "c"), version="v")
    assert (standing.frame, standing.count, standing.end, standing.forward.after) == (9, 10, 10, 9)
    assert cast(Any, standing.forward.scene) == "a scene"
    assert standing.damage(Damage(corrupt_frames=1, lost_packets=1)) == Damage(corrupt_frames=2, lost_packets=1)
    assert standing.warnings == ("early",)
    standing.check_size("v", (8, 6))
    with pytest.raises(VideoError, match="video v: its frames have another size than at its checkpoint"):
        standing.check_size("v", (6, 8))
    assert left_by_earlier(task, TRACKER, str(tmp_path / "c"), version="v", below=9).frame == 4


@pytest.mark.parametrize(("version", "state"), [("of another video", b"mine"), ("v", b"theirs")])
def test_what_cannot_be_used_is_passed_over(tmp_path: Path, task: VideoTask, version: str, state: bytes) -> None:
    leave(task, tmp_path / "c", 4, state=state)
    assert left_by_earlier(task, TRACKER, str(tmp_path / "c"), version=version) == Standing()


def test_before_any_target_there_is_no_scene(tmp_path: Path, task: VideoTask) -> None:
    leave(task, tmp_path / "c", 4, state=None)
    standing = left_by_earlier(task, TRACKER, str(tmp_path / "c"), version="v")
    assert standing.forward.scene is None
    assert standing.frame == 4
    assert Standing().damage(Damage(corrupt_frames=1)) == Damage(corrupt_frames=1)
