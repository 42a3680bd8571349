"""`rts-batch review` without a browser: what is written, for good runs and for bad ones."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path

import av
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rts_batch.cli.app import app
from rts_batch.errors import ResultsError
from rts_batch.io.results.writer import ResultsWriter
from rts_batch.masks import STATES
from rts_batch.review import report
from rts_batch.review.key_frames import APART, KeyFrames
from rts_batch.review.pages import make_row
from rts_batch.review.painting import COLOURS, TINT
from rts_batch.review.report import Reviewed, review_run
from rts_batch.review.tracks import Track, draw_line, read_tracks, shrink
from rts_batch.runs.compaction import compact
from rts_batch.runs.reading import read_masks
from rts_batch.runs.statistics import Statistics, video_statistics
from rts_batch.runs.video_masks import Target
from tests.support.run_folders import Video, moving_squares, row_of, write_run
from tests.support.videos import Disc, make_images, make_video

DISCS = (Disc(colour=(40, 150, 90)), Disc(start=(0.8, 0.8), end=(0.2, 0.8), radius=0.1, colour=(90, 140, 60)))


def review(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["review", *map(str, words)])
    return result.exit_code, result.stdout, result.stderr


def disc_run(tmp_path: Path, name: str = "clip", frames: int = 12, **options: object) -> tuple[Path, Video]:
    """A run with one video of two discs, whose masks are the discs; the second begins on the third frame."""
    path = tmp_path / f"{name}.mp4"
    masks = make_video(path, frames, discs=DISCS, **options)  # type: ignore[arg-type]
    video = Video(name, str(path), masks.astype(bool), {1: "disc", 2: None}, first={2: 2})
    write_run(tmp_path / "run", [video])
    return tmp_path / "run", video


def empty_clip(tmp_path: Path, masks: np.ndarray, name: str = "clip") -> Video:
    height, width = masks.shape[2:]
    path = tmp_path / f"{name}.mp4"
    make_video(path, len(masks), size=(width, height))
    return Video(name, str(path), masks, {number + 1: None for number in range(masks.shape[1])})


def decoded(path: Path) -> tuple[list[np.ndarray], list[float], str]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        codec = container.streams.video[0].codec_context.name
    return [frame.to_ndarray(format="rgb24") for frame in frames], [float(frame.time) for frame in frames], codec


# ---- the overlay video


def test_the_overlay_video_has_every_frame_and_the_colours_where_the_masks_are(tmp_path: Path) -> None:
    run, video = disc_run(tmp_path)
    code, out, _ = review(run, "--overlay", "clip", "--no-report")
    assert code == 0
    (path,) = (run / "overlays").iterdir()
    assert str(path) in out
    assert not (run / "report.html").exists()
    images, _, codec = decoded(path)
    before, _, _ = decoded(Path(video.uri))
    assert codec == "h264"
    assert len(images) == len(before) == 12
    for index in (0, 5, 11):
        for object_id in (1, 2):
            if index < video.first.get(object_id, 0):
                continue
            inside = video.truth(object_id, index)
            colour = np.array(COLOURS[object_id - 1])
            tinted = (1 - TINT) * before[index][inside] + TINT * colour
            # The median, as labels, outlines and the colour's half resolution take a part of the pixels.
            off, undrawn = (np.median(np.abs(shown[index][inside] - tinted).sum(axis=1)) for shown in (images, before))
            assert off < 0.6 * undrawn
        outside = ~video.masks[index].any(axis=0)
        assert np.median(np.abs(images[index][outside].astype(int) - before[index][outside])) < 6


def test_an_overlay_video_begins_with_the_first_mask_and_keeps_the_times(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.08, 0.5, 0.54, 0.9]
    path = tmp_path / "clip.mkv"
    masks = make_video(path, len(times), times=times)
    write_run(tmp_path / "run", [Video("clip", str(path), masks.astype(bool), {1: None}, first={1: 1})])
    reviewed = review_run(str(tmp_path / "run"), str(tmp_path / "out"), overlays=["clip"], report=False)
    images, shown, _ = decoded(Path(reviewed.overlays[0]))
    assert len(images) == 5
    np.testing.assert_allclose(np.subtract(shown, shown[0]), np.subtract(times[1:], times[1]), atol=0.002)


def test_odd_sides_become_even_and_no_pixel_moves(tmp_path: Path) -> None:
    masks = make_images(tmp_path / "images", 3, size=(161, 121))
    write_run(tmp_path / "run", [Video("images", str(tmp_path / "images"), masks.astype(bool), {7: None})])
    reviewed = review_run(str(tmp_path / "run"), overlays=["images"], report=False)
    images, times, _ = decoded(Path(reviewed.overlays[0]))
    assert [image.shape for image in images] == [(122, 162, 3)] * 3
    np.testing.assert_allclose(times, [0, 0.04, 0.08], atol=0.001)


def test_a_video_that_is_gone_or_changed_costs_its_overlay_only(tmp_path: Path) -> None:
    good = empty_clip(tmp_path, moving_squares(8, 1), "good")
    gone = empty_clip(tmp_path, moving_squares(8, 1), "gone")
    changed = empty_clip(tmp_path, moving_squares(8, 1), "changed")
    short = empty_clip(tmp_path, moving_squares(8, 1), "short")
    write_run(tmp_path / "run", [good, gone, changed, short])
    Path(gone.uri).unlink()
    make_video(changed.uri, 8, size=(64, 48))
    make_video(short.uri, 5, size=(60, 40))
    names = [word for name in ("good", "gone", "changed", "short") for word in ("--overlay", name)]
    code, out, _ = review(tmp_path / "run", *names)
    assert code == 3
    assert len(list((tmp_path / "run" / "overlays").iterdir())) == 1
    assert re.search(r"left out overlay of 'gone': .*gone.mp4 does not exist", out)
    assert re.search(r"left out overlay of 'changed': .*64×48 pixels, its masks 60×40", out)
    assert re.search(r"left out overlay of 'short': it ends before frame 5, but has masks up to frame 7", out)
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("Masks shown on grey:") == 3
    assert review(tmp_path / "run", "--overlay", "gone", "--no-report")[0] == 1


def test_an_unknown_video_and_nothing_to_do_are_refused(tmp_path: Path) -> None:
    run, _ = disc_run(tmp_path)
    code, _, err = review(run, "--overlay", "other")
    assert code == 1
    assert "no finished video 'other'" in err
    code, _, err = review(run, "--no-report")
    assert code == 2
    assert "--overlay" in err
    code, _, err = review(run, "--serve", "--overlay", "clip")
    assert code == 2
    assert "--serve" in err


# ---- the report


@pytest.mark.long
def test_the_report_of_a_run(tmp_path: Path) -> None:
    run, _ = disc_run(tmp_path, frames=30)
    code, out, _ = review(run, "--key-frames", "4", "--json")
    assert code == 0
    reviewed = json.loads(out)
    assert reviewed["event"] == "summary"
    assert (reviewed["videos"], reviewed["pages"], reviewed["pictures"]) == (1, 1, 4)
    page = (run / "report.html").read_text()
    assert len(page.encode()) == reviewed["bytes"]
    assert page.count("data:image/webp;base64,") == 4
    found = video_statistics(read_masks(str(run)).video("clip")).statistics
    assert f">{found.rows}<" in page.replace("Of ", ">").replace(" rows", "<")
    assert f'<td class="n">{found.mean_score:.2f}</td>' in page


def test_numbers_are_those_of_the_masks(tmp_path: Path) -> None:
    run, video = disc_run(tmp_path, frames=1500, size=(48, 32))  # more than a row group
    masks = read_masks(str(run)).video("clip")
    tracks = list(read_tracks(masks))
    assert [track.target.object_id for track in tracks] == [1, 2]
    for track in tracks:
        first = video.first.get(track.target.object_id, 0)
        areas = [video.truth(track.target.object_id, frame).sum() for frame in range(first, 1500)]
        np.testing.assert_array_equal(track.areas, areas)
        np.testing.assert_array_equal(track.frames, np.arange(first, 1500))
        assert np.isnan(track.scores[0])
        np.testing.assert_allclose(track.scores[1:], [frame % 10 / 10 for frame in range(first + 1, 1500)], atol=1e-6)
    assert sum(track.statistics.rows for track in tracks) == video_statistics(masks).statistics.rows


def test_a_run_without_anything_finished(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    code, _, err = review(run)
    assert code == 1
    assert "is not a run" in err
    assert not (run / "report.html").exists()
    (run / "run.json").write_text(json.dumps({"format": 1, "results": {"weights": "abc"}, "environment": {}}))
    code, out, _ = review(run)
    assert code == 0
    assert "0 videos" in out
    assert "No video of this run is finished yet." in (run / "report.html").read_text()


def test_a_run_with_failures_only(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "failed").mkdir()
    (run / "run.json").write_text(json.dumps({"format": 1, "results": {}, "environment": {}}))
    attempt = {"error": "VideoError", "message": "<b>a.mp4</b> is empty", "kind": "permanent"}
    for name in ("a-1", "b-2"):
        content = {"video_id": name[0], "uri": "s3://user:secret@clips/a.mp4?key=secret", "attempts": [attempt] * 2}
        (run / "failed" / f"{name}.json").write_text(json.dumps(content))
    (run / "failed" / "c-3.json").write_text("rubbish")
    assert review(run)[0] == 0
    page = (run / "report.html").read_text()
    assert "No video of this run is finished; the failures above say why." in page
    assert page.count("&lt;b&gt;a.mp4&lt;/b&gt; is empty") >= 2
    assert "<b>a.mp4" not in page
    assert "secret" not in page
    assert "is not JSON" in page


def test_a_failure_that_got_done_later_is_none(tmp_path: Path) -> None:
    run, _ = disc_run(tmp_path)
    key = next((run / "masks").iterdir()).stem
    (run / "failed").mkdir()
    (run / "failed" / f"{key}.json").write_text(json.dumps({"video_id": "clip", "attempts": []}))
    assert review(run, "--key-frames", "0")[0] == 0
    assert "Failures</h2>" not in (run / "report.html").read_text()


def test_three_hundred_objects_and_empty_masks(tmp_path: Path) -> None:
    masks = np.zeros((6, 300, 40, 60), bool)
    masks[:4, :, 5:9, 7:11] = True
    crowd = empty_clip(tmp_path, masks, "crowd")
    nothing = empty_clip(tmp_path, np.zeros((5, 1, 40, 60), bool), "nothing")
    write_run(tmp_path / "run", [crowd, nothing])
    reviewed = review_run(str(tmp_path / "run"), overlays=["crowd", "nothing"])
    assert not reviewed.left_out
    assert [len(decoded(Path(path))[0]) for path in reviewed.overlays] == [6, 5]
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count('<article class="panel"') == 24 + 1
    assert "The 24 of 300 that are worst off." in page
    assert reviewed.bytes < 1_000_000


def test_the_videos_that_most_ask_for_a_look_come_first_and_the_size_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = []
    for number in range(8):
        masks = np.ones((10, 1, 40, 60), bool)
        masks[10 - number :] = False  # lost for so many frames
        videos.append(empty_clip(tmp_path, masks, f"v{number}"))
    write_run(tmp_path / "run", videos)

    def links(reviewed: Reviewed) -> Sequence[str]:
        assert reviewed.report is not None
        return re.findall(r'<th scope="row" class="id"><[^>]*>(v\d)', Path(reviewed.report).read_text())

    reviewed = review_run(str(tmp_path / "run"), pages=3, key_frames=2)
    page = (tmp_path / "run" / "report.html").read_text()
    assert links(reviewed) == [f"v{number}" for number in range(7, -1, -1)]
    assert (reviewed.videos, reviewed.pages, reviewed.pictures) == (8, 3, 6)
    assert re.findall(r'<a href="#v(\d)" title="v\d">v(\d)</a>', page) == [("1", "7"), ("2", "6"), ("3", "5")]

    monkeypatch.setattr(report, "ROWS_SHOWN", 4)
    monkeypatch.setattr(report, "PICTURE_BUDGET", 1)
    reviewed = review_run(str(tmp_path / "run"), key_frames=2)
    page = (tmp_path / "run" / "report.html").read_text()
    assert links(reviewed) == ["v7", "v6", "v5", "v4"]
    assert "Listed are 4 of 8" in page
    assert reviewed.pictures == 2
    assert page.count("have used up the report") == 3


@pytest.mark.long
def test_without_key_frames_no_video_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = disc_run(tmp_path)
    monkeypatch.setattr("rts_batch.runs.sources.open_video", None)
    code, out, _ = review(run, "--key-frames", "0")
    assert code == 0
    assert "0 key frames" in out
    assert review(run, "--videos", "0")[0] == 0


def test_a_relative_path_belongs_to_the_manifest_of_the_run(tmp_path: Path) -> None:
    masks = make_video(tmp_path / "clip.mp4", 8)
    write_run(tmp_path / "run", [Video("clip", "clip.mp4", masks.astype(bool), {1: None})])
    assert review(tmp_path / "run", "--overlay", "clip")[0] == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Masks shown on grey" not in page
    assert f"{tmp_path}/clip.mp4" in page


def test_a_compacted_folder_and_a_bucket(tmp_path: Path) -> None:
    run, _ = disc_run(tmp_path)
    compact(str(run), str(tmp_path / "compacted"))
    reviewed = review_run(str(tmp_path / "compacted"), overlays=["clip"])
    assert (reviewed.pictures, len(reviewed.overlays)) == (4, 1)
    assert "Masks shown on grey" not in (tmp_path / "compacted" / "report.html").read_text()

    memory = fsspec.filesystem("memory")
    memory.put(f"{run}/", "/reviewed/run/", recursive=True)
    memory.put_file(str(tmp_path / "clip.mp4"), "/reviewed/clip.mp4")
    (run / "manifest.parquet").unlink()
    reviewed = review_run("memory://reviewed/run", overlays=["clip"])
    assert reviewed.report == "memory://reviewed/run/report.html"
    assert memory.exists("/reviewed/run/report.html")
    assert memory.exists(f"/reviewed/run/{reviewed.overlays[0].split('/run/')[1]}")


def test_a_damaged_mask_is_named_on_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = disc_run(tmp_path)

    def damaged(*_: object) -> None:
        raise ResultsError("the RLE is empty")

    monkeypatch.setattr("rts_batch.io.results.schema.decode_rle", damaged)
    assert review(run)[0] == 0
    assert "object 1, frame 0: the RLE is empty" in (run / "report.html").read_text()


def test_a_damaged_file_costs_its_row_and_not_the_report(tmp_path: Path) -> None:
    names = ("good", "rewritten", "cut", "twice")
    tasks = write_run(tmp_path / "run", [empty_clip(tmp_path, moving_squares(12, 2), name) for name in names])
    paths = {name: tmp_path / "run" / "masks" / f"{tasks[name].key}.parquet" for name in names}
    table = pq.read_table(paths["rewritten"])
    pq.write_table(table.filter(pc.not_equal(table["frame"], 5)), paths["rewritten"])
    table = pq.read_table(paths["twice"])
    pq.write_table(pa.concat_tables([table.slice(0, 1), table]), paths["twice"])
    paths["cut"].write_bytes(paths["cut"].read_bytes()[:-20])
    code, out, _ = review(tmp_path / "run", "--key-frames", "0")
    assert code == 3
    assert "1 video, 1 with a page" in out
    for name in ("rewritten", "twice"):
        assert f"left out {paths[name]}: the rows of object 1 are not one for each frame" in out
    assert f"left out {paths['cut']}" in out
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<dt>Damaged</dt><dd>3</dd>" in page
    assert "<dt>Not done yet</dt><dd>0</dd>" in page
    assert str(paths["cut"]) in page


def test_a_damaged_file_costs_no_other_video_its_overlay(tmp_path: Path) -> None:
    write_run(tmp_path / "run", [empty_clip(tmp_path, moving_squares(4, 1), name) for name in ("bad", "good")])
    (path,) = (tmp_path / "run" / "masks").glob("bad-*")
    path.write_bytes(path.read_bytes()[:-20])
    code, out, _ = review(tmp_path / "run", "--overlay", "good", "--no-report")
    assert (code, out.startswith("overlay  "), out.count("\n")) == (0, True, 1)
    code, out, _ = review(tmp_path / "run", "--overlay", "good")
    assert (code, f"left out {path}" in out) == (3, True)
    with pytest.raises(ResultsError, match=r"bad-.*parquet is not a masks file"):
        read_masks(str(tmp_path / "run")).video("bad")


def annotated_run(tmp_path: Path, frames: dict[int, Sequence[int]], absent: Sequence[int] = ()) -> Path:
    """A run with a video whose targets have rows on these frames only, of 4 pixels on each, and a tracked one.

    A person has said of further frames that they are absent.
    """
    tasks = write_run(tmp_path / "run", [empty_clip(tmp_path, moving_squares(60, 1), name) for name in ("ann", "trk")])
    path = tmp_path / "run" / "masks" / f"{tasks['ann'].key}.parquet"
    about = {"video_id": "ann", "key": tasks["ann"].key, "direction": "forward"}
    mask = np.zeros((40, 60), bool)
    mask[:2, :2] = True
    with ResultsWriter(path, targets={key: {} for key in frames}, task=about, weights="w", covers="prompts") as writer:
        for object_id, ones in frames.items():
            for frame in sorted([*ones, *absent]):
                shown, state = (mask & False, "lost") if frame in absent else (mask, "prompt")
                writer.add(row_of(shown, frame, state, video_id="ann", object_id=object_id))
        writer.close(frames=60, fps=25.0)
    return tmp_path / "run"


def test_a_video_whose_frames_are_annotated_one_by_one_is_reported_with_its_gaps(tmp_path: Path) -> None:
    run = annotated_run(tmp_path, {1: (0, 1, 2, 30, 59), 2: (20, 59)})
    video = read_masks(str(run)).video("ann")
    row = make_row(video)
    assert (row.frames, row.statistics.rows, row.lowest_mark) == (60, 7, None)
    assert row.area_line.count("M") == 4, "0 to 2, 20, 30 and 59, with nothing between"
    one, two = read_tracks(video)
    chosen = KeyFrames(6, several=True)
    for found in (one, two):
        chosen.add(found)
    assert {frame.index for frame in chosen.choose()} == {0, 20, 30, 59}, "frames that have masks"
    code, out, _ = review(run)
    assert (code, "2 videos, 2 with a page" in out) == (0, True)
    page = (run / "report.html").read_text()
    stretches = re.findall(r"</span>prompt ([\d–]+)</li>", page)
    assert [one for one in stretches if one != "0"] == ["0–2", "30", "59", "20", "59"]


def test_annotated_frames_without_the_target_are_no_damage(tmp_path: Path) -> None:
    run = annotated_run(tmp_path, {1: (0, 30)}, absent=(10, 59))
    row = make_row(read_masks(str(run)).video("ann"))
    assert (row.frames, row.statistics.states["lost"]) == (60, 2)
    assert (row.shares.tracked, row.shares.lost, row.concern[0]) == (1, 0, 0), "a person has said so: none is doubted"
    code, out, _ = review(run)
    assert (code, "2 videos, 2 with a page" in out) == (0, True)


def test_a_wild_frame_number_takes_no_memory(tmp_path: Path) -> None:
    row = make_row(read_masks(str(annotated_run(tmp_path, {1: (0, 2**31 - 2)}))).video("ann"))
    assert row.frames == 2**31 - 1


def test_hostile_names_stay_text_and_stay_in_the_folder(tmp_path: Path) -> None:
    run, _ = disc_run(tmp_path)
    (path,) = (run / "masks").iterdir()
    table = pq.read_table(path)
    about = {**table.schema.metadata}
    task = json.loads(about[b"rts_batch.task"])
    about[b"rts_batch.task"] = json.dumps(task | {"key": "../../escaped", "video_id": "</style><script>x"}).encode()
    pq.write_table(table.replace_schema_metadata(about), path)
    manifest = pq.read_table(run / "manifest.parquet")
    place = manifest.schema.get_field_index("video_id")
    hostile = pa.array(["</style><script>x"] * len(manifest), manifest.schema.field(place).type)
    pq.write_table(manifest.set_column(place, manifest.schema.field(place), hostile), run / "manifest.parquet")
    review_run(str(run), str(tmp_path / "out" / "deep"), overlays=["</style><script>x"])
    written = [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sorted(path.parts[:-1] for path in written) == [("deep",), ("deep", "overlays")]
    page = (tmp_path / "out" / "deep" / "report.html").read_text()
    assert page.count("<script>") == page.count("</script>") == page.count("</style>") == 1


# ---- key frames and lines


def track(
    states: Sequence[str],
    areas: Sequence[int],
    scores: Sequence[float],
    object_id: int = 1,
    qualities: Sequence[float] | None = None,
) -> Track:
    return Track(
        Target(object_id, None, 0, 0, len(states)),
        Statistics(rows=len(states)),
        np.arange(len(states), dtype=np.int32),
        np.array(areas, np.int32),
        np.array(scores, np.float32),
        np.full(len(states), np.nan, np.float32) if qualities is None else np.array(qualities, np.float32),
        np.array([STATES.index(state) for state in states], np.int8),  # type: ignore[arg-type]
    )


def test_key_frames_are_where_it_matters() -> None:
    states = ["prompt"] + ["tracked"] * 19 + ["lost"] * 10 + ["tracked"] * 30
    areas = [100] * 20 + [0] * 10 + [100] * 15 + [300] * 15
    scores = [np.nan] + [0.9] * 34 + [0.31] + [0.9] * 24
    chosen = KeyFrames(6, several=False)
    chosen.add(track(states, areas, scores))
    assert [(frame.index, frame.reasons) for frame in chosen.choose()] == [
        (0, ["first"]),
        (20, ["lost for 10 frames"]),
        (30, ["found again after 10 frames"]),
        (35, ["low score 0.31"]),
        (45, ["area × 3.00"]),
        (59, ["last"]),
    ]


def test_where_there_is_a_quality_it_and_its_drops_choose_the_key_frames() -> None:
    qualities = [np.nan] + [0.9] * 19 + [0.5] * 20 + [0.41] + [0.9] * 19
    chosen = KeyFrames(5, several=False)
    # The score is lowest where nothing is wrong.
    chosen.add(
        track(["prompt"] + ["tracked"] * 59, [100] * 60, [np.nan] + [0.9] * 49 + [0.1] * 10, qualities=qualities)
    )
    found = {frame.index: frame.reasons for frame in chosen.choose()}
    assert found[40] == ["low quality 0.41"]
    assert "quality falls to 0.50" in found[20]
    assert not any("score" in reason for reasons in found.values() for reason in reasons)


def test_a_reason_says_which_of_several_targets_it_is_about() -> None:
    chosen = KeyFrames(5, several=True)
    chosen.add(track(["prompt"] + ["tracked"] * 39, [10] * 40, [np.nan] + [0.8] * 39, 4))
    chosen.add(track(["prompt"] + ["tracked"] * 29 + ["lost"] * 10, [10] * 30 + [0] * 10, [np.nan] + [0.7] * 39, 9))
    assert (30, ["object 9: lost for 10 frames"]) in [(frame.index, frame.reasons) for frame in chosen.choose()]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9),
    st.lists(st.tuples(st.sampled_from(STATES), st.integers(0, 3), st.floats(0, 1) | st.none()), min_size=1),
)
def test_key_frames_are_few_apart_and_in_order(count: int, rows: list[tuple[str, int, float | None]]) -> None:
    states, areas, scores = zip(*rows, strict=True)
    chosen = KeyFrames(count, several=False)
    chosen.add(track(states, areas, [np.nan if score is None else score for score in scores]))
    frames = chosen.choose()
    indices = [frame.index for frame in frames]
    assert 1 <= len(frames) <= count
    assert indices[0] == 0
    assert indices == sorted(indices)
    assert all(after - before > APART for before, after in itertools.pairwise(indices))
    assert max(indices) < len(rows)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1) | st.just(np.nan), min_size=1, max_size=200), st.integers(1, 50))
def test_a_line_keeps_the_lowest_value_and_stays_in_its_box(values: list[float], points: int) -> None:
    few = shrink(np.arange(7, 7 + len(values)), np.array(values), points, np.fmin)
    assert len(few) == min(points, len(values))
    assert np.nanmin([*few, 2]) == np.nanmin([*values, 2])
    path = draw_line(few, top=1.0, width=120, height=26)
    numbers = [float(text) for text in re.findall(r"[ML]([\d.e+-]+) ", path)]
    heights = [float(text) for text in re.findall(r"[ML][\d.e+-]+ ([\d.e+-]+)", path)]
    assert len(numbers) == int((~np.isnan(few)).sum())
    assert all(0 <= x <= 120 for x in numbers)
    assert all(1 <= y <= 25 for y in heights)


def test_the_templates_are_in_the_package() -> None:
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text()
    assert '"review/templates/*"' in text
