"""Corrections beside a run: saved by several at once, edited by hand, and put into its manifest."""

from __future__ import annotations

import json
import threading
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rts_batch.errors import ManifestError, RunBusyError, RunFolderError, StaleError
from rts_batch.io.storage import files
from rts_batch.manifest import Manifest, read_manifest
from rts_batch.masks import encode_rle
from rts_batch.runs.corrections import CorrectionsBook, merged_manifest
from rts_batch.runs.lease import Lease
from rts_batch.runs.rows_file import Row, write_rows


def rle(value: int = 1) -> str:
    mask = np.zeros((8, 10), bool)
    mask[2:5, 1 : 2 + value] = True
    return json.dumps({"size": [8, 10], "counts": encode_rle(mask).decode()}, separators=(",", ":"))


def correction(video_id: str = "a", frame: int | None = 5, **others: Any) -> Row:
    return {"video": "clips/a.mp4", "video_id": video_id, "object_id": 1, "frame": frame, "mask": rle(), **others}


def begin(tmp_path: Path, text: str, where: str = "local") -> CorrectionsBook:
    """A run's folder with this manifest in it."""
    uri = str(tmp_path / "run") if where == "local" else f"memory://{uuid.uuid4().hex}/run"
    (tmp_path / "manifest.csv").write_text(text)
    book = CorrectionsBook(uri)
    files.put_bytes(book.paths.manifest, read_manifest(str(tmp_path / "manifest.csv")).to_parquet())
    return book


def merged(book: CorrectionsBook) -> Manifest:
    with merged_manifest(book.paths.uri) as path:
        return read_manifest(path)


PLAIN = 'video,video_id,box\nclips/a.mp4,a,"1,2,3,4"\nclips/b.mp4,b,"1,2,3,4"\n'


@pytest.mark.parametrize("where", ["local", "memory"])
def test_what_is_saved_is_read_and_is_a_manifest(tmp_path: Path, where: str) -> None:
    book = begin(tmp_path, PLAIN, where)
    assert book.read().rows == ()
    saved = book.save(book.read().version, [correction(), correction("b", 2, category="dog")])
    assert saved == book.read()
    assert [(row["video_id"], row["frame"]) for row in saved.rows] == [("a", 5), ("b", 2)]
    (tmp_path / "copy.csv").write_bytes(files.read_bytes(book.paths.corrections))
    assert len(read_manifest(str(tmp_path / "copy.csv")).tasks) == 2


def test_a_mask_image_that_is_said_again_is_the_same_file(tmp_path: Path) -> None:
    book = begin(tmp_path, "video,video_id,mask\nclips/a.mp4,a,masks/a.png\n")
    (row,) = book.rows_of("a")
    book.save(book.read().version, [{**row, "category": "dog"}])
    (task,) = merged(book).tasks
    assert task.targets[0].category == "dog"
    assert task.targets[0].prompts[0].mask_uri == str(tmp_path / "masks" / "a.png"), "not one beside the corrections"


def test_the_second_of_two_saves_is_refused_and_then_nothing_is_lost(tmp_path: Path) -> None:
    book, other = begin(tmp_path, PLAIN), CorrectionsBook(str(tmp_path / "run"))
    version = book.read().version
    book.save(version, [correction(frame=3)])
    with pytest.raises(StaleError, match="changed meanwhile"):
        other.save(version, [correction(frame=4)])
    assert [row["frame"] for row in other.read().rows] == [3]
    other.save(other.read().version, [correction(frame=4)])
    assert [row["frame"] for row in book.read().rows] == [3, 4]


def test_of_many_that_save_at_once_each_is_kept_or_told(tmp_path: Path) -> None:
    begin(tmp_path, PLAIN)
    done: list[int] = []

    def save(frame: int) -> None:
        book = CorrectionsBook(str(tmp_path / "run"))
        while True:
            try:
                book.save(book.read().version, [correction(frame=frame)])
            except StaleError:
                continue
            done.append(frame)
            return

    threads = [threading.Thread(target=save, args=(frame,)) for frame in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row["frame"] for row in CorrectionsBook(str(tmp_path / "run")).read().rows] == sorted(done)
    assert len(done) == 8


def test_a_run_that_is_being_written_to_takes_no_corrections(tmp_path: Path) -> None:
    book = begin(tmp_path, PLAIN)
    with Lease(book.paths.lease), pytest.raises(RunBusyError, match="at work on the run"):
        book.save(book.read().version, [correction()])
    book.save(book.read().version, [correction()])


def test_a_correction_is_replaced_and_taken_away(tmp_path: Path) -> None:
    book = begin(tmp_path, PLAIN)
    version = book.save("none", [correction(), correction(frame=6)]).version
    (first, second) = book.save(version, [correction(mask=rle(4))]).rows
    assert (first["mask"], second["mask"]) == (rle(4), rle())
    left = book.save(book.read().version, [], [("a", 1, 5, None)])
    assert [row["frame"] for row in left.rows] == [6]
    assert book.save(left.version, [], [("a", 1, 6, None)]).rows == ()
    assert not files.exists(book.paths.corrections)


def test_the_merged_manifest_has_both_and_leaves_the_others_alone(tmp_path: Path) -> None:
    book = begin(tmp_path, PLAIN)
    before = {task.video_id: task for task in read_manifest(book.paths.manifest).tasks}
    book.save("none", [correction(), correction(frame=7, object_id=2, category="dog")])
    after = {task.video_id: task for task in merged(book).tasks}
    assert after["b"] == before["b"]
    assert after["a"].key != before["a"].key
    assert after["a"].uri == before["a"].uri == str(tmp_path / "clips/a.mp4")
    first, second = after["a"].targets
    assert [prompt.frame for prompt in first.prompts] == [0, 5]
    assert (second.prompts[0].frame, second.category) == (7, "dog")


def test_merging_once_more_changes_nothing(tmp_path: Path) -> None:
    book = begin(tmp_path, PLAIN)
    book.save("none", [correction(frame=0, category="cat"), correction(frame=5)])
    once = merged(book)
    assert [prompt.frame for prompt in once.tasks[-1].targets[0].prompts] == [0, 5], "that of frame 0 is replaced"
    assert len(book.pending()) == 2
    files.put_bytes(book.paths.manifest, once.to_parquet())
    assert {task.key for task in merged(book).tasks} == {task.key for task in once.tasks}
    assert book.pending() == []


def test_corrected_videos_can_become_bidirectional_and_the_others_stay(tmp_path: Path) -> None:
    book = begin(tmp_path, PLAIN)
    before = {task.video_id: task for task in read_manifest(book.paths.manifest).tasks}
    book.save("none", [correction(frame=5)])
    with merged_manifest(book.paths.uri, direction="bidirectional") as path:
        once = read_manifest(path)
    after = {task.video_id: task for task in once.tasks}
    assert (after["a"].direction, after["b"]) == ("bidirectional", before["b"])
    files.put_bytes(book.paths.manifest, once.to_parquet())
    assert {task.key for task in merged(book).tasks} == {task.key for task in once.tasks}, "and stay so"


def test_where_nothing_is_tracked_the_direction_stays_too(tmp_path: Path) -> None:
    book = begin(tmp_path, 'video,video_id,frame,box,prompt_kind\na.mp4,a,2,"1,2,3,4",annotate\n')
    book.save("none", [correction(frame=5)])
    with merged_manifest(book.paths.uri, direction="bidirectional") as path:
        (task,) = read_manifest(path).tasks
    assert (task.direction, len(task.targets[0].prompts)) == ("forward", 2)


def test_carried_columns_ranges_and_kinds_are_those_of_the_run(tmp_path: Path) -> None:
    text = (
        "video,video_id,object_id,frame,box,start,end,direction,prompt_kind,category,site\n"
        'a.mp4,a,1,4,"1,2,3,4",2,9,both,,cat,north\n'
        "b.mp4,b,1,0,,,,,absent,,south\n"
        'b.mp4,b,1,2,"1,2,3,4",,,,annotate,,south\n'
    )
    book = begin(tmp_path, text)
    book.save("none", [correction(), correction(frame=3, object_id=2), correction("b", 6)])
    a, b = merged(book).tasks
    assert (a.start, a.end, a.direction) == (2, 9, "both")
    assert (a.targets[0].category, dict(a.targets[0].extras)) == ("cat", {"site": "north"})
    assert dict(a.targets[1].extras) == {"site": None}
    assert [prompt.kind for prompt in b.targets[0].prompts] == ["absent", "annotate", "annotate"]


def test_another_category_goes_for_all_rows_of_the_target(tmp_path: Path) -> None:
    text = 'video,video_id,object_id,frame,box,category\na.mp4,a,1,0,"1,2,3,4",cat\na.mp4,a,1,3,"1,2,3,4",cat\n'
    book = begin(tmp_path, text)
    book.save("none", [correction()])
    assert merged(book).tasks[0].targets[0].category == "cat"
    book.save(book.read().version, [correction(frame=6, category="dog")])
    assert [row["category"] for row in book.read().rows] == ["dog", "dog"]
    assert merged(book).tasks[0].targets[0].category == "dog"


def test_a_prompt_given_by_its_time_is_replaced_by_one_of_that_time(tmp_path: Path) -> None:
    book = begin(tmp_path, 'video,video_id,time,box\na.mp4,a,0.5,"1,2,3,4"\n')
    book.save("none", [correction(frame=None, time=0.5)])
    (prompt,) = merged(book).tasks[0].targets[0].prompts
    assert (prompt.time, prompt.box) == (0.5, None)


def test_rows_that_people_write(tmp_path: Path) -> None:
    book = begin(tmp_path, PLAIN)
    (tmp_path / "run" / "corrections.csv").write_text(
        'video,video_id,frame,box,mask,who\nx.mp4,a,3,"2,2,4,4",,me\nx.mp4,a,4,,mask.png,me\n'
    )
    (target,) = merged(book).tasks[1].targets
    assert target.prompts[1].box == (2, 2, 4, 4)
    assert target.prompts[2].mask_uri == str(tmp_path / "run" / "mask.png"), "beside the corrections"
    book.save(book.read().version, [correction()])
    assert [row.get("who") for row in book.read().rows] == ["me", "me", None]


def test_corrections_may_only_say_that_targets_are_absent(tmp_path: Path) -> None:
    """Such a file was refused as one that marks no target."""
    book = begin(tmp_path, PLAIN)
    path = tmp_path / "run" / "corrections.csv"
    path.write_text("video,video_id,frame,prompt_kind\nx.mp4,a,3,absent\n")
    (target,) = merged(book).tasks[1].targets
    assert (target.prompts[1].frame, target.prompts[1].kind) == (3, "absent")
    path.write_text("video,video_id,frame,prompt_kind\nx.mp4,a,3,absent\nx.mp4,a,4,correct\n")
    with pytest.raises(ManifestError, match="no target is marked; fill box"):
        merged(book)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,video_id,frame,box\na.mp4,a,x,\n", "column frame: 'x'"),
        ('video,video_id,frame,box\na.mp4,zebra,1,"1,2,3,4"\n', "the run has no video 'zebra'"),
    ],
)
def test_corrections_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    book = begin(tmp_path, PLAIN)
    (tmp_path / "run" / "corrections.csv").write_text(text)
    with pytest.raises(ManifestError, match=message):
        merged(book)


def test_corrections_that_do_not_fit_the_run_are_named_by_target_and_frame(tmp_path: Path) -> None:
    """Rows of the two together have numbers that nobody sees."""
    book = begin(tmp_path, PLAIN)
    path = tmp_path / "run" / "corrections.csv"
    path.write_text("video,video_id,object_id,frame,prompt_kind\nx.mp4,a,2,7,absent\n")
    with pytest.raises(ManifestError) as raised:
        merged(book)
    assert str(raised.value).startswith(f"{path} does not go together with the run's own manifest")
    (problem,) = raised.value.problems
    assert problem.startswith("video a, object 2, frame 7: object 2 is only said to be absent")
    with pytest.raises(ManifestError) as raised, merged_manifest(book.paths.uri) as given:
        raise ManifestError(f"{given}: 1 of 3 rows cannot be used", ["row 1, column category: 'row 99'"])
    assert raised.value.problems == ("video b, object 1, frame 0, column category: 'row 99'",)


def test_an_error_of_another_manifest_stays_its_own(tmp_path: Path) -> None:
    book = begin(tmp_path, PLAIN)
    book.save(book.read().version, [correction()])
    with pytest.raises(ManifestError, match=r"^other\.csv: 1 of 2 rows") as raised, merged_manifest(book.paths.uri):
        raise ManifestError("other.csv: 1 of 2 rows cannot be used", ["row 1: no target is marked"])
    assert raised.value.problems == ("row 1: no target is marked",)


def test_nothing_to_merge(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="has no corrections"):
        merged(begin(tmp_path, PLAIN))
    book = CorrectionsBook(str(tmp_path / "nothing"))
    with pytest.raises(RunFolderError, match="has no manifest"):
        book.recorded()


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    book = begin(tmp_path, PLAIN)
    book.save(book.read().version, [correction()])
    files.put_bytes(book.paths.manifest, files.read_bytes(book.paths.manifest)[:99])
    with pytest.raises(RunFolderError, match=r"manifest\.parquet is damaged .* submit the run's manifest again"):
        merged(book)


def test_a_name_that_begins_with_a_hash_stays_a_row() -> None:
    rows = [{"video": "#1.mp4", "video_id": "#1.mp4", "object_id": 1, "frame": 0, "mask": rle()}]
    assert write_rows(rows).splitlines()[1].startswith(b'"#1.mp4"')


def test_a_name_in_the_corrections_is_the_target_that_has_it_in_the_run(tmp_path: Path) -> None:
    book = begin(tmp_path, 'video,video_id,object_id,box\nc.mp4,a,rider,"1,2,3,4"\nc.mp4,a,horse,"1,2,5,4"\n')
    rows = 'video,video_id,object_id,frame,box\nc.mp4,a,rider,5,"1,2,4,4"\nc.mp4,a,cart,6,"1,2,6,4"\n'
    files.put_bytes(book.paths.corrections, rows.encode())
    (task,) = merged(book).tasks
    found = [(t.object_id, t.extras["object_name"], [p.frame for p in t.prompts]) for t in task.targets]
    assert found == [(1, "horse", [0]), (2, "rider", [0, 5]), (3, "cart", [6])]
    with merged_manifest(book.paths.uri) as path:
        files.put_bytes(book.paths.manifest, files.read_bytes(path))
    assert not book.pending()

    (tmp_path / "other").mkdir()
    numbered = begin(tmp_path / "other", PLAIN)
    files.put_bytes(numbered.paths.corrections, rows.encode())
    with pytest.raises(ManifestError, match="have numbers and no names"):
        numbered.read()


def test_a_polygon_is_a_correction(tmp_path: Path) -> None:
    """Written by hand, saved again by the page, and put into the run's manifest."""
    book = begin(tmp_path, PLAIN)
    text = "video,video_id,object_id,frame,polygon\nclips/a.mp4,a,1,5,1 2 30 4 5 60\n"
    files.put_bytes(book.paths.corrections, text.encode())
    saved = book.save(book.read().version, [correction("b", 2)])
    assert book.pending() == [("a", 1, 5, None), ("b", 1, 2, None)]
    assert saved == book.read()
    prompts = merged(book).tasks[0].targets[0].prompts
    assert [(prompt.frame, prompt.polygons) for prompt in prompts] == [(0, None), (5, [[1, 2, 30, 4, 5, 60]])]
