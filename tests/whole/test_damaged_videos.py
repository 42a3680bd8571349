"""Every file of the damage corpus gives right frames, or fewer and a count of what is wrong, or a clear error."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from rts_batch import read_masks
from rts_batch.errors import VideoError
from rts_batch.io.video.frames import FrameRange
from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.manifest import read_manifest
from rts_batch.review.server.new_videos import VIDEOS
from rts_batch.runs.settings import RunSettings
from rts_batch.worker.lane import Lane
from rts_batch.worker.messages import Failed, Finished, Job, WorkerSettings
from tests.support.damaged import CORPUS, FRAMES, Damaged, Outcome, make_corpus, read_all
from tests.support.places import REPOSITORY
from tests.support.review_desk import marking_page
from tests.support.running import write_manifest
from tests.support.stub_tracker import Stub

UNSEEN = {"flips-1.whole.webm", "flips-30.whole.webm", "flips-1.whole.ts"}
"""Flipped bits that give another valid picture: nothing in the file tells them from right ones."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def process() -> Iterator[DecodingProcess]:
    with DecodingProcess() as process:
        yield process
        assert process.starts == 1, "a file took the decoding process down"


@pytest.fixture(scope="module")
def undamaged(corpus: Path, process: DecodingProcess) -> dict[str, Outcome]:
    return {item.name: read_all(process, corpus / item.name) for item in CORPUS if item.whole == item.name}


@pytest.mark.parametrize("item", CORPUS, ids=lambda item: item.name)
@pytest.mark.long
def test_a_file_gives_what_it_has_or_says_what_is_wrong(
    corpus: Path, process: DecodingProcess, undamaged: dict[str, Outcome], item: Damaged
) -> None:
    found = read_all(process, corpus / item.name)
    if found.error:
        assert item.name in found.error
        assert len(found.error) < 400
        assert "Traceback" not in found.error
        return
    times = [time for time, _ in found.frames if time is not None]
    assert times == sorted(set(times)), "a frame came twice"
    assert len(found.damage) < 1500
    if item.whole is None or found.damage or item.name in UNSEEN:
        return
    pictures = [pixels for _, pixels in undamaged[item.whole].frames]
    assert len(pictures) == FRAMES
    cut_off = 5 if item.name == "edit-list.mp4" else 0
    assert [pixels for _, pixels in found.frames] == pictures[cut_off:]


@pytest.mark.parametrize("item", CORPUS, ids=lambda item: item.name)
def test_a_frame_that_is_jumped_to_is_the_one_that_counting_finds(
    corpus: Path, process: DecodingProcess, item: Damaged
) -> None:
    path = corpus / item.name
    times = {}
    with contextlib.suppress(VideoError), process.open(path, decoder="pyav") as source:
        times = {frame.index: frame.time for frame in source}
    for start in (3, 25, 38):
        for timed in (False, True):
            if start in times:
                wanted = FrameRange(start, start_time=times[start] if timed else None, around=8)
                with process.open(path, wanted) as source:
                    found = {frame.index: frame.time for frame in source}
                assert found.items() <= times.items()
                assert next(iter(found)) == start


@pytest.mark.long
def test_on_a_page_every_file_is_shown_or_said_to_be_damaged(corpus: Path, tmp_path: Path) -> None:
    names = [item.name for item in CORPUS if item.name.endswith(VIDEOS)]
    with marking_page([str(corpus)], tmp_path / "manifest.csv") as page:
        videos = {video["about"]: video["video_id"] for video in page.get("run").json()["videos"]}
        assert sorted(videos) == sorted(str(corpus / name) for name in names)
        shown = []
        for video_id in videos.values():
            for index in (0, 25):
                answer = page.get("frame", id=video_id, index=index)
                assert answer.status_code in (200, 422), answer.text
                if answer.status_code == 200:
                    shown.append(cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR))
                else:
                    assert 10 < len(answer.json()["error"]) < 600
            assert page.get("video", id=video_id).status_code in (200, 422)
        assert page.get("frame", id=videos[str(corpus / "whole.mp4")], index=39).status_code == 200
    assert len(shown) > len(names)
    assert all(image is not None for image in shown)


def test_the_corpus_is_as_large_as_its_table() -> None:
    table = (REPOSITORY / "docs/damage-corpus.md").read_text()
    assert re.findall(r"^\| `(.*?)` \|", table, re.MULTILINE) == [item.name for item in CORPUS]
    assert len(CORPUS) >= 40


@pytest.mark.parametrize("strict", [False, True])
def test_damage_is_counted_in_the_report_or_makes_the_video_fail(corpus: Path, tmp_path: Path, strict: bool) -> None:
    names = ["whole.mp4", "cut-60.index-first.mp4", "flips-30.whole.mkv"]
    rows = [{"video": str(corpus / name), "video_id": name, "box": [30, 30, 20, 20]} for name in names]
    tasks = read_manifest(str(write_manifest(tmp_path / "manifest.jsonl", rows))).tasks
    worker = Lane(
        WorkerSettings(
            out=str(tmp_path / "run"),
            factory="tests.support.stub_tracker:Stub",
            tracker=Stub.describe(RunSettings()),
            decoder="auto",
            threads=1,
            extras={},
            strict_video=strict,
        )
    )
    ends = [list(worker.run(Job(task=task, attempt=1)))[-1] for task in tasks]
    if strict:
        assert [type(end) for end in ends] == [Finished, Failed, Failed]
        assert "cut-60.index-first.mp4 is damaged: 20 frames fewer than the file announces" in ends[1].message
        assert ends[1].kind == "permanent"
        return
    assert all(isinstance(end, Finished) for end in ends)
    damage = [_damage(tmp_path / "run", task.key) for task in tasks]
    assert damage[0]["missing_frames"] == damage[0]["decoder_errors"] == 0
    assert damage[1]["missing_frames"] == 20
    assert damage[2]["decoder_errors"] > 5
    assert read_masks(str(tmp_path / "run")).video(names[1]).rows_total == FRAMES - 20


def _damage(run: Path, key: str) -> dict[str, int]:
    return json.loads((run / "videos" / f"{key}.json").read_text())["damage"]
