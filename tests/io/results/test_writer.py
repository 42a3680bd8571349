"""The masks table: the same bytes however its rows arrived, whole or not there, and readable by anybody."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rts_batch.errors import ResultsError, StorageError
from rts_batch.io.results import writer as results
from rts_batch.io.results.file import MasksFile
from rts_batch.io.results.schema import RESULT_COLUMNS, Row, masks_schema
from rts_batch.io.results.writer import ResultsWriter, WrittenMasks
from rts_batch.io.storage import files
from rts_batch.version import __version__
from tests.support.run_folders import row_of

HEIGHT, WIDTH = 24, 32
EXTRAS = {"shop": "string", "price": "float64", "count": "int64", "sold": "bool"}
TARGETS: dict[int, dict[str, Any]] = {
    7: {"shop": "a", "price": 1.5, "count": 3, "sold": True},
    2: {"shop": None, "price": None, "count": None, "sold": None},
}
CATEGORIES = {7: "chair", 2: None}


def mask_of(object_id: int, frame: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    if frame % 5 != 3:
        mask[object_id : object_id + 4, frame % 20 : frame % 20 + 6] = True
    return mask


def row(object_id: int, frame: int, video_id: str = "clips/a.mp4") -> Row:
    mask = mask_of(object_id, frame)
    return row_of(
        mask,
        frame,
        "prompt" if frame == 0 else "tracked" if mask.any() else "lost",
        video_id=video_id,
        object_id=object_id,
        time=frame / 25,
        score=None if frame == 0 else 0.25,
        confidence=0.75 if mask.any() else None,
        category=CATEGORIES.get(object_id),
    )


def write(
    path: Path, order: Sequence[int], *, first: dict[int, int] | None = None, frames: int, video_id: str = "clips/a.mp4"
) -> WrittenMasks:
    """Writes rows in the order of the object ids given, each target's frames one after another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    due = {object_id: (first or {}).get(object_id, 0) for object_id in TARGETS}
    with ResultsWriter(
        path,
        targets=TARGETS,
        extras=EXTRAS,
        task={"video_id": video_id, "start": 0},
        weights="sha256:abc",
        profile="exact",
    ) as writer:
        for object_id in order:
            writer.add(row(object_id, due[object_id], video_id))
            due[object_id] += 1
        return writer.close(frames=frames, fps=25.0, duration=frames / 25)


def alternating(frames: int) -> list[int]:
    return [object_id for _ in range(frames) for object_id in TARGETS]


def test_the_schema_is_the_contract() -> None:
    schema = masks_schema({"shop": "string"})
    assert masks_schema().names == list(RESULT_COLUMNS) == list(Row.__annotations__)
    assert [(field.name, str(field.type)) for field in schema] == [
        ("video_id", "string"),
        ("object_id", "int32"),
        ("frame", "int32"),
        ("time", "double"),
        ("height", "int32"),
        ("width", "int32"),
        ("rle", "binary"),
        ("x", "float"),
        ("y", "float"),
        ("w", "float"),
        ("h", "float"),
        ("area", "int32"),
        ("score", "float"),
        ("confidence", "float"),
        ("quality", "float"),
        ("state", "dictionary<values=string, indices=int8, ordered=0>"),
        ("category", "string"),
        ("shop", "string"),
    ]
    nullable = {"time", "x", "y", "w", "h", "score", "confidence", "quality", "category", "shop"}
    assert {field.name for field in schema if field.nullable} == nullable


@pytest.mark.parametrize(("name", "kind"), [("score", "float64"), ("shop", "list")])
def test_columns_that_cannot_be_carried_are_refused(name: str, kind: str) -> None:
    with pytest.raises(ResultsError, match=name):
        masks_schema({name: kind})


def test_the_file_holds_what_was_added_sorted_by_object_and_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    summary = write(path, alternating(40), frames=40)
    table = pq.read_table(path)
    assert table.schema.equals(masks_schema(EXTRAS))
    expected = [(object_id, frame) for object_id in sorted(TARGETS) for frame in range(40)]
    rows = table.to_pylist()
    assert [(row["object_id"], row["frame"]) for row in rows] == expected
    for values in rows:
        extras = {name: values.pop(name) for name in EXTRAS}
        assert extras == TARGETS[values["object_id"]]
        assert Row(**values) == row(values["object_id"], values["frame"])
    assert summary == WrittenMasks(
        rows=80,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        states={"prompt": 2, "tracked": 62, "lost": 16},
    )


@pytest.mark.parametrize("spool", [5_000, 60_000, 1 << 30])
@pytest.mark.parametrize("order", ["alternating", "one after another", "shuffled"])
@pytest.mark.long
def test_the_same_rows_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spool: int, order: str
) -> None:
    frames = 1700
    write(tmp_path / "expected.parquet", alternating(frames), frames=frames)
    objects = alternating(frames)
    if order == "one after another":
        objects.sort(reverse=True)
    elif order == "shuffled":
        random.Random(spool).shuffle(objects)
    monkeypatch.setattr(results, "SPOOL_BYTES", spool)
    write(tmp_path / "again.parquet", objects, frames=frames)
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "expected.parquet").read_bytes()


def test_a_target_that_is_said_to_be_absent_counts_in_no_state(tmp_path: Path) -> None:
    with ResultsWriter(tmp_path / "a.parquet", targets={7: TARGETS[7]}, extras=EXTRAS) as writer:
        for frame in range(4):
            writer.add(row(7, frame))  # of the last one nothing was found
        writer.add(row(7, 4)._replace(state="lost", score=None))
        assert writer.close(frames=5).states == {"prompt": 1, "tracked": 2, "lost": 1}


def test_row_groups_have_a_thousand_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", alternating(1250), frames=1250)
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    assert [metadata.row_group(place).num_rows for place in range(metadata.num_row_groups)] == [1000, 1000, 500]
    column = metadata.row_group(0).column(metadata.schema.names.index("rle"))
    assert column.compression == "ZSTD"


def test_a_target_may_begin_later(tmp_path: Path) -> None:
    summary = write(tmp_path / "a.parquet", [2] * 10 + [7] * 4, first={7: 6}, frames=10)
    assert summary.rows == 14
    assert pq.read_table(tmp_path / "a.parquet")["frame"].to_pylist() == [*range(10), *range(6, 10)]


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
@pytest.mark.long
def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    """160 MB of codes go through, of which only the spool's share may stay in memory."""
    codes = random.Random(0).randbytes(1 << 16)
    with ResultsWriter(tmp_path / "a.parquet", targets={1: {}}) as writer:
        before = most = resident()
        for frame in range(40_000):
            place = frame * 37 % (1 << 15)
            writer.add(row(1, 1)._replace(frame=frame, rle=codes[place : place + 4096]))
            if frame % 2000 == 0:
                most = max(most, resident())
        writer.close(frames=40_000)
        most = max(most, resident())
    assert most - before < 100 << 20


# Whole or not there


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    def be_interrupted() -> None:
        with ResultsWriter(tmp_path / "a.parquet", targets={1: {}}) as writer:
            writer.add(row(1, 0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert left(tmp_path) == []


def test_nothing_lies_there_while_rows_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "SPOOL_BYTES", 1)
    with ResultsWriter(tmp_path / "a.parquet", targets={1: {}}) as writer:
        for frame in range(5):
            writer.add(row(1, frame))
            assert left(tmp_path) == []
        writer.close(frames=5)
    assert left(tmp_path) == ["a.parquet"]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    groups = iter(range(10))
    write_table = pq.ParquetWriter.write_table

    def fill(self: pq.ParquetWriter, *args: Any, **kwargs: Any) -> None:
        if next(groups) == at:
            raise OSError(28, "No space left on device")
        write_table(self, *args, **kwargs)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", fill)
    with pytest.raises(StorageError, match="No space left") as caught:
        write(tmp_path / "a.parquet", alternating(1400), frames=1400)
    assert caught.value.transient
    assert left(tmp_path) == []


def test_a_folder_that_is_missing_is_our_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        ResultsWriter(tmp_path / "no" / "a.parquet", targets={1: {}})


@pytest.mark.parametrize(
    ("rows", "frames", "message"),
    [
        ([(1, 0), (1, 2)], 3, "object 1: frame 2 came where frame 1 was due"),
        ([(1, 0), (1, 0)], 1, "object 1: frame 0 came where frame 1 was due"),
        ([(1, -1)], 1, "frame -1"),
        ([(3, 0)], 1, "object 3 is no target"),
        ([(1, 0), (1, 1)], 3, "object 1 has rows up to frame 1; the video ends with 2"),
        ([], 3, "object 1 has rows up to no frame"),
    ],
)
def test_rows_that_do_not_make_a_video_are_refused(
    tmp_path: Path, rows: list[tuple[int, int]], frames: int, message: str
) -> None:
    def run() -> None:
        with ResultsWriter(tmp_path / "a.parquet", targets={1: {}}) as writer:
            for object_id, frame in rows:
                writer.add(row(1, 1)._replace(object_id=object_id, frame=frame))
            writer.close(frames=frames)

    with pytest.raises(ResultsError, match=message):
        run()
    assert left(tmp_path) == []


def bidirectional(path: Path, rows: Sequence[Row], *, frames: int) -> WrittenMasks:
    with ResultsWriter(path, targets={7: TARGETS[7]}, extras=EXTRAS, covers="bidirectional") as writer:
        for one in rows:
            writer.add(one)
        return writer.close(frames=frames)


def test_a_frame_that_came_from_both_sides_is_there_once(tmp_path: Path) -> None:
    upward = [row(7, frame)._replace(quality=0.5) for frame in range(9)]
    upward[6] = upward[6]._replace(state="prompt", score=None, quality=None)
    better = [row(7, frame)._replace(quality=0.9, state="uncertain") for frame in range(5, 2, -1)]
    downward = [upward[6], *better, upward[2]._replace(area=-1), upward[1]._replace(area=-1), upward[0]]
    written = bidirectional(tmp_path / "a.parquet", [*upward, *downward], frames=9)
    assert written.rows == 9
    assert written.states == {"prompt": 2, "tracked": 3, "uncertain": 3, "lost": 1}
    table = pq.read_table(tmp_path / "a.parquet")
    assert table["frame"].to_pylist() == list(range(9))
    assert table["quality"].to_pylist() == pytest.approx([0.5, 0.5, 0.5, 0.9, 0.9, 0.9, None, 0.5, 0.5])


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([0, 1, 2, 3, 4], "has rows up to frame 4; the video ends with 5"),
        ([2, 3, 4, 5], "has rows from frame 2 on; the video starts with 0"),
        ([0, 1, 2, 3, 4, 5, 4, 3], "has rows from frame 3 on; the video starts with 0"),
        ([0, 1, 2, 3, 4, 5, 4, 2], "frame 2 came where frame 6 was due"),
        ([0, 1, 2, 3, 4, 5, 4, 4], "frame 4 came where frame 6 was due"),
    ],
)
def test_what_came_from_both_sides_must_be_whole(tmp_path: Path, frames: list[int], message: str) -> None:
    with pytest.raises(ResultsError, match=message):
        bidirectional(tmp_path / "a.parquet", [row(7, frame)._replace(quality=0.5) for frame in frames], frames=6)
    assert left(tmp_path) == []


def test_a_state_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with (
        ResultsWriter(tmp_path / "a.parquet", targets={1: {}}) as writer,
        pytest.raises(ResultsError, match="'found' is not one of prompt, tracked"),
    ):
        writer.add(row(1, 1)._replace(state="found"))  # type: ignore[arg-type]


def test_a_video_without_targets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="without a target"):
        ResultsWriter(tmp_path / "a.parquet", targets={})


# Reading


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        write(tmp_path / "run" / "masks" / f"{name}.parquet", alternating(30), frames=30, video_id=name)
    half = tmp_path / "run" / "masks" / f".d.parquet.1234{files.TEMPORARY_SUFFIX}"
    half.write_bytes(b"PAR1 half written")
    return tmp_path / "run"


def test_others_read_the_folder_without_our_code(run: Path) -> None:
    pattern = str(run / "masks" / "*.parquet")
    query = f"SELECT video_id, object_id, count(*), sum(area), min(state) FROM '{pattern}' GROUP BY 1, 2 ORDER BY 1, 2"
    by_duckdb = duckdb.sql(query).fetchall()
    assert len(by_duckdb) == 6

    frame = pl.read_parquet(pattern)
    assert frame.schema["state"] in (pl.Categorical, pl.Enum, pl.String)
    by_polars = (
        frame.group_by("video_id", "object_id")
        .agg(pl.len(), pl.col("area").sum(), pl.col("state").cast(pl.String).min())
        .sort("video_id", "object_id")
        .rows()
    )
    assert by_polars == by_duckdb

    table = pd.concat(pd.read_parquet(path) for path in sorted((run / "masks").glob("*.parquet")))
    grouped = table.assign(state=table["state"].astype(str)).groupby(["video_id", "object_id"])
    by_pandas = [(*key, len(rows), int(rows["area"].sum()), rows["state"].min()) for key, rows in grouped]
    assert by_pandas == by_duckdb
    assert isinstance(table["rle"].iloc[0], bytes)


def test_the_metadata_says_where_the_masks_come_from(run: Path) -> None:
    metadata = MasksFile(str(run / "masks" / "a.parquet")).metadata
    assert metadata == {
        "schema_version": "1",
        "package_version": __version__,
        "task": '{"start": 0, "video_id": "a"}',
        "weights": "sha256:abc",
        "profile": "exact",
        "frames": "30",
        "fps": "25.0",
        "duration": "1.2",
    }
    raw = pq.read_metadata(run / "masks" / "a.parquet").metadata
    assert json.loads(raw[b"rts_batch.task"])["video_id"] == "a"


def test_a_file_that_is_not_ours_is_our_error(run: Path) -> None:
    with pytest.raises(ResultsError, match=r"a\.parquet has no column nothing"):
        MasksFile(str(run / "masks" / "a.parquet")).table(0, 1, ["frame", "nothing"])
    (run / "masks" / "0.parquet").write_bytes(b"no Parquet at all")
    with pytest.raises(ResultsError, match=r"0\.parquet is not a masks file"):
        _ = MasksFile(str(run / "masks" / "0.parquet")).metadata
    pq.write_table(pa.table({"a": [1]}), run / "masks" / "1.parquet")
    with pytest.raises(ResultsError, match=r"1\.parquet is not a masks file"):
        _ = MasksFile(str(run / "masks" / "1.parquet")).metadata
