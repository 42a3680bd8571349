from pathlib import Path

import numpy as np
import pytest

from rts_batch.errors import ManifestError
from rts_batch.manifest import read_manifest
from rts_batch.manifest.importers import ImportOptions, from_cvat
from rts_batch.masks import decode_rle

VIDEO = """<annotations><version>1.1</version><meta><task><id>7</id><name>my task</name>
<original_size><width>40</width><height>30</height></original_size><source>one.mp4</source></task></meta>
<track id="0" label="car"><box frame="10" keyframe="1" outside="0" xtl="1" ytl="2" xbr="11" ybr="12"/>
<box frame="11" keyframe="0" outside="0" xtl="2" ytl="2" xbr="12" ybr="12"/>
<box frame="20" keyframe="1" outside="1" xtl="9" ytl="2" xbr="19" ybr="12"/></track>
<track id="1" label="dog"><polygon frame="12" keyframe="1" outside="0" points="4,4;12,4;12,8;4,8"/></track>
</annotations>"""


def test_tracks_give_what_was_drawn(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(VIDEO)
    found = from_cvat(tmp_path / "a.xml", ImportOptions(keep="all"))
    assert [(row["video"], row["frame"], row["category"]) for row in found.rows] == [
        ("one.mp4", 10, "car"), ("one.mp4", 12, "dog"), ("one.mp4", 20, "car")
    ]  # fmt: skip
    assert [row["prompt_kind"] for row in found.rows] == ["correct", "correct", "absent"]
    assert found.rows[0]["box"] == [1, 2, 10, 10]
    mask = decode_rle(found.rows[1]["mask"]["counts"].encode(), 30, 40)
    assert np.array_equal(np.argwhere(mask).min(0), [4, 4])
    assert mask.sum() == 8 * 4
    assert sorted(line.split(" (")[0] for line in found.report()) == [
        "1 × frames between key frames, which CVAT interpolates",
    ]
    found.write(str(tmp_path / "m.jsonl"))
    assert len(read_manifest(str(tmp_path / "m.jsonl")).tasks[0].targets) == 2


def test_a_track_that_begins_outside_begins_where_it_is_drawn(tmp_path: Path) -> None:
    begun = VIDEO.replace('frame="20"', 'frame="5"')
    (tmp_path / "a.xml").write_text(begun)
    found = from_cvat(tmp_path / "a.xml", ImportOptions(keep="all"))
    assert [(row["frame"], "prompt_kind" in row) for row in found.rows] == [(10, False), (12, False)]


def test_images_are_frames(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(
        '<annotations><image id="3" name="one/000012.jpg" width="40" height="30">'
        '<mask label="cat" rle="1, 3, 2" left="5" top="6" width="3" height="2"/>'
        '<points label="cat" points="1,1"/></image>'
        '<image id="4" name="frame_000013" width="40" height="30"><box label="cat" xtl="0" ytl="0" xbr="4" ybr="4"/>'
        "</image></annotations>"
    )
    found = from_cvat(tmp_path / "a.xml")
    assert [(row["video"], row["frame"]) for row in found.rows] == [("one", 12), ("a", 13)]
    mask = decode_rle(found.rows[0]["mask"]["counts"].encode(), 30, 40)
    assert np.argwhere(mask).tolist() == [[6, 6], [6, 7], [7, 5]]


def test_xml_with_entities_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text('<!DOCTYPE a [<!ENTITY b "bb">]><annotations>&b;</annotations>')
    with pytest.raises(ManifestError, match="no XML that can be read"):
        from_cvat(tmp_path / "a.xml")


def cvat(folder: Path, body: str, meta: str = "<meta/>", encoding: str = "utf-8") -> Path:
    text = f'<?xml version="1.0" encoding="{encoding}"?>\r\n<annotations>{meta}{body}</annotations>'
    (folder / "кот.xml").write_bytes(text.encode(encoding))
    return folder / "кот.xml"


def test_shapes_that_cannot_be_read_cost_no_other(tmp_path: Path) -> None:
    """One shape without an attribute, and nothing was read."""
    shape = '<box frame="{}" outside="0" keyframe="1" xtl="1" ytl="2" ybr="9" {}/>'.format
    wrong = shape("x", 'xbr="9"') + shape(1, "") + shape(2, 'xbr="wide"')
    right = shape(3, 'xbr="9"')
    body = f'<track id="0" label="a">{wrong}</track><track id="1" label="собака">{right}</track>'
    for encoding in ("utf-8", "utf-16"):
        found = from_cvat(cvat(tmp_path, body, encoding=encoding))
        assert [(row["video"], row["frame"], row["category"]) for row in found.rows] == [("кот", 3, "собака")]
        assert sum(map(len, found.left_out.values())) == 3


def test_the_size_may_be_given_where_the_file_has_none(tmp_path: Path) -> None:
    path = cvat(
        tmp_path,
        '<track id="0" label="a"><polygon frame="1" outside="0" keyframe="1" points="1,1;9,1;9,9"/></track>',
    )
    assert "--size" in from_cvat(path).report()[0]
    (row,) = from_cvat(path, ImportOptions(size=(30, 20))).rows
    assert row["mask"]["size"] == [20, 30]


PROJECT = """<annotations><meta><project><name>p</name><tasks>
<task><id>7</id><name>first</name><original_size><width>64</width><height>48</height></original_size>
<source>{0}</source></task>
<task><id>8</id><name>second</name><original_size><width>96</width><height>90</height></original_size>
<source>{1}</source></task></tasks></project></meta>{2}</annotations>"""

BOXES = "".join(
    f'<image id="{task}" name="frame_000003" task_id="{task}" width="{size}" height="{size}">'
    '<box label="car" xtl="1" ytl="5" xbr="20" ybr="20"/></image>'
    for task, size in ((7, 64), (8, 90))
)
POLYGONS = "".join(
    f'<track id="0" label="car" task_id="{task}"><polygon frame="3" outside="0" keyframe="1" points="1,1;9,1;9,9"/>'
    "</track>"
    for task in (7, 8)
)


@pytest.mark.parametrize("drawn", [BOXES, POLYGONS], ids=["images", "tracks"])
@pytest.mark.parametrize(
    ("sources", "videos"),
    [(("one.mp4", "two.mp4"), ["one.mp4", "two.mp4"]), (("a.mp4", "a.mp4"), ["first", "second"])],
)
def test_each_task_of_a_project_is_a_video(
    tmp_path: Path, sources: tuple[str, str], videos: list[str], drawn: str
) -> None:
    """All images called frame_000003 went to the first task's video, and all masks had its size."""
    (tmp_path / "p.xml").write_text(PROJECT.format(*sources, drawn))
    found = from_cvat(tmp_path / "p.xml")
    assert [(row["video"], row["object_id"], row["frame"]) for row in found.rows] == [(name, 1, 3) for name in videos]
    assert [row["mask"] and row["mask"]["size"] for row in found.rows] in ([None, None], [[48, 64], [90, 96]])
    assert not found.warnings


def job(folder: Path, file: str, task: str, frame: int) -> None:
    text = VIDEO.replace("my task", task).replace('frame="10"', f'frame="{frame}"')
    (folder / file).write_text(text)


def test_tracks_of_several_files_are_several_targets(tmp_path: Path) -> None:
    """Each job counts its tracks from 0, and those of the second were dropped as later annotations of the first."""
    job(tmp_path, "1.xml", "my task", 10)
    job(tmp_path, "2.xml", "my task", 15)
    found = from_cvat(tmp_path)
    assert [(row["object_id"], row["frame"], row["source_object"]) for row in found.rows] == [
        (1, 10, "track 0"),
        (2, 12, "track 1"),
        (3, 12, "track 1 of 2.xml"),
        (4, 15, "track 0 of 2.xml"),
    ]
    assert not found.warnings
    job(tmp_path, "2.xml", "other task", 15)
    (warning,) = from_cvat(tmp_path).warnings
    assert warning.startswith("the tasks 'my task' and 'other task' are both of one.mp4")


def test_images_whose_names_say_no_video_are_of_their_files(tmp_path: Path) -> None:
    """All of them were of one called `video`."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.xml").write_text(
            '<annotations><image id="3" name="000012.jpg" width="40" height="30">'
            '<box label="cat" xtl="0" ytl="0" xbr="4" ybr="4"/></image></annotations>'
        )
    assert [(row["video"], row["frame"]) for row in from_cvat(tmp_path).rows] == [("one", 12), ("two", 12)]
