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
