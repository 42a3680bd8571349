"""The page as the command serves it, of a run that lies in a bucket together with its videos."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import cv2
import fsspec
import numpy as np
import pytest

from rts_batch.masks import encode_rle
from rts_batch.runs.corrections import CorrectionsBook
from tests.support.review_desk import disc_video
from tests.support.run_folders import Video, write_run
from tests.support.running import start


def ask(address: str, name: str, body: object = None, **values: object) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    headers = {"origin": address.rsplit("/", 2)[0]}
    request = urllib.request.Request(f"{address}api/{name}?{urlencode(values)}", data, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


@pytest.mark.long
def test_a_run_in_a_bucket_is_looked_at_and_corrected(tmp_path: Path, s3: str) -> None:
    local = disc_video(tmp_path, "clip", lost=range(10, 15))
    video = Video(local.video_id, f"{s3}/clip.mp4", local.masks, local.categories, local.first)
    write_run(tmp_path / "run", [video])
    store = fsspec.filesystem("s3")
    store.put(str(tmp_path / "clip.mp4"), f"{s3}/clip.mp4")
    store.put(str(tmp_path / "run"), f"{s3}/run", recursive=True)
    process = start("review", f"{s3}/run", "--serve", "--no-open", "--json")
    try:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["address"]
        run: Any = json.loads(ask(address, "run"))
        assert [one["video_id"] for one in run["videos"]] == ["clip"]
        assert run["locked"] is None
        image = cv2.imdecode(np.frombuffer(ask(address, "frame", id="clip", index=20), np.uint8), cv2.IMREAD_COLOR)
        y, x = np.argwhere(video.truth(1, 20)).mean(axis=0).round().astype(int)
        assert np.abs(image[y, x, ::-1].astype(int) - (40, 150, 90)).max() < 40, (
            "the disc of the frame that was asked for"
        )
        seen = json.loads(ask(address, "corrections"))
        change = {"video_id": "clip", "object_id": 1, "frame": 12}
        change |= {"counts": encode_rle(video.truth(1, 20)).decode(), "absent": False, "category": None}
        saved = json.loads(ask(address, "corrections", {"version": seen["version"], "changes": [change]}))
        assert saved["pending"] == 1
    finally:
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    (row,) = CorrectionsBook(f"{s3}/run").read().rows
    assert (row["video_id"], row["object_id"], row["frame"]) == ("clip", 1, 12)
