"""What is said of a video's prompts before its first frame is tracked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rts_batch.errors import PromptError
from rts_batch.io.video.opening import Frame, VideoInfo
from rts_batch.manifest import read_manifest
from rts_batch.masks import encode_rle
from rts_batch.worker.prompts import PromptBook
from tests.support.running import write_manifest

HEIGHT, WIDTH = 120, 160


def rle(mask: NDArray[np.bool_]) -> str:
    return json.dumps({"size": list(mask.shape), "counts": encode_rle(mask).decode()})


def rectangle(x: int, y: int, w: int, h: int) -> NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + h, x : x + w] = True
    return mask


def open_book(tmp_path: Path, *rows: dict[str, Any], boxes: bool = True, **info: Any) -> PromptBook:
    """The prompts of one video, whose rows say everything but `video`."""
    manifest = write_manifest(tmp_path / "manifest.jsonl", [{"video": "a.mp4", **row} for row in rows])
    (task,) = read_manifest(str(manifest)).tasks
    known: dict[str, Any] = {"frames": 20, "fps": 25.0, "duration": 0.8, "decoder": "pyav"}
    return PromptBook(task, VideoInfo(**{"width": WIDTH, "height": HEIGHT, **known, **info}), boxes=boxes)


def frame(index: int) -> Frame:
    return Frame(index, index / 25, np.zeros((HEIGHT, WIDTH, 3), np.uint8))


def test_masks_that_share_pixels_are_told(tmp_path: Path) -> None:
    whole, part = rectangle(20, 20, 50, 50), rectangle(60, 30, 20, 10)
    rows = [{"mask": rle(whole)}, {"mask": rle(part), "object_id": 2}]
    book = open_book(tmp_path, *rows)
    book.due(frame(0))
    assert book.warnings == ["frame 0: 100 pixels of object 1's mask are left to smaller targets on top of it"]
    annotated = open_book(tmp_path, *({**row, "prompt_kind": "annotate"} for row in rows))
    annotated.due(frame(0))
    assert annotated.warnings == []


def test_a_mask_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    mask = rle(rectangle(20, 20, 50, 50))
    rows = [{"mask": mask}, {"mask": mask, "object_id": 2}]
    with pytest.raises(PromptError, match=r"object 2, frame 0: the mask lies wholly under .* --overlap allow"):
        open_book(tmp_path, *rows).due(frame(0))
    open_book(tmp_path, *({**row, "prompt_kind": "annotate"} for row in rows)).due(frame(0))
