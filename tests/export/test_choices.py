from pathlib import Path

import pytest

from rts_batch.errors import UsageError
from rts_batch.export.choices import parse_classes, parse_split, split_videos
from rts_batch.export.names import ExportName
from rts_batch.export.run import export_run
from tests.support.run_folders import Video, moving_squares, write_run


def test_shares_by_whole_videos() -> None:
    videos = [f"v{number}" for number in range(20)]
    parts = split_videos(videos, (0.8, 0.1, 0.1))
    assert sorted(parts) == sorted(videos)
    assert [list(parts.values()).count(part) for part in ("train", "val", "test")] == [16, 2, 2]
    assert parts == split_videos(videos[::-1], (0.8, 0.1, 0.1))
    assert parts != split_videos(videos, (0.8, 0.1, 0.1), seed=1)


@pytest.mark.parametrize(("count", "expected"), [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1]), (5, [3, 1, 1])])
def test_few_videos_train_first(count: int, expected: list[int]) -> None:
    parts = split_videos(map(str, range(count)), (0.8, 0.1, 0.1))
    assert [list(parts.values()).count(part) for part in ("train", "val", "test")] == expected


@pytest.mark.parametrize("text", ["0.8", "0.8,0.1", "1.2,-0.2", "a,b", "0,1", "nan,1"])
def test_wrong_shares_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--split"):
        parse_split(text)


@pytest.mark.parametrize("text", ["car", "car=0", "=1", "car=1,dog=1", "car=1,car=2", "car=x"])
def test_wrong_classes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--classes"):
        parse_classes(text)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    videos = [
        Video(f"v{n}", f"v{n}.mp4", moving_squares(3, 1), {1: kind}) for n, kind in enumerate(["ant", "dog", "ant"])
    ]
    write_run(tmp_path / "run", videos)
    return tmp_path / "run"


def test_a_yolo_set_never_validates_on_what_it_trains_on(run: Path, tmp_path: Path) -> None:
    export_run(str(run), str(tmp_path / "out"), "yolo-seg", split=(0.5, 0.5))
    stems = {
        part: {path.stem.split("_")[0] for path in (tmp_path / "out" / "labels" / part).iterdir()}
        for part in ("train", "val")
    }
    assert stems["train"] | stems["val"] == {"v0", "v1", "v2"}
    assert not stems["train"] & stems["val"]
    assert "val: images/val" in (tmp_path / "out" / "data.yaml").read_text()
    summary = export_run(str(run), str(tmp_path / "whole"), "yolo-seg")
    assert "val:" not in (tmp_path / "whole" / "data.yaml").read_text()
    assert any("--split" in warning for warning in summary.warnings)
    with pytest.raises(UsageError, match="yolo-seg"):
        export_run(str(run), str(tmp_path / "coco"), "coco", split=(0.5, 0.5))


def test_chosen_classes(run: Path, tmp_path: Path) -> None:
    assert export_run(str(run), str(tmp_path / "out"), "mots-png", classes={"dog": 3}).warnings == []
    assert (tmp_path / "out" / "classes.txt").read_text() == "1 ant\n3 dog\n"
    assert (tmp_path / "out" / "instances" / "labels.txt").read_text() == "ant\nclass 2\ndog\n"
    others = export_run(str(run), str(tmp_path / "others"), "mots-png", classes={"dog": 3, "dogs": 4})
    assert others.warnings == ["--classes: no target of the run has the category 'dogs'"]


@pytest.mark.parametrize("name", ["mots-png", "mots-txt"])
def test_no_category_has_the_class_that_mots_ignores(name: ExportName, tmp_path: Path) -> None:
    kinds = {number: f"c{number:02d}" for number in range(1, 12)}
    write_run(tmp_path / "run", [Video("v", "v.mp4", moving_squares(1, 11), kinds)])
    export_run(str(tmp_path / "run"), str(tmp_path / "out"), name)
    classes = (tmp_path / "out" / "classes.txt").read_text().splitlines()
    assert classes == [*(f"{number} c{number:02d}" for number in range(1, 10)), "11 c10", "12 c11"]
    with pytest.raises(UsageError, match=f"--classes c01=10: readers of {name} ignore"):
        export_run(str(tmp_path / "run"), str(tmp_path / "no"), name, classes={"c01": 10})
    export_run(str(tmp_path / "run"), str(tmp_path / "coco"), "coco", classes={"c01": 10})
