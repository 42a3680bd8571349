"""Names and numbers in exports: every video can be told from every other, and nothing depends on what is finished."""

from __future__ import annotations

import csv
import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from rts_batch.errors import ResultsError
from rts_batch.export.catalogue import Catalogue, file_names
from rts_batch.export.run import FORMATS, export_run
from rts_batch.manifest import read_manifest
from rts_batch.runs.compaction import compact
from tests.support.run_folders import Video, moving_squares, write_run
from tests.support.videos import make_video

IDS = ["v/кот.mp4", "v/猫.mp4", "a b", "a/b", "Bär", "bär", "हिन्दी.mp4", "🐱", "🐶"]


def test_letters_of_every_script_stay() -> None:
    names = file_names(["v/кот.mp4", "v/猫.mp4", "clips/ärger 2.mp4", "हिन्दी.mp4", "../x", "s3://bucket/key.mp4"])
    assert list(names.values()) == ["v_кот.mp4", "v_猫.mp4", "clips_ärger_2.mp4", "हिन्दी.mp4", "x", "s3_bucket_key.mp4"]


def test_names_that_a_file_system_takes_for_the_same_are_told_apart() -> None:
    texts = [
        "a b",
        "a/b",
        "A b",
        "a_b_2",
        "й",
        unicodedata.normalize("NFD", "й"),
        "straße",
        "STRASSE",
        "🐱",
        "🐶",
        "",
        "..",
    ]
    names = file_names(texts)
    folded = {unicodedata.normalize("NFKC", name).casefold() for name in names.values()}
    assert len(folded) == len(texts)
    assert names["a_b_2"] == "a_b_2"
    assert names["a b"].startswith("a_b_")
    assert names["🐱"].startswith("video_")


@pytest.mark.parametrize("text", ["ä" * 300, "猫" * 300, "x" * 300, "/".join(["folder"] * 80)])
def test_names_fit_into_every_file_system(text: str) -> None:
    (name,) = file_names([text]).values()
    assert len(f"{name}_000000.jpg".encode()) < 200
    first, second = file_names([text, f"before{text}"]).values()
    assert first != second


def test_a_name_depends_on_no_other_video_unless_they_would_be_alike() -> None:
    few, many = file_names(IDS[:4]), file_names([*IDS, "a c", "new"])
    assert {text: many[text] for text in few} == few


def test_a_video_that_the_manifest_has_no_more_has_a_name_of_its_own() -> None:
    catalogue = Catalogue([("a/b", 1, "cat"), ("c", 1, None), ("c", 2, "cat"), ("c", 2, "cat")])
    assert catalogue.name("a/b") == "a_b"
    assert catalogue.name("a b") != catalogue.name("a/b")
    assert (catalogue.video("c"), catalogue.video("d")) == (2, 3)
    assert [catalogue.target("c", number) for number in (2, 1, 9)] == [3, 2, 4]
    assert [catalogue.in_class("c", 2, "cat"), catalogue.in_class("x", 1, "cat")] == [2, 3]
    assert catalogue.categories == ["cat"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine videos whose ids are hard to tell apart, with two targets each."""
    folder = tmp_path_factory.mktemp("catalogue")
    make_video(folder / "a.mp4", 3, size=(60, 40))
    masks = moving_squares(3, 2)
    videos = [
        Video(video_id, str(folder / "a.mp4"), masks, {1: ("cat", "кот", "猫")[place % 3], 2: None})
        for place, video_id in enumerate(IDS)
    ]
    write_run(folder / "run", videos)
    return folder / "run"


def part_of(run: Path, target: Path, *left_out: int) -> Path:
    """The run as it was before some of its videos were finished."""
    shutil.copytree(run, target)
    for place, path in enumerate(sorted((target / "masks").iterdir())):
        if place in left_out:
            path.unlink()
    return target


def pieces(folder: Path) -> dict[str, Any]:
    """What an export says, file by file; of lists in JSON, item by item."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        content = json.loads(path.read_text("utf-8")) if path.suffix == ".json" else None
        if isinstance(content, list):
            found |= {f"{name} {json.dumps(item, sort_keys=True)}": True for item in content}
        elif isinstance(content, dict):
            for key, value in content.items():
                items = value if isinstance(value, list) else [value]
                found |= {f"{name} {key} {json.dumps(item, sort_keys=True)}": True for item in items}
        elif path.suffix in (".csv", ".txt") and not path.parent.name.startswith(("instances_txt", "train", "img")):
            found |= {f"{name} {line}": True for line in path.read_text("utf-8").splitlines()}
        else:
            found[name] = path.read_bytes()
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_no_name_and_no_number_depends_on_what_is_finished(name: Any, run: Path, tmp_path: Path) -> None:
    export_run(str(run), str(tmp_path / "whole"), name)
    export_run(str(part_of(run, tmp_path / "part", 0, 3, 4)), str(tmp_path / "first"), name)
    whole, first = pieces(tmp_path / "whole"), pieces(tmp_path / "first")
    assert len(first) < len(whole)
    assert {key: whole.get(key) for key in first} == first


@pytest.mark.parametrize("name", FORMATS)
def test_a_table_of_names_lies_beside_every_export(name: Any, run: Path, tmp_path: Path) -> None:
    export_run(str(run), str(tmp_path / "out"), name)
    with (tmp_path / "out" / "names.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["video_id"]: row["name"] for row in rows} == file_names(IDS)
    assert {row["video"] for row in rows} == {str(run.parent / "a.mp4")}
    compact(str(run), str(tmp_path / "compacted"))
    export_run(str(tmp_path / "compacted"), str(tmp_path / "again"), name)
    assert {row["name"] for row in rows} == set(file_names(IDS).values())
    assert pieces(tmp_path / "again").keys() == pieces(tmp_path / "out").keys()


@pytest.mark.parametrize("name", FORMATS)
def test_a_video_may_have_the_name_of_a_file_that_an_export_writes(name: Any, tmp_path: Path) -> None:
    """Its folder was there before the file."""
    make_video(tmp_path / "a.mp4", 3, size=(60, 40))
    ids = ["names.csv", "Targets.csv", "labels.txt", "classes.txt"]
    videos = [Video(video_id, str(tmp_path / "a.mp4"), moving_squares(3, 1), {1: "cat"}) for video_id in ids]
    write_run(tmp_path / "run", videos)
    exported = export_run(str(tmp_path / "run"), str(tmp_path / "out"), name, extract_frames=FORMATS[name].has_images)
    assert exported.videos == 4
    with (tmp_path / "out" / "names.csv").open(encoding="utf-8", newline="") as file:
        names = {row["video_id"]: row["name"] for row in csv.DictReader(file)}
    assert [names[video_id].casefold().partition("_")[0] for video_id in ids] == [*map(str.casefold, ids)]
    assert names["classes.txt"] == "classes.txt"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("changed", [1, 2])
def test_masks_may_be_of_another_category_than_the_manifest_has_by_now(name: Any, changed: int, tmp_path: Path) -> None:
    """Rows were put right, and the videos are not tracked again yet."""
    videos = [Video(video_id, "a.mp4", moving_squares(3, 1), {1: "cat"}) for video_id in "ab"]
    write_run(tmp_path / "run", videos)
    rows = (tmp_path / "run.jsonl").read_text().replace('"cat"', '"dog"', changed)
    (tmp_path / "run.jsonl").write_text(rows)
    (tmp_path / "run" / "manifest.parquet").write_bytes(read_manifest(str(tmp_path / "run.jsonl")).to_parquet())
    exported = export_run(str(tmp_path / "run"), str(tmp_path / "out"), name)
    assert (exported.videos, exported.targets) == (2, 2)
    if name == "lasot":
        assert sorted(path.name for path in (tmp_path / "out" / "cat").iterdir()) == ["cat-1", "cat-2"]


@pytest.mark.parametrize("name", FORMATS)
def test_no_export_holds_a_signature_without_a_word(name: Any, tmp_path: Path) -> None:
    address = "https://host/a.mp4?X-Amz-Signature=SECRET"
    write_run(tmp_path / "run", [Video("a", address, moving_squares(2, 1), {1: "cat"})])
    summary = export_run(str(tmp_path / "run"), str(tmp_path / "out"), name)
    signed = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file() and b"SECRET" in path.read_bytes()]
    assert signed == (["manifest.json"] if name == "fiftyone" else [])
    assert len(signed) == sum("a query may be a signature" in warning for warning in summary.warnings)
    if name in ("coco", "ytvis"):
        data = json.loads(next((tmp_path / "out").rglob("instances*.json")).read_text())
        assert data["videos"][0]["uri"].startswith("https://host/a.mp4?…")


def test_without_a_manifest_the_masks_say_which_videos_there_are(run: Path, tmp_path: Path) -> None:
    part = part_of(run, tmp_path / "run")
    (part / "manifest.parquet").unlink()
    export_run(str(part), str(tmp_path / "out"), "davis")
    names = {path.name for path in (tmp_path / "out" / "Annotations" / "Full-Resolution").iterdir()}
    assert names == set(file_names(IDS).values())
    assert (tmp_path / "out" / "names.csv").read_text("utf-8").count("\n") == 1 + len(IDS)


def test_frames_are_written_under_such_names(run: Path, tmp_path: Path) -> None:
    summary = export_run(str(run), str(tmp_path / "out"), "yolo-seg", extract_frames=True)
    images = {path.stem for path in (tmp_path / "out" / "images" / "train").iterdir()}
    assert summary.images == len(images) == 3 * len(IDS)
    assert images == {path.stem for path in (tmp_path / "out" / "labels" / "train").iterdir()}
    assert "v_кот.mp4_000000" in images


def test_a_broken_manifest_is_named(run: Path, tmp_path: Path) -> None:
    part = part_of(run, tmp_path / "run")
    (part / "manifest.parquet").write_bytes(b"no parquet")
    with pytest.raises(ResultsError, match=r"manifest\.parquet cannot be read"):
        export_run(str(part), str(tmp_path / "out"), "coco")
