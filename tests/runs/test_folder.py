"""The run's folder, on local disk and in an object store."""

from __future__ import annotations

import dataclasses
import json
import uuid
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rts_batch.cli.app import app
from rts_batch.errors import RunFolderError, RunMismatchError, StorageError, UsageError
from rts_batch.io.results.writer import ResultsWriter
from rts_batch.io.storage import files, uris
from rts_batch.manifest import Manifest, VideoTask, read_manifest
from rts_batch.runs.compaction import compact
from rts_batch.runs.folder import RunFolder
from rts_batch.runs.record import RunRecord
from rts_batch.runs.settings import RunSettings, Scope, Shard
from tests.support.manifests import write_many
from tests.support.run_folders import Video, moving_squares, row_of, write_run
from tests.support.running import STUB

RECORD = RunRecord(
    results={"weights": "abc", "tracker": {"rules": "code", "crop_size": (480, 832)}},
    environment={"threads_per_worker": 2, "versions": {"torch": "2.13"}},
)


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path / "run") if request.param == "local" else f"memory://{uuid.uuid4().hex}/run")


def manifest(tmp_path: Path, *names: str, box: str = "1,2,3,4") -> Manifest:
    path = tmp_path / "manifest.csv"
    path.write_text("video,box\n" + "".join(f'{name},"{box}"\n' for name in names))
    return read_manifest(str(path))


def finish(folder: RunFolder, task: VideoTask, tmp_path: Path) -> None:
    (tmp_path / "masks.parquet").write_bytes(b"masks of " + task.video_id.encode())
    folder.commit(task, tmp_path / "masks.parquet", {"frames": 3, "video_id": task.video_id})


# The folder
def test_what_is_left_shrinks_as_videos_are_committed(folder: RunFolder, tmp_path: Path) -> None:
    videos = manifest(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    plan = folder.prepare(videos, RECORD)
    assert (plan.left, plan.done, plan.warnings) == (videos.tasks, 0, ())
    finish(folder, videos.tasks[1], tmp_path)
    plan = RunFolder(folder.uri).prepare(videos, RECORD)
    assert (plan.left, plan.done) == ((videos.tasks[0], videos.tasks[2]), 1)
    assert json.loads(files.read_bytes(f"{folder.uri}/videos/{videos.tasks[1].key}.json"))["frames"] == 3


def test_the_manifest_may_grow_and_not_shrink(folder: RunFolder, tmp_path: Path) -> None:
    videos = manifest(tmp_path, "a.mp4", "b.mp4")
    folder.prepare(videos, RECORD)
    for task in videos.tasks:
        finish(folder, task, tmp_path)
    longer = manifest(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    assert [task.video_id for task in folder.prepare(longer, RECORD).left] == ["c.mp4"]
    with pytest.raises(RunMismatchError, match=r"masks of 1 video.*may only grow"):
        folder.prepare(manifest(tmp_path, "b.mp4"), RECORD)
    with pytest.raises(RunMismatchError, match="masks of 2 video"):
        folder.prepare(manifest(tmp_path, "a.mp4", "b.mp4", box="1,2,3,5"), RECORD)
    stored = read_manifest(f"{folder.uri}/manifest.parquet")
    assert [task.key for task in stored.tasks] == [task.key for task in longer.tasks]


def test_changed_rows_replace_results_only_when_asked(folder: RunFolder, tmp_path: Path) -> None:
    before = manifest(tmp_path, "a.mp4", "b.mp4")
    folder.prepare(before, RECORD)
    for task in before.tasks:
        (tmp_path / "masks.parquet").write_bytes(b"before")
        folder.commit(task, tmp_path / "masks.parquet", {"video_id": task.video_id})
    (tmp_path / "more.csv").write_text('video,box,frame\na.mp4,"1,2,3,4",0\na.mp4,"5,2,3,4",7\nb.mp4,"1,2,3,4",\n')
    after = read_manifest(str(tmp_path / "more.csv"))
    old, new = before.tasks[0].key, after.tasks[0].key
    with pytest.raises(RunMismatchError, match=r"Of 1 of them the rows have changed: --redo-changed tracks"):
        folder.prepare(after, RECORD)
    with pytest.raises(RunMismatchError, match="masks of 1 video") as refused:  # a video that is gone stays refused
        folder.look(manifest(tmp_path, "a.mp4"), RECORD, Scope(redo_changed=True))
    assert "redo-changed" not in str(refused.value)

    plan = folder.look(after, RECORD, Scope(redo_changed=True))
    assert ([task.key for task in plan.left], plan.done, plan.replaces) == ([new], 1, {new: (old,)})
    folder.prepare(after, RECORD, Scope(redo_changed=True))
    assert folder.done() == {task.key for task in before.tasks}, "the old masks stay until there are new ones"
    # Killed here: the same manifest goes on, without being asked again.
    assert folder.prepare(read_manifest(folder.paths.manifest), RECORD).replaces == {new: (old,)}
    finish(folder, after.tasks[0], tmp_path)
    assert len(folder.paths.outdated()) == 1, "both files are there, and only the new one counts"
    assert folder.done() == {new, before.tasks[1].key}
    # Killed here: the old ones go with the next submission.
    assert folder.prepare(after, RECORD).left == ()
    assert folder.done() == {new, before.tasks[1].key}
    assert not files.exists(folder.paths.report(old))
    files.put_bytes(folder.paths.report(old), b"{}")  # killed between the old masks' end and their report's
    folder.prepare(after, RECORD)
    assert sorted(folder.paths.reported()) == sorted(folder.done())
    assert folder.prepare(after, RECORD).replaces == {}


def changing(folder: RunFolder, tmp_path: Path) -> tuple[Manifest, Manifest, Manifest]:
    """A video that is done, whose rows are being changed, and a manifest with a second change."""
    first, second, third = (manifest(tmp_path, "a.mp4", box=f"1,2,3,{h}") for h in (4, 5, 6))
    folder.prepare(first, RECORD)
    finish(folder, first.tasks[0], tmp_path)
    folder.prepare(second, RECORD, Scope(redo_changed=True))
    return first, second, third


def test_masks_of_rows_that_have_changed_never_come_back(folder: RunFolder, tmp_path: Path) -> None:
    first, second, third = changing(folder, tmp_path)
    finish(folder, second.tasks[0], tmp_path)
    folder.prepare(second, RECORD)
    with pytest.raises(RunMismatchError, match=r"the rows of video a\.mp4 have changed since"):
        finish(folder, first.tasks[0], tmp_path)
    folder.prepare(third, RECORD, Scope(redo_changed=True))
    finish(folder, third.tasks[0], tmp_path)
    folder.prepare(third, RECORD)
    for late in (first, second):
        with pytest.raises(RunMismatchError, match="have changed since"):
            finish(folder, late.tasks[0], tmp_path)
    assert folder.done() == {third.tasks[0].key}


def test_rows_may_be_changed_back(folder: RunFolder, tmp_path: Path) -> None:
    first, second, _ = changing(folder, tmp_path)
    assert folder.prepare(first, RECORD).left == (), "nothing was done yet"
    with pytest.raises(RunMismatchError, match="have changed since"):
        finish(folder, second.tasks[0], tmp_path)
    folder.prepare(second, RECORD, Scope(redo_changed=True))
    finish(folder, second.tasks[0], tmp_path)
    folder.prepare(second, RECORD)
    plan = folder.prepare(first, RECORD, Scope(redo_changed=True))
    assert [task.key for task in plan.left] == [first.tasks[0].key]
    finish(folder, first.tasks[0], tmp_path)
    folder.prepare(first, RECORD)
    assert folder.done() == {first.tasks[0].key}


def test_masks_that_were_replaced_do_not_count_again_where_rows_change_once_more(
    folder: RunFolder, tmp_path: Path
) -> None:
    first, second, third = changing(folder, tmp_path)
    finish(folder, second.tasks[0], tmp_path)
    # Killed here, between the new masks and the old ones' end.
    assert folder.done() == {second.tasks[0].key}
    assert files.exists(folder.paths.masks_file(first.tasks[0].key))
    plan = folder.prepare(third, RECORD, Scope(redo_changed=True))
    assert folder.done() == {second.tasks[0].key}, "readers would meet the video's rows twice"
    finish(folder, third.tasks[0], tmp_path)
    folder.drop(plan.replaces[third.tasks[0].key])
    assert files.list_names(folder.paths.masks) == [f"{third.tasks[0].key}.parquet"]


def test_masks_of_rows_that_changed_before_they_were_done_come_too_late(folder: RunFolder, tmp_path: Path) -> None:
    first, second, third = (manifest(tmp_path, "a.mp4", box=f"1,2,3,{h}") for h in (4, 5, 6))
    folder.prepare(first, RECORD)
    folder.prepare(second, RECORD)  # allowed without an option: nothing is done
    folder.prepare(third, RECORD)
    finish(folder, third.tasks[0], tmp_path)
    for late in (first, second):
        with pytest.raises(RunMismatchError, match="have changed since"):
            finish(folder, late.tasks[0], tmp_path)
    assert folder.prepare(third, RECORD).left == ()
    assert folder.done() == {third.tasks[0].key}


def test_masks_of_a_video_that_went_from_the_manifest_come_too_late(folder: RunFolder, tmp_path: Path) -> None:
    both, one = manifest(tmp_path, "a.mp4", "b.mp4"), manifest(tmp_path, "a.mp4")
    folder.prepare(both, RECORD)
    folder.prepare(one, RECORD)
    with pytest.raises(RunMismatchError, match="have changed since"):
        finish(folder, both.tasks[1], tmp_path)
    folder.prepare(both, RECORD)  # it is back
    finish(folder, both.tasks[1], tmp_path)
    assert folder.done() == {both.tasks[1].key}
    assert folder.paths.replaced_by() == {}


def test_a_submission_killed_as_it_notes_a_change_is_resumed(folder: RunFolder, tmp_path: Path) -> None:
    first, second = (manifest(tmp_path, "a.mp4", box=f"1,2,3,{h}") for h in (4, 5))
    folder.prepare(first, RECORD)
    finish(folder, first.tasks[0], tmp_path)
    replaces = folder.look(second, RECORD, Scope(redo_changed=True)).replaces
    folder._note_replaced(replaces, second, second.to_parquet())  # and no further
    assert folder.prepare(read_manifest(folder.paths.manifest), RECORD).left == ()
    assert folder.paths.replaced_by() == {second.tasks[0].key: first.tasks[0].key}


def test_a_folder_that_was_moved_takes_no_masks(tmp_path: Path) -> None:
    folder, videos = RunFolder(str(tmp_path / "run")), manifest(tmp_path, "a.mp4")
    folder.prepare(videos, RECORD)
    (tmp_path / "run").rename(tmp_path / "moved")
    (tmp_path / "masks.parquet").write_bytes(b"masks")
    with pytest.raises(StorageError, match=r"no run's folder any more: run\.json is gone"):
        folder.commit(videos.tasks[0], tmp_path / "masks.parquet", {}, results=RECORD.results)
    assert not (tmp_path / "run").exists()


def test_a_folder_has_a_name() -> None:
    with pytest.raises(UsageError, match="has no name"):
        RunFolder("")


def test_a_manifest_may_grow_while_a_change_is_under_way(folder: RunFolder, tmp_path: Path) -> None:
    changing(folder, tmp_path)
    grown = manifest(tmp_path, "a.mp4", "c.mp4", box="1,2,3,5")
    assert len(folder.prepare(grown, RECORD).left) == 2
    with pytest.raises(RunMismatchError, match="--redo-changed"):
        folder.prepare(manifest(tmp_path, "a.mp4", box="1,2,3,9"), RECORD)


def test_a_video_without_its_report_is_known_by_its_masks(folder: RunFolder, tmp_path: Path) -> None:
    first = manifest(tmp_path, "a.mp4")
    folder.prepare(first, RECORD)
    key = first.tasks[0].key
    with ResultsWriter(tmp_path / "masks.parquet", targets={1: {}}, task={"video_id": "a.mp4"}) as writer:
        writer.add(row_of(np.ones((4, 4), bool), 0, "prompt", video_id="a.mp4"))
        writer.close(frames=1)
    folder.commit(first.tasks[0], tmp_path / "masks.parquet", {"video_id": "a.mp4"})
    files.delete(folder.paths.report(key))
    plan = folder.look(manifest(tmp_path, "a.mp4", box="1,2,3,5"), RECORD, Scope(redo_changed=True))
    assert list(plan.replaces.values()) == [(key,)]


def test_other_settings_are_refused_with_the_difference(folder: RunFolder, tmp_path: Path) -> None:
    videos = manifest(tmp_path, "a.mp4")
    folder.prepare(videos, RECORD)
    other = {"weights": "abd", "tracker": {"rules": "paper", "crop_size": (480, 832)}}
    with pytest.raises(RunMismatchError) as refused:
        folder.prepare(videos, dataclasses.replace(RECORD, results=other))
    assert 'tracker.rules: the run has "code", this command "paper"' in str(refused.value)
    assert 'weights: the run has "abc", this command "abd"' in str(refused.value)
    assert "crop_size" not in str(refused.value)
    assert refused.value.exit_code == 11


def test_a_run_keeps_to_what_it_does_with_overlaps(folder: RunFolder, tmp_path: Path) -> None:
    """One that says nothing of it was begun when all runs merged."""
    videos = manifest(tmp_path, "a.mp4")
    folder.prepare(videos, RECORD)
    merge, allow = (
        dataclasses.replace(RECORD, results={**RECORD.results, "overlap": what}) for what in ("merge", "allow")
    )
    folder.prepare(videos, merge)
    with pytest.raises(RunMismatchError, match='overlap: the run has "merge", this command "allow"'):
        folder.prepare(videos, allow)


def test_another_environment_goes_on_with_a_warning_and_the_first_is_kept(folder: RunFolder, tmp_path: Path) -> None:
    videos = manifest(tmp_path, "a.mp4")
    folder.prepare(videos, RECORD)
    other = {"threads_per_worker": 4, "versions": {"torch": "2.13"}}
    (warning,) = folder.prepare(videos, dataclasses.replace(RECORD, environment=other)).warnings
    assert "threads_per_worker: the run has 2, this command 4" in warning
    assert folder.record() == RunRecord.from_json(RECORD.to_json(), where="")


def test_masks_win_over_a_stale_failure(folder: RunFolder, tmp_path: Path) -> None:
    videos = manifest(tmp_path, "a.mp4", "b.mp4")
    folder.prepare(videos, RECORD)
    for task in videos.tasks:
        folder.fail(task, [{"kind": "crash"}])
    finish(folder, videos.tasks[0], tmp_path)
    # A failed video is tried again by the next submission, whose outcome replaces this record.
    assert folder.prepare(videos, RECORD).left == (videos.tasks[1],)
    assert files.list_names(f"{folder.uri}/failed") == [f"{videos.tasks[1].key}.json"]
    folder.prepare(manifest(tmp_path, "a.mp4"), RECORD)
    assert files.list_names(f"{folder.uri}/failed") == []


def test_half_written_files_of_killed_workers_are_removed(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "run"))
    videos = manifest(tmp_path, "a.mp4")
    folder.prepare(videos, RECORD)
    left = tmp_path / "run" / "masks" / f".{videos.tasks[0].key}.parquet.0123abcd{files.TEMPORARY_SUFFIX}"
    left.parent.mkdir()
    left.write_bytes(b"PAR1 half")
    assert folder.done() == set()
    folder.prepare(videos, RECORD)
    assert not left.exists()


def test_masks_without_a_record_are_not_taken_over(folder: RunFolder, tmp_path: Path) -> None:
    videos = manifest(tmp_path, "a.mp4")
    finish(folder, videos.tasks[0], tmp_path)
    with pytest.raises(RunFolderError, match=r"no run\.json"):
        folder.prepare(videos, RECORD)


def test_a_compacted_folder_is_not_gone_on_with_and_its_sound_masks_are_not_called_wrong(tmp_path: Path) -> None:
    run, compacted = tmp_path / "run", tmp_path / "compacted"
    write_run(run, [Video(name, f"/videos/{name}.mp4", moving_squares(5, 1), {1: "cat"}) for name in "ab"])
    record = RunRecord(results={"weights": "abc"}, environment={}, settings=RunSettings().to_dict())
    (run / "run.json").write_bytes(record.to_json())
    compact(str(run), str(compacted))
    before = sorted(path.relative_to(compacted) for path in compacted.rglob("*"))
    submit = [str(tmp_path / "run.jsonl"), "--out", str(compacted), *STUB]
    for command in (
        *(["verify"], ["status"], ["cancel"], ["resume"], ["resume", "--corrections"], ["retry", "--failed"]),
        *(["submit", *submit], ["submit", "--dry-run", *submit], ["plan", *submit]),
    ):
        words = command if str(compacted) in command else [*command, str(compacted)]
        answer = CliRunner().invoke(app, words)
        assert answer.exit_code == 11, (command, answer.output)
        assert f"{compacted} was written by `rts-batch compact`" in answer.stderr
    assert sorted(path.relative_to(compacted) for path in compacted.rglob("*")) == before
    answer = CliRunner().invoke(app, ["status", str(run)])
    assert (answer.exit_code, "2 of 2 done" in answer.stdout) == (0, True)


def test_a_late_writer_does_no_harm(folder: RunFolder, tmp_path: Path) -> None:
    videos = manifest(tmp_path, "a.mp4", "b.mp4")
    late, other = videos.tasks
    folder.prepare(videos, RECORD)
    masks = tmp_path / "late.parquet"
    finish(folder, late, tmp_path)
    before = files.read_bytes(uris.join(folder.uri, "masks", f"{late.key}.parquet"))
    masks.write_bytes(b"the same video, from a worker that was thought dead")
    folder.commit(late, masks, {"attempt": 1}, results=RECORD.results)
    assert files.read_bytes(uris.join(folder.uri, "masks", f"{late.key}.parquet")) == before

    files.put_bytes(uris.join(folder.uri, "run.json"), RunRecord(results={"weights": "x"}, environment={}).to_json())
    with pytest.raises(RunMismatchError, match="another run's folder"):
        folder.commit(other, masks, {}, results=RECORD.results)
    assert folder.done() == {late.key}


def test_shards_divide_the_videos_and_a_growing_manifest_moves_none(tmp_path: Path) -> None:
    videos = read_manifest(str(write_many(tmp_path, 40)))
    out = str(tmp_path / "run")
    shards = [Shard.parse(f"{index}/3") for index in (1, 2, 3)]

    def part(videos: Manifest, shard: Shard) -> set[str]:
        left = RunFolder(out, shard).look(videos, RECORD, Scope(shard=shard)).left
        return {task.key for task in left}

    parts = [part(videos, shard) for shard in shards]
    assert set.union(*parts) == {task.key for task in videos.tasks}
    assert sum(map(len, parts)) == len(videos.tasks)
    assert min(map(len, parts)) > 5
    longer = read_manifest(str(write_many(tmp_path, 60)))
    for shard, before in zip(shards, parts, strict=True):
        assert before <= part(longer, shard)


def test_a_limit_and_the_failed_ones_only(folder: RunFolder, tmp_path: Path) -> None:
    videos = read_manifest(str(write_many(tmp_path, 40)))
    first, second, third, *_ = videos.tasks
    folder.prepare(videos, RECORD)
    finish(folder, first, tmp_path)
    folder.fail(first, [])  # stale: masks win
    folder.fail(third, [])
    assert folder.look(videos, RECORD, Scope(limit=2)).left == (second, third)
    plan = folder.look(videos, RECORD, Scope(only_failed=True))
    assert (plan.left, plan.done, plan.videos) == ((third,), 1, 40)
