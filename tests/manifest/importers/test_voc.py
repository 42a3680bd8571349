from pathlib import Path

import pytest

from rts_batch.errors import ManifestError
from rts_batch.manifest.importers import ImportOptions, from_voc

BOX = "<bndbox><xmin>20</xmin><ymin>10</ymin><xmax>50</xmax><ymax>30</ymax></bndbox>"


def described(path: Path, *objects: str, size: str = "<size><width>90</width><height>60</height></size>") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    inner = "".join(f"<object><name>кот</name>{inside}</object>" for inside in objects)
    path.write_text(f"<annotation><filename>{path.stem}.jpg</filename>{size}{inner}</annotation>", encoding="utf-8")
    return path


def test_boxes_and_the_numbers_of_targets(tmp_path: Path) -> None:
    """As ImageNet VID and CVAT write them; labelImg names no targets."""
    attributes = "<attributes><attribute><name>track_id</name><value>7</value></attribute></attributes>"
    described(tmp_path / "vid" / "one" / "000004.xml", f"<trackid>3</trackid>{BOX}", attributes + BOX, BOX)
    described(tmp_path / "vid" / "one" / "000005.xml", f"<trackid>3</trackid>{BOX}", BOX)
    found = from_voc(tmp_path / "vid", ImportOptions(video="clips/{name}.mp4", keep="all"))
    assert {(row["video"], row["category"]) for row in found.rows} == {("clips/one.mp4", "кот")}
    assert all(row["box"] == [20, 10, 30, 20] for row in found.rows)
    frames = sorted((row["object_id"], row["frame"]) for row in found.rows)
    assert frames == [(1, 4), (1, 5), (3, 4), (3, 5), (7, 4)]
    assert any("90×60" in warning for warning in found.warnings)


def test_boxes_are_scaled_to_the_frames(tmp_path: Path) -> None:
    found = from_voc(described(tmp_path / "one_7.xml", BOX), ImportOptions(size=(180, 120)))
    assert [(row["video"], row["frame"], row["box"]) for row in found.rows] == [("one", 7, [40, 20, 60, 40])]
    assert not found.warnings


@pytest.mark.parametrize(
    "size", ["", "<size><width>wide</width><height/></size>", "<size><width>inf</width><height>60</height></size>"]
)
def test_a_size_is_not_needed(tmp_path: Path, size: str) -> None:
    (row,) = from_voc(described(tmp_path / "one_7.xml", BOX, size=size), ImportOptions(size=(90, 60))).rows
    assert row["box"] == [20, 10, 30, 20]


def test_what_cannot_be_read_costs_no_other_and_is_named(tmp_path: Path) -> None:
    wrong = [
        "",
        "<robndbox><cx>5</cx></robndbox>",
        BOX.replace("50", "x"),
        BOX.replace("50", "nan"),
        BOX.replace("50", "20"),
    ]
    described(tmp_path / "one_7.xml", *wrong, BOX)
    (tmp_path / "other.xml").write_text("<annotations/>")
    found = from_voc(tmp_path)
    assert [row["box"] for row in found.rows] == [[20, 10, 30, 20]]
    assert found.left_out.pop("XML files that are none of Pascal VOC") == ["other.xml"]
    places = sorted(place for places in found.left_out.values() for place in places)
    assert places == [f"one_7.xml, object {number}" for number in range(len(wrong))]


def test_a_folder_without_such_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no XML of Pascal VOC"):
        from_voc(tmp_path)
