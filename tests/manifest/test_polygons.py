"""Polygons in a manifest: how they may be written, and that they mean the same however they are."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco

from rts_batch.errors import ManifestError
from rts_batch.manifest import Manifest, read_manifest
from rts_batch.manifest.importers.shapes import polygons_rle
from rts_batch.manifest.polygons import fill_rings, parse_rings
from rts_batch.masks import decode_rle

TRIANGLE = [20.5, 40.0, 56.0, 40.0, 56.0, 76.25]
SQUARE = [2.0, 2.0, 12.0, 2.0, 12.0, 9.0, 2.0, 9.0]


def read(folder: Path, content: str | bytes, name: str = "m.csv") -> Manifest:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return read_manifest(str(folder / name))


def parquet(**columns: list[Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("written", "rings"),
    [
        (TRIANGLE, [TRIANGLE]),
        ([TRIANGLE, SQUARE], [TRIANGLE, SQUARE]),
        ([[20.5, 40], [56, 40], [56, 76.25]], [TRIANGLE]),
        ([[[20.5, 40], [56, 40], [56, 76.25]], SQUARE], [TRIANGLE, SQUARE]),
        ("20.5 40 56 40 56 76.25", [TRIANGLE]),
        ("20.5,40 56,40\t56,76.25", [TRIANGLE]),
        (" 20.5, 40, 56, 4e1, 56, 76.25, ", [TRIANGLE]),
        ("20.5,40;56,40;56,76.25", [TRIANGLE]),
        ("20.5 40 56 40 56 76.25; 2 2 12 2 12 9 2 9", [TRIANGLE, SQUARE]),
        ("[20.5, 40, 56, 40, 56, 76.25]", [TRIANGLE]),
        (json.dumps([TRIANGLE, SQUARE]), [TRIANGLE, SQUARE]),
    ],
)
def test_ways_of_writing_one(written: Any, rings: list[list[float]]) -> None:
    assert parse_rings(written) == rings


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("1 2 30 4 5", "5 numbers, an odd count: each point has x and y"),
        ("1 2 30 4", "2 points, a polygon has three points or more"),
        ("1 2 30 4 5 inf", "not finite"),
        ([SQUARE, [1, 2, 30, 4]], "polygon 2: 2 points"),
        ([[SQUARE]], "not a list of numbers"),
        ([["1", "2", "30", "4", "5", "60"]], "not a list of numbers; write x1 y1 x2 y2"),
        ("{'a': 1}", "write x1 y1 x2 y2"),
        ("[(20.5, 40), (56, 40), (56, 76)]", "not JSON .*; write x1 y1 x2 y2"),
        ([], "no polygon in it"),
        (7, "write x1 y1 x2 y2"),
        ([1, 2, 3, 4, 5, 1e7], "100,000 pixels away is in no frame"),
    ],
)
def test_what_is_none_says_why(written: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_rings(written)


def test_every_kind_of_manifest_says_the_same(tmp_path: Path) -> None:
    """The digests, by which a run knows its videos, agree, and what a run keeps reads back to the same."""
    rings = [TRIANGLE, SQUARE]
    row = {"video": "a.mp4", "frame": 3, "polygon": rings}
    kinds = [
        read(tmp_path, json.dumps(row), "m.jsonl"),
        read(tmp_path, pd.DataFrame([{**row, "polygon": json.dumps(rings)}]).to_csv(index=False)),
        read(tmp_path, 'video,frame,polygon\na.mp4,3,"20.5 40 56 40 56 76.25;2 2 12 2 12 9 2 9"\n', "n.csv"),
        read(tmp_path, parquet(video=["a.mp4"], frame=[3], polygon=[rings]), "m.parquet"),
        read(tmp_path, json.dumps({"video": "a.mp4", "frame": 3, "mask": {"polygons": rings}}), "n.jsonl"),
    ]
    kinds.append(read(tmp_path, kinds[0].to_parquet(), "kept.parquet"))
    for manifest in kinds:
        (prompt,) = manifest.tasks[0].targets[0].prompts
        assert prompt.polygons == rings
        assert (prompt.box, prompt.mask_uri, prompt.mask_rle) == (None, None, None)
    assert len({manifest.tasks[0].digest for manifest in kinds}) == 1
    assert "polygon" not in kinds[0].table.column_names


def test_a_polygon_changes_no_other_rows_identity(tmp_path: Path) -> None:
    box = 'a.mp4,"1,2,30,40"'
    alone = read(tmp_path, f"video,box\n{box}\n").tasks[0]
    beside = read(tmp_path, f"video,box,polygon\n{box},\nb.mp4,,1 2 30 4 5 60\n").tasks[0]
    assert alone.digest == beside.digest


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"mask": "m.png"}, "line 1: a mask and a polygon; give one of the two"),
        ({"prompt_kind": "absent"}, "line 1: a target that is absent has neither box nor mask"),
    ],
)
def test_one_prompt_is_marked_once(tmp_path: Path, row: dict[str, Any], what: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read(tmp_path, json.dumps({"video": "a.mp4", "polygon": SQUARE, **row}), "m.jsonl")
    assert any(what in problem for problem in caught.value.problems)


@pytest.mark.parametrize("name", ["polygons", "segmentation", "points", "contour"])
def test_polygons_under_another_name_are_asked_about(tmp_path: Path, name: str) -> None:
    with pytest.raises(ManifestError, match=f"did you mean to write '{name}' as .*'polygon'"):
        read(tmp_path, f"video,{name}\na.mp4,1 2 30 4 5 60\n")


def test_manifests_and_importers_fill_alike_and_as_pycocotools_does() -> None:
    inner = [22.0, 20.0, 28.0, 20.0, 28.0, 26.0, 22.0, 26.0]
    outer = [10.0, 10.0, 40.0, 10.0, 40.0, 40.0, 10.0, 40.0]
    rings = [TRIANGLE, outer, inner, [-30.0, 5.0, 5.0, 5.0, 5.0, 80.0]]
    ours = decode_rle(fill_rings(rings, 90, 80), 90, 80)
    assert np.array_equal(ours, coco.decode(coco.merge(coco.frPyObjects(rings, 90, 80))).astype(bool))
    assert ours[23, 25], "a ring within another one makes no hole"
    imported = polygons_rle(rings, 80, 90)
    assert imported is not None
    assert imported["counts"].encode() == fill_rings(rings, 90, 80)
