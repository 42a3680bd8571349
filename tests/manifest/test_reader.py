"""The manifest: three formats alike, every wrong row named, the same tasks whoever wrote it."""

from __future__ import annotations

import datetime
import json
import os
import pickle
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from rts_batch.errors import ManifestError, StorageError
from rts_batch.io.results.schema import RESULT_COLUMNS
from rts_batch.io.storage import files, uris
from rts_batch.manifest import Manifest, Prompt, Target, VideoTask, read_manifest
from rts_batch.manifest.columns import COLUMNS
from rts_batch.masks import decode_rle

RLE = '{"size":[4,5],"counts":"52305"}'


def save(folder: Path, content: str | bytes, name: str = "manifest.csv") -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def read(folder: Path, content: str | bytes, name: str = "manifest.csv", **options: Any) -> Manifest:
    return read_manifest(save(folder, content, name), **options)


def problems(folder: Path, content: str | bytes, name: str = "manifest.csv") -> list[str]:
    with pytest.raises(ManifestError) as caught:
        read(folder, content, name)
    return [problem.partition(": ")[0] + ": " + problem.partition(": ")[2] for problem in caught.value.problems]


# What a manifest says


def test_a_row_becomes_a_task(tmp_path: Path) -> None:
    manifest = read(tmp_path, 'video,box\nclips/a b.mp4,"10,20,30.5,40"\n')
    (task,) = manifest.tasks
    assert task == VideoTask(
        video_id="clips/a b.mp4",
        uri=str(tmp_path / "clips" / "a b.mp4"),
        targets=(Target(1, (Prompt(0, None, (10, 20, 30.5, 40), None, None),), None, {}),),
        start=0,
        end=None,
        direction="forward",
        frames=None,
        digest=task.digest,
        key=f"clips_a_b.mp4-{task.digest}",
    )
    assert task.targets[0].prompts[0].line == 2
    assert re.fullmatch("[0-9a-f]{16}", task.digest)
    assert manifest.invalid == ()
    assert manifest.extras == {}
    assert pickle.loads(pickle.dumps(task)) == task


def test_every_column_arrives(tmp_path: Path) -> None:
    manifest = read(
        tmp_path,
        "video,video_id,object_id,frame,start,end,direction,prompt_kind,frames,x,y,w,h,category,shop,price\n"
        "s3://b/a.mp4,first,3,7,5,90,forward,correct,100,1,2,3,4,chair,north,9.5\n",
    )
    (task,) = manifest.tasks
    assert (task.video_id, task.uri) == ("first", "s3://b/a.mp4")
    assert (task.start, task.end, task.direction, task.frames) == (5, 90, "forward", 100)
    assert task.targets == (
        Target(3, (Prompt(7, None, (1, 2, 3, 4), None, None),), "chair", {"shop": "north", "price": 9.5}),
    )
    assert manifest.extras == {"shop": "string", "price": "float64"}


def test_several_ids_in_one_video_are_several_targets(tmp_path: Path) -> None:
    manifest = read(
        tmp_path,
        'video,object_id,frame,box\nb,9,4,"1,1,1,1"\na,1,0,"1,1,1,1"\nb,2,0,"2,2,2,2"\nb,10,,"3,3,3,3"\n',
    )
    assert [task.video_id for task in manifest.tasks] == ["b", "a"]
    assert [target.object_id for target in manifest.tasks[0].targets] == [2, 9, 10]
    assert [target.prompts[0].frame for target in manifest.tasks[0].targets] == [0, 4, 0]


@pytest.mark.parametrize("box", ["1,2,3,4", " 1 , 2 ,3, 4.0 ", "[1, 2, 3, 4]", "(1,2,3,4)"])
def test_ways_to_write_a_box(tmp_path: Path, box: str) -> None:
    manifest = read(tmp_path, f'video,box\na,"{box}"\n')
    assert manifest.tasks[0].targets[0].prompts[0].box == (1, 2, 3, 4)
    assert manifest.tasks == read(tmp_path, "video,x,y,w,h\na,1,2,3,4\n").tasks


def test_masks_as_files(tmp_path: Path) -> None:
    manifest = read(tmp_path, "video,mask\na.mp4,masks/a.png\nb.mp4,s3://bucket/b.png\n")
    prompts = [task.targets[0].prompts[0] for task in manifest.tasks]
    assert [prompt.mask_uri for prompt in prompts] == [str(tmp_path / "masks" / "a.png"), "s3://bucket/b.png"]
    assert all(prompt.box is None and prompt.mask_rle is None for prompt in prompts)


def test_masks_as_rle(tmp_path: Path) -> None:
    quoted = RLE.replace('"', '""')
    by_csv = read(tmp_path, f'video,mask\na.mp4,"{quoted}"\n')
    rle = by_csv.tasks[0].targets[0].prompts[0].mask_rle
    assert rle == json.loads(RLE)
    assert decode_rle(rle["counts"].encode(), 4, 5).sum() == 4
    by_jsonl = read(tmp_path, f'{{"video": "a.mp4", "mask": {RLE}}}', "m.jsonl")
    runs = {"size": [4, 5], "counts": [5, 2, 3, 2, 8]}
    by_runs = read(tmp_path, json.dumps({"video": "a.mp4", "mask": runs}), "m.jsonl")
    assert by_csv.tasks == by_jsonl.tasks == by_runs.tasks


def test_where_both_are_given_the_mask_wins(tmp_path: Path) -> None:
    prompt = read(tmp_path, 'video,box,mask\na,"1,2,3,4",m.png\n').tasks[0].targets[0].prompts[0]
    assert prompt.box is None
    assert prompt.mask_uri == str(tmp_path / "m.png")


def test_a_prompt_without_a_frame_is_at_the_start(tmp_path: Path) -> None:
    manifest = read(tmp_path, 'video,start,frame,time,box\na,,,,"1,1,1,1"\nb,9,,,"1,1,1,1"\nc,,,1.5,"1,1,1,1"\n')
    prompts = [task.targets[0].prompts[0] for task in manifest.tasks]
    assert [(prompt.frame, prompt.time) for prompt in prompts] == [(0, None), (9, None), (None, 1.5)]


@pytest.mark.parametrize("folder", ["memory://lists/today", None])
def test_relative_paths_belong_to_the_manifest(tmp_path: Path, folder: str | None) -> None:
    uri = uris.join(folder or str(tmp_path), "manifest.csv")
    files.put_bytes(uri, b'video,box\nclips/a.mp4,"1,2,3,4"\n/data/b.mp4,"1,2,3,4"\n')
    assert [task.uri for task in read_manifest(uri).tasks] == [
        uris.join(folder or str(tmp_path), "clips/a.mp4"),
        "/data/b.mp4",
    ]


# Three formats


def columns_of_all_kinds(tmp_path: Path) -> dict[str, bytes]:
    rows: list[dict[str, Any]] = [
        {"video": "a.mp4", "box": [1, 2, 3.5, 4], "frame": 3, "category": "chair", "n": 1, "f": 0.5, "ok": True},
        {"video": "a.mp4", "object_id": 2, "x": 1, "y": 2, "w": 3, "h": 4, "f": 2.0, "ok": False, "t": "007"},
        {"video": "b.mp4", "mask": json.loads(RLE), "time": 1.5, "category": "tisch äöü ✓", "n": 3, "t": "seven"},
        {"video": "c.mp4", "mask": "c.png", "start": 2, "end": 9, "frames": 20, "t": 'a, "quoted"\nline'},
    ]
    names = [name for name in [*COLUMNS, "n", "f", "ok", "t"] if any(name in row for row in rows)]
    text = pd.DataFrame(
        [
            {name: json.dumps(row[name]) if isinstance(row.get(name), dict | list) else row.get(name) for name in names}
            for row in rows
        ],
        columns=names,
        dtype=object,
    )
    csv = text.to_csv(index=False)
    tables = {name: pa.array([row.get(name) for row in rows if name != "mask"]) for name in names if name != "mask"}
    tables["mask"] = pa.array([None, None, RLE, "c.png"])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(tables), sink)
    return {
        "a.csv": csv.encode(),
        "b.csv": b"\xef\xbb\xbf" + csv.replace("\n", "\r\n").replace('quoted""\r\n', 'quoted""\n').encode(),
        "c.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
        "d.jsonl": b"\xef\xbb\xbf" + "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode(),
        "e.parquet": sink.getvalue().to_pybytes(),
        "no-ending": csv.encode(),
        "no-ending-2": json.dumps(rows[0]).encode() + b"\n" + "\n".join(map(json.dumps, rows[1:])).encode(),
        "no-ending-3": sink.getvalue().to_pybytes(),
    }


def test_all_formats_give_the_same_tasks(tmp_path: Path) -> None:
    manifests = {name: read(tmp_path, data, name) for name, data in columns_of_all_kinds(tmp_path).items()}
    first = manifests["a.csv"]
    assert first.extras == {"n": "int64", "f": "float64", "ok": "bool", "t": "string"}
    assert first.tasks[0].targets[0].extras == {"n": 1, "f": 0.5, "ok": True, "t": None}
    for name, manifest in manifests.items():
        assert manifest.tasks == first.tasks, name
        assert manifest.extras == first.extras, name
        assert manifest.table.select(sorted(manifest.table.column_names)).equals(
            first.table.select(sorted(first.table.column_names))
        ), name


def test_what_pandas_writes_is_read(tmp_path: Path) -> None:
    """pandas turns whole numbers with gaps into floats and gaps into NaN."""
    frame = pd.DataFrame(
        {"video": ["a", "b"], "frame": [3, None], "x": [1, 2], "y": [1, 2], "w": [1, 2], "h": [1, 2], "t": ["x", None]}
    )
    frame.to_parquet(tmp_path / "m.parquet")
    frame.to_csv(tmp_path / "m.csv", index=False)
    frame.to_json(tmp_path / "m.jsonl", orient="records", lines=True)
    first, *others = (read_manifest(str(tmp_path / name)) for name in ("m.parquet", "m.csv", "m.jsonl"))
    assert [task.targets[0].prompts[0].frame for task in first.tasks] == [3, 0]
    assert all(other.tasks == first.tasks for other in others)


@pytest.mark.parametrize("name", ["m.parquet", "m.jsonl"])
def test_marks_of_several_kinds_stand_in_one_column(tmp_path: Path, name: str) -> None:
    """Arrow fills the keys of a struct that a row lacks with null, and lists may be empty: each row was refused."""
    rows: list[dict[str, Any]] = [
        {"video": "a", "mask": {"size": [4, 4], "counts": [4, 4, 8]}, "box": []},
        {"video": "b", "mask": {"polygons": [[1, 1, 3, 1, 3, 3]]}, "box": []},
        {"video": "c", "mask": {}, "polygon": [1, 1, 3, 1, 3, 3]},
        {"video": "d", "polygon": [], "box": [1, 1, 3, 3]},
    ]
    expected = read(
        tmp_path, "".join(json.dumps({k: v for k, v in row.items() if v}) + "\n" for row in rows), "m.jsonl"
    )
    keys = ("video", "mask", "box", "polygon")
    if name == "m.parquet":
        pq.write_table(pa.Table.from_pylist([{key: row.get(key) for key in keys} for row in rows]), tmp_path / name)
    else:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_manifest(str(tmp_path / name)).tasks == expected.tasks


INDEXES = {
    "of rows that were filtered": pd.Index([3, 4, 17, 40]),
    "of frames that were put together": pd.Index([0, 1, 0, 1]),
    "of names": pd.Index(["r1", "r2", "r3", "r4"]),
}


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
def test_the_index_of_a_data_frame_is_no_column(tmp_path: Path, index: pd.Index) -> None:
    """It differs between the rows of one target, which a column that is carried may not."""
    rows = {"video": ["a", "a", "b", "b"], "frame": [0, 9, 0, 9], "box": ["1,2,30,40"] * 4, "shop": ["n"] * 4}
    frame = pd.DataFrame(rows, index=index)
    frame.to_csv(tmp_path / "plain.csv", index=False)
    expected = read_manifest(str(tmp_path / "plain.csv"))
    assert expected.extras == {"shop": "string"}
    frame.to_parquet(tmp_path / "m.parquet")
    assert read_manifest(str(tmp_path / "m.parquet")).tasks == expected.tasks
    if index.dtype == object or index.dtype == "str":
        return  # in a CSV, a column of text without a name may be anything
    frame.to_csv(tmp_path / "m.csv")
    pd.read_csv(tmp_path / "m.csv").to_csv(tmp_path / "again.csv")  # one more, and the first is called Unnamed: 0
    pd.read_csv(tmp_path / "m.csv").to_parquet(tmp_path / "again.parquet")
    for name in ("m.csv", "again.csv", "again.parquet"):
        found = read_manifest(str(tmp_path / name))
        assert (found.tasks, found.extras) == (expected.tasks, expected.extras)


@pytest.mark.parametrize("mark", ["sep=,", '"sep=,"', "SEP=,", "sep=,,,", "sep=;", "sep=\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_line_by_which_excel_knows_the_separator(tmp_path: Path, mark: str, end: str) -> None:
    separator = re.search(r"=(.)", mark)[1]  # type: ignore[index]
    lines = ["video,object_id,box", 'a.mp4,2,"1,2,30,40"', 'b.mp4,-,"1,2,30,40"']
    lines = [line if separator == "," else separator.join(line.split(",", 2)) for line in lines]
    data = ("\ufeff" + end.join([mark, *lines, ""])).encode()
    manifest = read(tmp_path, data, skip_invalid=True)
    assert [(task.video_id, task.targets[0].object_id) for task in manifest.tasks] == [("a.mp4", 2)]
    assert manifest.tasks[0].targets[0].prompts[0].line == 3
    assert manifest.invalid[0].startswith("line 4, column object_id: '-'")


def test_lines_that_are_comments(tmp_path: Path) -> None:
    content = (
        "# clips of the second week\n\n"
        "video,note,box\n"
        '#a.mp4,x,"1,2,30,40"\n'
        'b.mp4,"two\n# words","1,2,30,40"\n'
        "  # and, so, on\n"
        '"#c.mp4",,"1,2,30,40"\n'
        "d.mp4,,1\n"
    )
    manifest = read(tmp_path, content, skip_invalid=True)
    assert [(task.video_id, task.targets[0].extras["note"]) for task in manifest.tasks] == [
        ("b.mp4", "two\n# words"),
        ("#c.mp4", None),
    ]
    assert [task.targets[0].prompts[0].line for task in manifest.tasks] == [5, 8]
    assert manifest.invalid[0].startswith("line 9, column box: '1'")
    assert manifest.warnings == ("2 lines (the first is 4) begin with # and are left out; quote a name that begins so",)
    jsonl = '# clips\n{"video": "a.mp4", "box": [1, 2, 30, 40]}\n// {"video": "b.mp4"}\n'
    assert [task.targets[0].prompts[0].line for task in read(tmp_path, jsonl, "m.jsonl").tasks] == [2]


def test_a_header_that_is_a_comment_is_told(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no column 'video'.* \(line 1 begins with # and counts as a comment\)"):
        read(tmp_path, '# video,box\na.mp4,"1,2,30,40"\nb.mp4,"1,2,30,40"\n')


def test_the_empty_columns_of_a_spreadsheet_are_left_out(tmp_path: Path) -> None:
    manifest = read(tmp_path, 'video,box,,\na.mp4,"1,2,30,40",,\nb.mp4,"1,2,30,40",,,,\n')
    assert [task.video_id for task in manifest.tasks] == ["a.mp4", "b.mp4"]
    assert manifest.extras == {}


def test_the_normalised_manifest_is_a_manifest(tmp_path: Path) -> None:
    for name, data in columns_of_all_kinds(tmp_path).items():
        manifest = read(tmp_path, data, name)
        (tmp_path / "run").mkdir(exist_ok=True)
        again = read(tmp_path / "run", manifest.to_parquet(), "manifest.parquet")
        assert again.tasks == manifest.tasks
        assert again.to_parquet() == manifest.to_parquet()


def test_an_empty_column_keeps_its_type_in_the_normalised_manifest(tmp_path: Path) -> None:
    table = pa.table({"video": ["a"], "box": ["1,2,3,4"], "n": pa.nulls(1, pa.int32()), "f": pa.nulls(1, pa.float32())})
    pq.write_table(table, tmp_path / "m.parquet")
    manifest = read_manifest(str(tmp_path / "m.parquet"))
    assert manifest.extras == {"n": "int64", "f": "float64"}
    assert read(tmp_path, manifest.to_parquet(), "n.parquet").extras == manifest.extras


# Digests and keys


def task_of(folder: Path, content: str) -> VideoTask:
    (task,) = read(folder, content).tasks
    return task


BASE = {"video": "a.mp4", "video_id": "v", "object_id": "1", "frame": "2", "start": "0", "end": "9", "frames": "9"}
BASE |= {"x": "1", "y": "2", "w": "3", "h": "4", "mask": "", "category": "c", "shop": "s"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("video", "./a.mp4"),
        ("video_id", "w"),
        ("object_id", "2"),
        ("frame", "3"),
        ("start", "1"),
        ("end", ""),
        ("frames", "10"),
        ("x", "1.5"),
        ("h", "5"),
        ("mask", "m.png"),
        ("category", "d"),
        ("shop", ""),
    ],
)
def test_every_field_counts_in_the_digest(tmp_path: Path, name: str, value: str) -> None:
    def digest(row: dict[str, str]) -> str:
        return task_of(tmp_path, ",".join(row) + "\n" + ",".join(row.values()) + "\n").digest

    assert digest(BASE | {name: value}) != digest(BASE)


def test_order_and_folder_do_not_count_in_the_digest(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one = task_of(tmp_path, 'video,object_id,box,s,t\na,1,"1,2,3,4",u,v\na,2,"1,2,3,4",u,v\n')
    two = task_of(tmp_path / "other", 'object_id,t,s,video,box\n2,v,u,a,"[1.0, 2, 3, 4]"\n1,v,u,a,"1,2,3,4"\n')
    assert one.digest == two.digest
    assert one.uri != two.uri


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/", "..", "a/b\\c:d*e?f", ".hidden", "-rf", "x" * 5000, "äöü/✓", "CON", "a\u202eb", "~/.ssh"],
)
def test_keys_are_safe_file_names(tmp_path: Path, name: str) -> None:
    row = json.dumps({"video": "a.mp4", "video_id": name, "box": [1, 2, 3, 4]})
    key = read(tmp_path, row, "m.jsonl").tasks[0].key
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*-[0-9a-f]{16}", key)
    assert len(key) <= 97
    assert os.path.basename(key) == key


def test_ids_that_look_alike_as_file_names_stay_apart(tmp_path: Path) -> None:
    manifest = read(tmp_path, 'video,video_id,box\na,x/y,"1,2,3,4"\nb,x_y,"1,2,3,4"\nc,X_y,"1,2,3,4"\n')
    assert len({task.key.casefold() for task in manifest.tasks}) == 3


def test_no_secret_of_an_address_becomes_an_id(tmp_path: Path) -> None:
    task = task_of(tmp_path, 'video,box\nhttps://host/a.mp4?signature=secret,"1,2,3,4"\n')
    assert task.video_id == "https://host/a.mp4"
    assert "secret" not in task.key


def test_no_secret_is_shown_in_a_problem(tmp_path: Path) -> None:
    content = (
        "video,video_id,object_id,box\n"
        'https://user:secret@host/a.mp4,a,1,"1,2,3,4"\n'
        'https://host/b.mp4?key=secret,b,1,"1,2,3,4"\n'
        'https://host/c.mp4?key=secret,b,2,"1,2,3,4"\n'
    )
    found = problems(tmp_path, content)
    assert len(found) == 2
    assert "secret" not in "".join(found)


# Carried columns


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "-2", ""], "int64", [1, -2, None]),
        (["1", "2.5", ""], "float64", [1.0, 2.5, None]),
        (["1e3", "0"], "float64", [1000.0, 0.0]),
        (["true", "False", ""], "bool", [True, False, None]),
        (["007", "1"], "string", ["007", "1"]),
        (["+1", "1"], "string", ["+1", "1"]),
        (["9223372036854775807"], "int64", [2**63 - 1]),
        (["9223372036854775808", "-100000000000000000000"], "float64", [2.0**63, -1e20]),
        (["1e999"], "string", ["1e999"]),
        (["x", "1"], "string", ["x", "1"]),
        (["", ""], "string", [None, None]),
        (["nan", "1"], "string", ["nan", "1"]),
    ],
)
def test_a_csv_column_has_the_type_that_all_its_cells_have(
    tmp_path: Path, cells: list[str], kind: str, values: list[Any]
) -> None:
    rows = "".join(f'{place},"1,2,3,4",{cell}\n' for place, cell in enumerate(cells))
    manifest = read(tmp_path, f"video,box,extra\n{rows}")
    assert manifest.extras == {"extra": kind}
    found = [task.targets[0].extras["extra"] for task in manifest.tasks]
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]
    assert manifest.table["extra"].to_pylist() == values


@pytest.mark.parametrize(
    ("values", "kind"),
    [([1, 2], "int64"), ([1, 2.5], "float64"), ([2.5, None, 1], "float64"), ([True, None], "bool"), (["1"], "string")],
)
def test_a_json_column_has_the_type_of_its_values(tmp_path: Path, values: list[Any], kind: str) -> None:
    rows = [{"video": str(place), "box": [1, 2, 3, 4], "e": value} for place, value in enumerate(values)]
    manifest = read(tmp_path, "\n".join(map(json.dumps, rows)), "m.jsonl")
    assert manifest.extras == {"e": kind}
    assert manifest.table["e"].to_pylist() == values


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (1, "x", "'x' is text in a column of numbers; write only numbers"),
        ("x", True, "True is true/false in a column of text"),
        (True, 1, "1 is numbers in a column of true/false"),
        ("x", [1], r"\[1\] is of type list, which no result can carry"),
        ("x", {"a": 1}, "is of type dict"),
        (None, [1], "is of type list"),
        (1, 2**63, "cannot be stored"),
        ("x", "\ud800", "cannot be stored"),
    ],
)
def test_mixed_and_nested_values_are_refused_by_row(tmp_path: Path, first: Any, second: Any, message: str) -> None:
    rows = [{"video": str(place), "box": [1, 2, 3, 4], "e": value} for place, value in enumerate([first, second])]
    (problem,) = problems(tmp_path, "\n".join(map(json.dumps, rows)), "m.jsonl")
    assert re.match(f"line 2, column e: .*{message}", problem)


def test_types_that_no_result_has_are_refused(tmp_path: Path) -> None:
    table = pa.table({"video": ["a"], "box": ["1,2,3,4"], "day": [datetime.date(2024, 1, 2)], "raw": [b"bytes"]})
    pq.write_table(table, tmp_path / "m.parquet")
    found = problems(tmp_path, (tmp_path / "m.parquet").read_bytes(), "m.parquet")
    assert [problem.split(":")[0] for problem in found] == ["row 1, column day", "row 1, column raw"]


@pytest.mark.parametrize("name", [name for name in RESULT_COLUMNS if name not in COLUMNS] + ["Score", "STATE"])
def test_names_of_the_results_are_refused_with_the_remedy(tmp_path: Path, name: str) -> None:
    with pytest.raises(ManifestError, match=rf"'{name}' would clash .* rename it, to 'my_{name.lower()}'"):
        read(tmp_path, f'video,box,{name}\na,"1,2,3,4",1\n')


@pytest.mark.parametrize("name", ["Video_ID", "video id", "object-id", "FRAME"])
def test_names_that_are_nearly_right_are_corrected(tmp_path: Path, name: str) -> None:
    with pytest.raises(ManifestError, match=rf"'{name}' is not known; write it as"):
        read(tmp_path, f'video,box,{name}\na,"1,2,3,4",1\n')


def test_the_size_of_a_box_in_words_is_corrected(tmp_path: Path) -> None:
    """To rename it to 'my_width' left a box without a width."""
    with pytest.raises(ManifestError, match="column 'width', as the size of a box, is written 'w'"):
        read(tmp_path, "video,x,y,width,height\na,1,2,30,40\n")
    with pytest.raises(ManifestError, match="column 'Height', as the size of a box, is written 'h'"):
        read(tmp_path, "video,x,y,w,Height\na,1,2,30,40\n")


def test_a_video_whose_address_is_signed_anew_is_the_same(tmp_path: Path) -> None:
    """Where addresses had expired during a run, a manifest of new ones was refused: its videos had other digests."""

    def digest(video: str, mask: str) -> str:
        (task,) = read(tmp_path, json.dumps({"video": video, "video_id": "a", "mask": mask}), "m.jsonl").tasks
        assert (task.uri, task.targets[0].prompts[0].mask_uri) == (video, mask)
        return task.digest

    video, mask = "https://host/a.mp4?X-Amz-Expires=60&X-Amz-Signature={}", "https://host/m.png?Expires=9&Signature={}"
    earlier = digest(video.format("1f"), mask.format("2e"))
    assert digest(video.format("3d"), mask.format("4c")) == earlier
    assert digest(video.format("3d&versionId=2"), mask.format("4c")) != earlier
    assert digest("https://host/b.mp4?X-Amz-Signature=1f", mask.format("2e")) != earlier


def test_rows_of_one_video_may_be_signed_each_by_itself(tmp_path: Path) -> None:
    rows = [{"video": f"https://host/a.mp4?Signature={n}", "object_id": n, "box": [n, 2, 30, 40]} for n in (1, 2)]
    (task,) = read(tmp_path, "\n".join(map(json.dumps, rows)), "m.jsonl").tasks
    assert [target.object_id for target in task.targets] == [1, 2]


# What is wrong

BAD_CELLS = {
    "video": ["", "ftp://host/a.mp4", "a\x01b", "https://u:p@host/a.mp4", "zip://a::b"],
    "video_id": ["a\x07b"],
    "object_id": ["0", "-1", "1.5", "3rd", "-x", "None", "a\x07b", "x" * 201, "2147483648"],
    "frame": ["-1", "x", "1.5", "1e99"],
    "time": ["-0.1", "inf", "soon"],
    "start": ["-1", "x"],
    "end": ["0", "x"],
    "direction": ["up", "Forward"],
    "prompt_kind": ["wrong"],
    "frames": ["0", "many"],
    "box": ["1,2,3", "1,2,0,4", "1,2,3,-4", "a,b,c,d", "1,2,3,nan", "1,2,inf,4", "[[1,2,3,4]]", "1 2 3 4"],
    "mask": [
        "{",
        "{}",
        '{"size": [4, 5]}',
        '{"size": [4], "counts": "1"}',
        '{"size": [4, 5], "counts": "1"}',
        '{"size": [4, 5], "counts": [1, 2]}',
        '{"size": [4, 5], "counts": [20]}',
        '{"size": [4, 5], "counts": [-1, 21]}',
        '{"size": [0, 5], "counts": []}',
        '{"size": [10000000000, 10000000000], "counts": [100000000000000000000]}',
        "ftp://host/m.png",
    ],
    "polygon": [
        "5",
        "1 2 3 4",
        "1 2 3 4 5",
        "1 2 3 4 5 nan",
        "a b c d e f",
        "[1, 2, 3, 4, 5, NaN]",
        "[[1, 2, 30, 4, 5, 60], [1, 2, 3, 4]]",
        "[[1, 2, 30, 4, 5, true]]",
        "[]",
        "[[1, 2, 3",
        '[{"x": 1, "y": 2}]',
        "POLYGON ((20 40, 56 40, 56 76, 20 40))",
        "0.1 0.2 0.9 0.2 0.9 0.8",
        "1 2 3 4 5 1e9",
    ],
    "x": ["left"],
    "w": ["0", "-1"],
    "category": ["a\x07b"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD_CELLS.items() for value in values])
def test_a_wrong_cell_is_named(tmp_path: Path, name: str, value: str) -> None:
    row = {"video": "a.mp4"} | ({"box": "1,2,3,4"} if name not in ("x", "w") else dict.fromkeys("xywh", "1"))
    table = pd.DataFrame([{**row, "video": "b.mp4"}, row | {name: value}])
    found = problems(tmp_path, table.to_csv(index=False))
    assert [problem.split(":")[0] for problem in found] == [f"line 3, column {name}"]
    assert any(word in found[0] for word in ("write", "number", "name", "path"))


MASKS_MISWRITTEN: list[tuple[Any, str]] = [
    (
        "[[20, 40, 56, 40, 56, 76, 20, 76]]",
        "a list of points is no mask; if it is a polygon, write it in the column polygon",
    ),
    ("[(20.5, 40), (56, 4e1), (56, 76)]", "in the column polygon"),
    ("((20, 40), (56, 40), (56, 76))", "in the column polygon"),
    ('[{"x": 20, "y": 40}, {"x": 56, "y": 40}]', "in the column polygon"),
    ("POLYGON ((20 40, 56 40, 56 76, 20 40))", "in the column polygon"),
    ([[20, 40, 56, 40, 56, 76]], "in the column polygon"),
    ({"size": [90, 90], "polygons": [[20, 40, 56, 40]]}, "2 points, a polygon has three points or more"),
    ({"size": [90, 90], "polygons": [[20, 40, 56, 40, 56]]}, "5 numbers, an odd count"),
    ({"size": [90, 90], "polygons": [["20", 40, 56, 40, 56, 76]]}, "in pixels"),
    ({"size": [90, 90], "polygons": [[20, 40, 1e12, 40, 56, 76]]}, "100,000 pixels away"),
    ({"size": [90, 90], "polygons": []}, "in pixels"),
    ({"size": [90, 90], "polygons": [[200, 200, 220, 200, 220, 220]]}, "the mask is empty"),
    ({"polygon": [[20, 40, 56, 40, 56, 76]]}, "polygons have size and polygons"),
    ("{'size': [4, 5], 'counts': '52305'}", "not JSON but what Python prints of a value: write it with json.dumps"),
    ("{'size': [4, 5], 'counts': b'52305'}", ".decode() them first"),
    ({"size": [4, 5], "counts": "b'52305'"}, "its counts are what Python prints of bytes: .decode() them"),
    ('{"size": [4, 5], "counts": ', "not JSON (Expecting value"),
    ("data:image/png;base64,iVBORw0KGgoAAAANSUhEUg==", "save it as a file and write its path"),
    ("iVBORw0KGgoAAAANSUhEUgAAAMAAAACACAAAAAB47zm3", "save it as a file and write its path"),
    ("2581 36 2709 36", "as Kaggle's starts and lengths, is no mask"),
    ({"size": [4.5, 5], "counts": "52305"}, "its size must be [height, width]"),
]


@pytest.mark.parametrize(("mask", "message"), MASKS_MISWRITTEN)
def test_a_mask_written_in_another_way_is_told_what_it_is(tmp_path: Path, mask: Any, message: str) -> None:
    """A polygon was looked for as a file, and Python's way of writing a dict was broken JSON."""
    (problem,) = problems(tmp_path, json.dumps({"video": "a.mp4", "mask": mask}), "m.jsonl")
    assert problem.startswith("line 1, column mask: ")
    assert message in problem


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_polygons_are_filled_as_pycocotools_fills_them(tmp_path: Path, ending: str, flat: bool) -> None:
    first, second = [20.5, 40, 56, 40, 56, 76.25], [2, 2, 12, 2, 12, 9, 2, 9]
    mask = json.dumps({"size": [90, 80], "polygons": first if flat else [first, second]})
    row = {"video": "a.mp4", "mask": mask}
    content = pd.DataFrame([row]).to_csv(index=False) if ending == "csv" else json.dumps(row)
    (prompt,) = read(tmp_path, content, f"m.{ending}").tasks[0].targets[0].prompts
    assert prompt.mask_rle is not None
    found = decode_rle(prompt.mask_rle["counts"].encode(), *prompt.mask_rle["size"])
    outlines = coco_mask.frPyObjects([first] if flat else [first, second], 90, 80)
    assert np.array_equal(found, coco_mask.decode(coco_mask.merge(outlines)).astype(bool))
    assert found.sum() > 500


@pytest.mark.parametrize("name", ["[1,2].png", "(3, 4) take.png", "[12]/mask.png", "polygon(1).png"])
def test_a_name_with_brackets_is_a_name(tmp_path: Path, name: str) -> None:
    (task,) = read(tmp_path, json.dumps({"video": "a.mp4", "mask": name}), "m.jsonl").tasks
    assert task.targets[0].prompts[0].mask_uri == str(tmp_path / name)


def test_whole_numbers_may_be_written_as_decimals(tmp_path: Path) -> None:
    rle = {"size": [4.0, 5.0], "counts": [5.0, 2, 3, 2, 8.0]}
    (task,) = read(tmp_path, json.dumps({"video": "a.mp4", "mask": rle}), "m.jsonl").tasks
    assert task.targets[0].prompts[0].mask_rle == json.loads(RLE)


def test_a_line_that_python_printed_is_told_so(tmp_path: Path) -> None:
    row = {"video": "a.mp4", "box": [1, 2, 30, 40]}
    (problem,) = problems(tmp_path, f"{row}\n{json.dumps(row)}\n", "m.jsonl")
    assert "line 1: not JSON but what Python prints of a value" in problem


def rejected(folder: Path, rows: str) -> list[str]:
    header = "video,video_id,object_id,frame,time,start,end,direction,prompt_kind,box,x,y,w,h,mask,category"
    lines = [header]
    for row in rows.strip().splitlines():
        cells = dict(cell.strip().split("=") for cell in row.split(";"))
        lines.append(",".join(f'"{cells.get(name, "")}"' for name in header.split(",")))
    return problems(folder, "\n".join(lines))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("video=a", "line 2: no target is marked; fill box"),
        ("video=a; x=1; y=2", "line 2: a box without w, h"),
        ("video=a; box=1,2,3,4; x=1", "line 2: a box and the columns x, y, w, h; give one of the two"),
        ("video=a; box=1,2,3,4; frame=1; time=2", "line 2: frame 1 and time 2.0; give one of the two"),
        ("video=a; box=1,2,3,4; start=5; end=5", "line 2: column end: 5 is not after start, which is 5"),
        ("video=a; box=1,2,3,4; start=5; frame=4", "line 2: column frame: 4 comes before start, which is 5"),
        ("video=a; box=1,2,3,4; end=5; frame=5", "line 2: column frame: 5 is not before end, which is 5"),
        (
            "video=a; box=1,2,3,4\nvideo=a; box=5,6,7,8",
            "line 3: the same video_id, object_id and frame as line 2; remove one",
        ),
        (
            "video=a; box=1,2,3,4; time=1\nvideo=a; box=5,6,7,8; time=1.0",
            "line 3: the same video_id, object_id and frame as line 2",
        ),
        (
            "video=a; video_id=v; box=1,2,3,4\nvideo=b; video_id=v; object_id=2; box=1,2,3,4",
            "line 3: column video: 'b', but line 2 has 'a' for the same video_id",
        ),
        (
            "video=a; end=7; box=1,2,3,4\nvideo=a; end=8; object_id=2; box=1,2,3,4",
            "line 3: column end: 8, but line 2 has 7 for the same video_id",
        ),
        (
            "video=a; box=1,2,3,4\nvideo=a; start=1; object_id=2; box=1,2,3,4",
            "line 3: column start: 1, but line 2 has 0 for the same video_id",
        ),
        (
            "video=a; box=1,2,3,4\nvideo=a; frame=9; box=1,2,3,4; direction=both",
            "line 3: column direction: 'both', but line 2 has 'forward' for the same video_id",
        ),
        (
            "video=a; box=1,2,3,4\nvideo=a; frame=9; object_id=2; box=1,2,3,4; prompt_kind=annotate",
            "line 3: column prompt_kind: 'annotate', but line 2 has 'correct' for the same video_id",
        ),
        (
            "video=a; box=1,2,3,4; prompt_kind=annotate\nvideo=a; frame=5; prompt_kind=absent\n"
            "video=a; frame=9; box=1,2,3,4",
            "line 4: column prompt_kind: 'correct', but line 2 has 'annotate' for the same video_id",
        ),
        (
            "video=a; box=1,2,3,4\nvideo=a; frame=9; box=1,2,3,4; prompt_kind=absent",
            "line 3: a target that is absent has neither box nor mask; leave them empty, or leave out prompt_kind",
        ),
        (
            "video=a; box=1,2,3,4\nvideo=a; frame=9; object_id=2; prompt_kind=absent",
            "line 3: object 2 is only said to be absent; mark it on the frame where it is seen",
        ),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, rows: str, expected: str) -> None:
    (problem,) = rejected(tmp_path, rows)
    assert problem.startswith(expected)


def test_a_target_may_be_absent_between_its_marks(tmp_path: Path) -> None:
    rows = 'a.mp4,0,"1,2,30,40",\na.mp4,5,,absent\na.mp4,9,"1,2,30,40",correct\n'
    manifest = read(tmp_path, f"video,frame,box,prompt_kind\n{rows}")
    (task,) = manifest.tasks
    assert [(prompt.frame, prompt.kind) for prompt in task.targets[0].prompts] == [
        (0, "correct"),
        (5, "absent"),
        (9, "correct"),
    ]
    absent = task.targets[0].prompts[1]
    assert (absent.box, absent.mask_uri, absent.mask_rle) == (None, None, None)
    assert not task.annotates
    assert read(tmp_path, manifest.to_parquet(), "m.parquet").tasks[0].key == task.key


def test_a_target_may_be_absent_on_some_of_the_annotated_frames(tmp_path: Path) -> None:
    rows = 'a.mp4,0,,absent\na.mp4,5,"1,2,30,40",annotate\na.mp4,9,,absent\n'
    manifest = read(tmp_path, f"video,frame,box,prompt_kind\n{rows}")
    (task,) = manifest.tasks
    assert [prompt.kind for prompt in task.targets[0].prompts] == ["absent", "annotate", "absent"]
    assert task.annotates
    assert read(tmp_path, manifest.to_parquet(), "m.parquet").tasks[0].key == task.key


def test_a_target_has_one_category(tmp_path: Path) -> None:
    found = rejected(tmp_path, "video=a; category=x; box=1,2,3,4\nvideo=a; category=y; frame=9; box=1,2,3,4")
    assert any("column category: 'y', but line 2 has 'x' for the same target" in problem for problem in found)


def test_all_problems_are_collected_in_the_order_of_the_lines(tmp_path: Path) -> None:
    content = 'video,box,frame\na,"1,2,0,4",-1\nb,"1,2,3,4",0\n\nc,1,2,3,4\nd,"1,2,3,4"\nb,"1,2,3,4",0\n'
    found = problems(tmp_path, content)
    assert [problem.split(":")[0] for problem in found] == [
        "line 2, column box",
        "line 2, column frame",
        "line 5",
        "line 6",
        "line 7",
    ]
    assert 'a box of four numbers needs quotes: "10,20,30,40"' in found[2]
    with pytest.raises(ManifestError, match="4 of 5 rows cannot be used") as caught:
        read(tmp_path, content)
    assert caught.value.exit_code == 10

    manifest = read(tmp_path, content, skip_invalid=True)
    assert [task.video_id for task in manifest.tasks] == ["b"]
    assert list(manifest.invalid) == found
    assert manifest.table.num_rows == 1


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    assert problems(tmp_path, '\n\nvideo,box,note\na,"1,2,3,4","two\nlines"\n\nb,"1,2,3",x\n')[0].startswith("line 7,")
    assert problems(tmp_path, '\n{"video": "a", "box": [1,2,3,4]}\n\n{"video": 1.5}\n', "m.jsonl")[0].startswith(
        "line 4"
    )
    table = pa.table({"video": ["a", "b"], "box": ["1,2,3,4", "1,2,3"]})
    pq.write_table(table, tmp_path / "m.parquet")
    assert problems(tmp_path, (tmp_path / "m.parquet").read_bytes(), "n.parquet")[0].startswith("row 2, column box")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{nothing}", "line 2: not JSON"),
        ("[1]", "line 2: a list, not a JSON object"),
        ("null", "line 2: null, not a JSON object"),
        ('"text"', "line 2: a string"),
        ("[" * 100_000, "line 2: not JSON"),
        ('{"video": "b", "box": [1, 2, 3, 4], "frame": true}', "line 2, column frame: True is not a frame index"),
        ('{"video": "b", "box": [1, 2, 3, true]}', "line 2, column box"),
        ('{"video": "b", "box": [1, 2, 3, null]}', "line 2, column box"),
        ('{"video": "b", "box": {"x": 1}}', "line 2, column box"),
        ('{"video": "b", "box": [1, 2, 3, 1e999]}', "line 2, column box"),
        ('{"video": ["b"], "box": [1, 2, 3, 4]}', "line 2, column video"),
        ('{"video": "\\ud800", "box": [1, 2, 3, 4]}', "line 2, column video"),
    ],
)
def test_a_wrong_line_of_json_is_named(tmp_path: Path, line: str, message: str) -> None:
    (problem,) = problems(tmp_path, f'{{"video": "a", "box": [1, 2, 3, 4]}}\n{line}\n', "m.jsonl")
    assert problem.startswith(message)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", b"", "is empty"),
        ("m.jsonl", b" \n\n", "is empty"),
        ("m.csv", b"\xef\xbb\xbf", "is empty|no rows"),
        ("m.csv", b"video,box\n", "has no rows"),
        ("m.csv", b'a.mp4,"1,2,3,4"\n', "no column 'video'; its columns are a.mp4, 1,2,3,4"),
        ("m.csv", b'name,box\na,"1,2,3,4"\n', "no column 'video'; its columns are name, box"),
        ("m.csv", b"video,frame\na,1\n", "marks no target"),
        ("m.csv", b"video;box\na;1,2,3,4\n", "not separated by commas"),
        ("m.csv", b"video,box,\na,b,c\n", "column 3 has no name"),
        ("m.csv", b"video,box,n,n\na,b,c,d\n", "names column 'n' twice"),
        ("m.csv", b'video,box,shop,Shop\na,"1,2,3,4",1,1\n', "'shop' and 'Shop' differ too little"),
        ("m.csv", b'video,box,\x01\na,"1,2,3,4",1\n', "cannot be a column's name"),
        ("m.csv", b"video,box\nT\xe9l\xe9,x\n", "line 2: byte 11 is not UTF-8"),
        ("m.csv", "video,box\na,b\n".encode("utf-16"), "not UTF-8"),
        ("m.csv", b'video,box\n"a,b\n', "cannot be read"),
        ("m.json", b'[{"video": "a"}]', "one JSON list; write JSON lines"),
        ("m.parquet", b"PAR1 nothing", "not a Parquet file"),
        ("m.parquet", b"video,box\n", "not a Parquet file"),
    ],
)
def test_a_file_that_is_no_manifest_says_why(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read(tmp_path, content, name)


def test_a_folder_whose_name_is_no_utf8_is_refused(tmp_path: Path) -> None:
    """As those of old disks; what a run writes down could not name the videos in it."""
    folder = tmp_path / os.fsdecode(b"T\xe9l\xe9")
    folder.mkdir()
    with pytest.raises(ManifestError, match="whose name is no UTF-8; rename that folder"):
        read(folder, 'video,box\na,"1,2,30,40"\n')


def test_a_manifest_without_a_good_row_is_refused_even_if_wrong_ones_may_be_skipped(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no row that can be used") as caught:
        read(tmp_path, 'video,box\na,"1,2,3"\n', skip_invalid=True)
    assert len(caught.value.problems) == 1


def test_a_manifest_that_is_missing_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not exist"):
        read_manifest(str(tmp_path / "none.csv"))


# Size


@pytest.mark.long
def test_a_hundred_thousand_rows_take_seconds(tmp_path: Path) -> None:
    rng = random.Random(0)
    lines = [
        f'clips/{row // 2}.mp4,{row % 2 + 1},"{rng.random()},2,3,{row % 50 + 1}",chair,{rng.random()}\n'
        for row in range(100_000)
    ]
    uri = save(tmp_path, "video,object_id,box,category,price\n" + "".join(lines))
    begin = time.process_time()
    manifest = read_manifest(uri)
    assert len(manifest.tasks) == 50_000
    assert time.process_time() - begin < 20  # 3 s on a core of its own


@pytest.mark.long
def test_problems_of_a_hundred_thousand_rows_take_seconds(tmp_path: Path) -> None:
    uri = save(tmp_path, "video,box,frame\n" + 'a,"1,2,3",-1\n' * 100_000)
    begin = time.process_time()
    with pytest.raises(ManifestError, match="100000 of 100000 rows") as caught:
        read_manifest(uri)
    assert len(caught.value.problems) == 200_000
    assert len(str(caught.value).splitlines()) == 22
    assert time.process_time() - begin < 30


# Rubbish

cells = st.one_of(
    st.sampled_from(
        ["", "a.mp4", "1,2,3,4", "[1,2,3,4]", "0", "-1", "1.5", "nan", "forward", "correct", RLE, "s3://b/k"]
    ),
    st.text(max_size=8),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), cells),
    lambda children: st.lists(children, max_size=5) | st.dictionaries(st.text(max_size=6), children, max_size=3),
    max_leaves=6,
)
names = st.one_of(st.sampled_from(list(COLUMNS)), st.text(max_size=6))
rows = st.dictionaries(names, values, max_size=8)
fuzz = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def attempt(make: Callable[[], Manifest], folder: Path) -> None:
    try:
        manifest = make()
    except ManifestError:
        return
    assert read(folder, manifest.to_parquet(), "again.parquet").tasks == manifest.tasks


@fuzz
@example(content=b'"', name="m.csv")
@given(content=st.binary(max_size=200), name=st.sampled_from(["m.csv", "m.jsonl", "m.parquet", "m"]))
def test_any_bytes_give_a_manifest_or_our_error(tmp_path: Path, content: bytes, name: str) -> None:
    attempt(lambda: read(tmp_path, content, name, skip_invalid=True), tmp_path)


@fuzz
@given(table=st.lists(st.lists(cells, min_size=4, max_size=4), max_size=6), header=st.permutations(list(COLUMNS)))
@pytest.mark.long
def test_any_cells_give_a_manifest_or_our_error(tmp_path: Path, table: list[list[str]], header: list[str]) -> None:
    frame = pd.DataFrame(table, columns=header[:4])
    content = frame.to_csv(index=False).encode("utf-8", "replace")
    attempt(lambda: read(tmp_path, content, skip_invalid=True), tmp_path)


@fuzz
@given(content=st.lists(rows, max_size=5))
@pytest.mark.long
def test_any_objects_give_a_manifest_or_our_error(tmp_path: Path, content: list[dict[str, Any]]) -> None:
    good = {"video": "a.mp4", "box": [1, 2, 3, 4], "object_id": 77}
    text = "\n".join(json.dumps(row) for row in [good, *content])
    attempt(lambda: read(tmp_path, text, "m.jsonl", skip_invalid=True), tmp_path)


def test_a_video_a_folder_or_a_pattern_is_told_what_a_manifest_is(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x20ftypisom\0\0\2\0")
    for name, what in (("clip.mp4", "is no text; if it is a video"), ("", "is a folder"), ("*.mp4", "is a pattern")):
        with pytest.raises(ManifestError, match=what) as caught:
            read_manifest(str(tmp_path / name))
        shown = "video.mp4" if what == "is a folder" else "clip.mp4"
        assert f'  video,box\n  {tmp_path / shown},"412,80,95,240"' in str(caught.value)


def test_a_damaged_parquet_file_is_taken_for_no_video(tmp_path: Path) -> None:
    (tmp_path / "manifest.parquet").write_bytes(bytes(100))
    with pytest.raises(ManifestError, match=r"manifest\.parquet is not a Parquet file that can be read"):
        read_manifest(str(tmp_path / "manifest.parquet"))


@pytest.mark.parametrize(
    ("header", "row", "remedy"),
    [
        ("video,bbox", 'a.mp4,"1,2,30,40"', "'bbox' as 'box'"),
        ("video,xyxy", 'a.mp4,"1,2,30,40"', "w is x2 - x1"),
        ("video,x1,y1,x2,y2", "a.mp4,1,2,30,40", "x1, y1, x2, y2 as x, y, w, h"),
        ("video,segmentation", "a.mp4,x.png", "'segmentation' as 'mask'"),
    ],
)
def test_marks_under_other_tools_names_are_asked_about(tmp_path: Path, header: str, row: str, remedy: str) -> None:
    with pytest.raises(ManifestError, match=f"did you mean .*{remedy}"):
        read(tmp_path, f"{header}\n{row}\n")


def test_a_class_under_another_name_is_asked_about(tmp_path: Path) -> None:
    found = read(tmp_path, 'video,box,label\na.mp4,"1,2,30,40",cat\n')
    assert any("did you mean 'category'" in warning for warning in found.warnings)
    assert found.tasks[0].targets[0].extras == {"label": "cat"}
    both = read(tmp_path, 'video,box,label,category\na.mp4,"1,2,30,40",x,cat\n')
    assert not both.warnings
