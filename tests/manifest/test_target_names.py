"""Targets that have names: their numbers, and the names in what comes out."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from rts_batch.errors import ManifestError
from rts_batch.manifest import Manifest, read_manifest
from rts_batch.manifest.target_names import number_names

ROWS = ('a.mp4,left-rider,"1,2,3,4"', 'a.mp4,horse,"1,2,5,6"', 'a.mp4,2,"9,9,9,9"', 'b.mp4,left-rider,"1,2,3,4"')


def read(folder: Path, rows: list[str] | tuple[str, ...], header: str = "video,object_id,box") -> Manifest:
    (folder / "m.csv").write_text("\n".join([header, *rows]) + "\n")
    return read_manifest(str(folder / "m.csv"))


def test_names_get_the_lowest_free_numbers_whatever_the_order_of_rows(tmp_path: Path) -> None:
    digests = set()
    for rows in itertools.permutations(ROWS):
        tasks = {task.video_id: task for task in read(tmp_path, rows).tasks}
        found = {v: {t.object_id: t.extras["object_name"] for t in task.targets} for v, task in tasks.items()}
        assert found == {"a.mp4": {1: "horse", 2: None, 3: "left-rider"}, "b.mp4": {1: "left-rider"}}
        digests.add((tasks["a.mp4"].digest, tasks["b.mp4"].digest))
    assert len(digests) == 1


def test_a_normalised_manifest_reads_back_to_the_same(tmp_path: Path) -> None:
    manifest = read(tmp_path, ROWS)
    (tmp_path / "m.parquet").write_bytes(manifest.to_parquet())
    again = read_manifest(str(tmp_path / "m.parquet"))
    assert [task.digest for task in again.tasks] == [task.digest for task in manifest.tasks]
    assert again.extras == manifest.extras == {"object_name": "string"}


def test_a_manifest_of_numbers_carries_no_names(tmp_path: Path) -> None:
    assert "object_name" not in read(tmp_path, ROWS[2:3]).extras


def test_an_image_of_several_targets_needs_numbers(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        read(tmp_path, ["a.mp4,rider,m.png", "a.mp4,horse,m.png"], "video,object_id,mask")
    assert "line 3: the same mask image as another target's on line 2" in caught.value.problems[0]
    signed = [f"a.mp4,{name},https://host/m.png?Signature={name}" for name in ("rider", "horse")]
    with pytest.raises(ManifestError) as caught:
        read(tmp_path, signed, "video,object_id,mask")
    assert "line 3: the same mask image as another target's on line 2" in caught.value.problems[0]
    read(tmp_path, ["a.mp4,1,m.png", "a.mp4,2,m.png"], "video,object_id,mask")
    read(tmp_path, ["a.mp4,rider,m.png", "a.mp4,horse,n.png"], "video,object_id,mask")


def test_a_carried_column_of_that_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="'object_name'"):
        read(tmp_path, ['a.mp4,rider,"1,2,3,4",x'], "video,object_id,box,object_name")


def test_numbers_that_names_have_already_stay() -> None:
    numbers, names = number_names(["a", "a", "a"], ["new", "old", 1], lambda: {"a": {"old": 4, "2": 2}})
    assert numbers == [3, 4, 1]
    assert names == ["new", "old", None]
