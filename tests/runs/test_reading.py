"""Reading a run's masks by program, by the command line and with other people's tools; merging its files."""

from __future__ import annotations

import copy
import json
import pickle
import re
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import rts_batch
from rts_batch.cli.app import app
from rts_batch.errors import ResultsError, UsageError
from rts_batch.io.results.writer import ResultsWriter
from rts_batch.runs import video_masks
from rts_batch.runs.compaction import compact
from tests.support.places import REPOSITORY
from tests.support.run_folders import Video, moving_squares, row_of, write_masks, write_run

READING = REPOSITORY / "docs" / "reading.md"


def three_videos() -> list[Video]:
    return [
        Video("clips/a.mp4", "/videos/a.mp4", moving_squares(30, 3), {1: "cat", 2: "dog", 7: None}, first={2: 4, 7: 9}),
        Video("clips/b.mp4", "/videos/b.mp4", moving_squares(12, 1, (30, 20)), {1: "dog"}),
        Video("empty", "/videos/c.mp4", np.zeros((5, 1, 8, 9), bool), {3: "cat"}),
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reading") / "out"
    write_run(folder, three_videos())
    return folder


@pytest.fixture(scope="module")
def compacted(run: Path) -> Path:
    folder = run.parent / "compacted"
    compact(str(run), str(folder))
    return folder


def command(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.parametrize("kind", ["run", "compacted"])
@pytest.mark.parametrize("rows_in_memory", [20_000, 1])
def test_frames_come_in_order_with_every_target_decoded(
    kind: str, rows_in_memory: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_masks, "ROWS_IN_MEMORY", rows_in_memory)
    folder = request.getfixturevalue(kind)
    truth = {video.video_id: video for video in three_videos()}
    seen = []
    for video in rts_batch.read_masks(str(folder)):
        known = truth[video.video_id]
        seen.append(video.video_id)
        assert video.size == known.masks.shape[2:]
        assert (video.uri, video.frames_total, video.fps, video.weights) == (known.uri, len(known.masks), 25.0, "abc")
        frames = list(video.frames())
        assert [frame.index for frame in frames] == list(range(len(known.masks)))
        for frame in frames:
            masks = frame.masks()
            assert list(masks) == [key for key in known.categories if known.first.get(key, 0) <= frame.index]
            for object_id, mask in masks.items():
                assert np.array_equal(mask, known.truth(object_id, frame.index))
    assert seen == list(truth)


def test_what_was_drawn_of_a_lost_target_is_in_its_row_alone() -> None:
    drawn = np.zeros((4, 6), np.bool_)
    drawn[1:3, 2:5] = True

    shown, lost = row_of(drawn, 3, "uncertain"), row_of(drawn, 3, "lost", object_id=2)
    frame = video_masks.FrameMasks(3, (shown, lost))
    assert np.array_equal(frame.masks()[1], drawn)
    assert not frame.masks()[2].any()
    assert frame.masks()[2].shape == (4, 6)
    assert np.array_equal(frame.rows[1].mask(), drawn)


def test_rows_are_sorted_by_target_and_can_be_chosen(run: Path) -> None:
    video = rts_batch.read_masks(str(run)).video("clips/a.mp4")
    assert [
        (target.object_id, target.category, target.first_frame, target.rows) for target in video.targets.values()
    ] == [
        (1, "cat", 0, 30),
        (2, "dog", 4, 26),
        (7, None, 9, 21),
    ]
    rows = list(video.rows([7, 1]))
    assert [(row.object_id, row.frame) for row in rows] == [(1, n) for n in range(30)] + [(7, n) for n in range(9, 30)]
    assert rows[6].state == "lost"
    assert rows[6].box is None
    assert rows[1].box == (3.0, 0.0, 6.0, 12.0)
    assert [frame.index for frame in video.frames([7])] == list(range(9, 30))


def test_the_table_can_be_chosen_from(run: Path, compacted: Path) -> None:
    for folder in (run, compacted):
        masks = rts_batch.read_masks(str(folder))
        whole = pa.concat_tables(pq.read_table(path) for path in sorted((run / "masks").iterdir()))
        assert masks.table().to_pylist() == whole.to_pylist()
        assert masks.table(video_ids=["clips/b.mp4"], columns=["frame"])["frame"].to_pylist() == list(range(12))
        of_dog = masks.table(object_ids=[2], columns=["video_id", "category"])
        assert of_dog.to_pylist() == [{"video_id": "clips/a.mp4", "category": "dog"}] * 26
        nothing = masks.table(video_ids=[], columns=["frame", "rle"])
        assert (nothing.num_rows, nothing.column_names) == (0, ["frame", "rle"])
        with pytest.raises(ResultsError, match=r"\.parquet has no column nothing"):
            masks.table(columns=["frame", "nothing"])


def test_a_column_that_some_files_carry_is_null_in_the_others(tmp_path: Path) -> None:
    masks = np.ones((2, 1, 4, 4), bool)
    write_run(tmp_path, [Video("a", "/a.mp4", masks, {1: None}), Video("b", "/b.mp4", masks, {1: None})])
    (path,) = (tmp_path / "masks").glob("b-*")
    pq.write_table(pq.read_table(path).append_column("shop", pa.array(["x", "y"])), path)
    assert rts_batch.read_masks(str(tmp_path)).table()["shop"].to_pylist() == [None, None, "x", "y"]


def test_what_is_asked_for_may_come_from_a_generator_and_is_no_single_name(run: Path) -> None:
    """A generator was used up before the rows were looked at: `frames` had none. A name was its letters."""
    masks = rts_batch.read_masks(run)
    video = masks.video("clips/a.mp4")
    assert len(list(video.frames(number for number in (1, 2)))) == 30
    assert len(list(video.rows(number for number in (1, 2)))) == 30 + 26
    columns = ["frame", "area"]
    assert masks.table(columns=(name for name in columns)).equals(masks.table(columns=columns))
    assert masks.table(columns=[]).num_columns == 0
    for read in (
        lambda: next(masks.videos("empty")),
        lambda: masks.table(columns="area"),
        lambda: masks.table(object_ids=1),  # type: ignore[arg-type]
        lambda: next(video.frames(1)),  # type: ignore[arg-type]
        lambda: next(video.tables("area")),
    ):
        with pytest.raises(UsageError, match=r"is ('empty'|'area'|1); expected several in a list, \["):
            read()


def test_a_video_that_was_read_goes_to_another_process(run: Path) -> None:
    """It went there only before it was read."""
    video = rts_batch.read_masks(run).video("clips/a.mp4")
    rows = list(video.rows())
    assert list(pickle.loads(pickle.dumps(video)).rows()) == list(copy.deepcopy(video).rows()) == rows


def test_unknown_videos_and_missing_runs_are_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"no finished video 'clips/z.mp4'"):
        rts_batch.read_masks(str(run)).video("clips/z.mp4")
    with pytest.raises(ResultsError, match="not a run's folder"):
        rts_batch.read_masks(str(tmp_path / "nothing"))


def test_foreign_and_damaged_files_are_named(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    foreign = folder / "foreign.parquet"
    pq.write_table(pa.table({"frame": [1, 2]}), foreign)
    with pytest.raises(ResultsError, match=r"foreign\.parquet is not a masks file of rts-batch"):
        list(rts_batch.read_masks(str(tmp_path)))
    whole = next((run / "masks").iterdir()).read_bytes()
    foreign.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ResultsError, match=r"foreign\.parquet is not a masks file"):
        list(rts_batch.read_masks(str(tmp_path)))
    table = pq.read_table(next((run / "masks").iterdir()))
    pq.write_table(table.drop_columns(["rle"]), foreign)
    with pytest.raises(ResultsError, match="no column rle"):
        list(rts_batch.read_masks(str(tmp_path)))


def test_reading_needs_neither_torch_nor_ray(run: Path) -> None:
    script = (
        f"import sys, rts_batch\nfor video in rts_batch.read_masks({str(run)!r}):\n    next(video.frames()).masks()\n"
        "assert not {'torch', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=REPOSITORY, timeout=60)


def test_show_counts_states_by_run_and_video(run: Path, compacted: Path) -> None:
    text = command("show", run)
    assert text.startswith("3 videos, 5 targets, 47 frames, 94 rows\n")
    assert re.search(r"^prompt +5 +5\.3%$", text, flags=re.MULTILINE)
    assert re.search(r"^clips/b\.mp4 +1 +12 +1 +10 +0 +0 +1 +-$", text, flags=re.MULTILINE)
    assert "quality -, score 0.4" in text
    assert "quality: these masks have no estimate" in text
    assert command("show", compacted) == text
    assert "… and 2 more videos" in command("show", run, "--limit", 1)
    *videos, summary = [json.loads(line) for line in command("show", run, "--json").splitlines()]
    assert [video["video_id"] for video in videos] == ["clips/a.mp4", "clips/b.mp4", "empty"]
    assert summary["states"] == {"prompt": 5, "tracked": 73, "uncertain": 0, "mask_lost": 0, "lost": 16}
    assert sum(video["rows"] for video in videos) == summary["rows"] == 94


def test_show_lists_the_stretches_of_a_videos_targets(run: Path) -> None:
    text = command("show", run, "clips/b.mp4")
    assert "clips/b.mp4: 20×30, 12 frames, 12 rows" in text
    stretches = [line.split() for line in text.splitlines()[-4:]]
    assert stretches == [
        ["1", "dog", "0", "prompt", "1"],
        ["1–5", "tracked", "5"],
        ["6", "lost", "1"],
        ["7–11", "tracked", "5"],
    ]
    targets = [json.loads(line) for line in command("show", run, "clips/a.mp4", "--json").splitlines()]
    assert [target["rows"] for target in targets] == [30, 26, 21]
    assert "no finished video" in command("show", run, "clips/z.mp4", code=1)


def test_a_frame_without_a_row_ends_a_stretch(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    path = tmp_path / "masks" / "a.parquet"
    with ResultsWriter(path, targets={1: {}}, task={"video_id": "a"}, covers="prompts") as writer:
        for frame in (0, 1, 5):
            writer.add(row_of(np.ones((4, 4), bool), frame, "prompt", video_id="a"))
        writer.close(frames=6)
    lines = [line.split() for line in command("show", tmp_path, "a").splitlines()[-2:]]
    assert lines == [["1", "0–1", "prompt", "2"], ["5", "prompt", "1"]]


def test_what_only_persons_have_said_lacks_no_estimate(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    path = tmp_path / "masks" / "a.parquet"
    with ResultsWriter(path, targets={1: {}}, task={"video_id": "a"}, covers="prompts") as writer:
        writer.add(row_of(np.ones((4, 4), bool), 0, "prompt", video_id="a"))
        writer.add(row_of(np.zeros((4, 4), bool), 5, "lost", video_id="a"))
        writer.close(frames=6)
    assert "quality:" not in command("show", tmp_path)


def test_compact_keeps_how_the_quality_was_estimated(tmp_path: Path) -> None:
    maps = {"a": {"map": "1", "threshold": 0.3}, "b": {"map": "1", "threshold": 0.3}, "c": {"map": "2"}, "d": None}
    (tmp_path / "run" / "masks").mkdir(parents=True)
    for name, about in maps.items():
        path = tmp_path / "run" / "masks" / f"{name}.parquet"
        with ResultsWriter(path, targets={1: {}}, task={"video_id": name}) as writer:
            writer.add(row_of(np.ones((4, 4), bool), 0, "tracked", video_id=name, quality=0.5))
            writer.close(frames=1, quality=about)
    assert compact(str(tmp_path / "run"), str(tmp_path / "few")).files == 3, "a file is of one map"
    assert {video.video_id: video.quality for video in rts_batch.read_masks(str(tmp_path / "few"))} == maps


def test_compact_leaves_the_run_alone_and_keeps_every_row(run: Path, tmp_path: Path) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.rglob("*") if path.is_file()}
    text = command("compact", run, "-o", tmp_path / "few", "--rows-per-file", 80)
    assert text == f"{tmp_path / 'few'}: 94 rows of 3 videos in 2 files\n"
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in (tmp_path / "few" / "masks").iterdir()) == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    merged = rts_batch.read_masks(str(tmp_path / "few"))
    assert merged.table().equals(rts_batch.read_masks(str(run)).table())
    assert [video.entry.task["key"] for video in merged] == [path.stem for path in sorted((run / "masks").iterdir())]
    assert (tmp_path / "few" / "manifest.parquet").read_bytes() == (run / "manifest.parquet").read_bytes()


def test_many_short_videos_share_the_row_groups_of_a_compacted_file(tmp_path: Path) -> None:
    videos = [
        Video(f"{place:03d}", f"/{place:03d}.mp4", moving_squares(60, 1, (10, 12)), {1: "cat"}) for place in range(40)
    ]
    write_run(tmp_path / "out", videos)
    compact(str(tmp_path / "out"), str(tmp_path / "few"))
    file = pq.ParquetFile(tmp_path / "few" / "masks" / "part-00000.parquet")
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [2000, 400]
    merged = rts_batch.read_masks(str(tmp_path / "few"))
    assert [row.frame for video in merged for row in video.rows()] == list(range(60)) * 40
    assert np.array_equal(list(merged.video("039").frames())[-1].masks()[1], videos[0].masks[-1, 0])
    assert merged.table().equals(rts_batch.read_masks(str(tmp_path / "out")).table())


def test_a_column_that_came_later_begins_a_new_file(tmp_path: Path) -> None:
    old = Video("a", "/a.mp4", moving_squares(3, 1), {1: "cat"})
    new = Video("b", "/b.mp4", moving_squares(3, 1), {1: "cat"}, extras={"shop": "north"})
    tasks = write_run(tmp_path / "out", [old])
    write_masks(tmp_path / "out", new, write_run(tmp_path / "other", [new])["b"])
    assert compact(str(tmp_path / "out"), str(tmp_path / "few")).files == 2
    assert [video.video_id for video in rts_batch.read_masks(str(tmp_path / "few"))] == ["a", "b"]
    assert "shop" in rts_batch.read_masks(str(tmp_path / "few")).video("b").schema.names
    assert tasks.keys() == {"a"}


def test_compact_refuses_folders_that_are_in_use(run: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        compact(str(run), str(tmp_path / "full"))
    with pytest.raises(UsageError, match="within the run's masks"):
        compact(str(run), str(run / "masks" / "few"))
    with pytest.raises(UsageError, match="exists already"):
        compact(str(run), str(run))


def test_runs_and_compacted_folders_may_lie_in_a_bucket(run: Path) -> None:
    bucket = f"memory://{uuid.uuid4().hex}"
    for path in run.rglob("*.parquet"):
        rts_batch.io.storage.files.put_file(path, f"{bucket}/run/{path.relative_to(run).as_posix()}")
    compact(f"{bucket}/run", f"{bucket}/few")
    merged = rts_batch.read_masks(f"{bucket}/few")
    assert [video.video_id for video in merged] == ["clips/a.mp4", "clips/b.mp4", "empty"]
    assert sum(1 for _ in merged.video("clips/a.mp4").frames()) == 30


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", READING.read_text(), flags=re.DOTALL)


def test_the_programs_of_the_guide_run(run: Path, compacted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (run, compacted):
        for block in blocks("python"):
            if "ray" not in block:
                monkeypatch.chdir(folder.parent)
                exec(block.replace('"out', f'"{folder.name}').replace("'out", f"'{folder.name}"), {})


@pytest.mark.ray
@pytest.mark.slow
def test_ray_data_reads_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    (block,) = [block for block in blocks("python") if "ray" in block]
    monkeypatch.chdir(run.parent)
    monkeypatch.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        found: dict[str, object] = {}
        exec(block, found)
        assert found["areas"] == sum(row.area for video in rts_batch.read_masks(str(run)) for row in video.rows()) > 0
    finally:
        ray.shutdown()
