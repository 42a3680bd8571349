"""The run's folder and its lease, on local disk and in an object store."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from rts_batch.errors import RunBusyError, RunFolderError, RunMismatchError
from rts_batch.io.storage import files, uris
from rts_batch.manifest import Manifest, VideoTask, read_manifest
from rts_batch.manifest.lengths import expected_lengths
from rts_batch.runs.folder import RunFolder
from rts_batch.runs.lease import Lease, _identity
from rts_batch.runs.record import RunRecord, versions

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
    folder.commit(task, tmp_path / "masks.parquet", {"frames": 3})


# The folder


def test_what_is_left_shrinks_as_videos_are_committed(folder: RunFolder, tmp_path: Path) -> None:
    videos = manifest(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    plan = folder.prepare(videos, RECORD)
    assert (plan.left, plan.done, plan.warnings) == (videos.tasks, 0, ())
    finish(folder, videos.tasks[1], tmp_path)
    plan = RunFolder(folder.uri).prepare(videos, RECORD)
    assert (plan.left, plan.done) == ((videos.tasks[0], videos.tasks[2]), 1)
    assert json.loads(files.read_bytes(f"{folder.uri}/videos/{videos.tasks[1].key}.json")) == {"frames": 3}


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


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 99, "results": {}, "environment": {}}', "\x00"])
def test_a_foreign_run_json_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"run\.json"):
        RunFolder(str(tmp_path)).prepare(manifest(tmp_path, "a.mp4"), RECORD)


def test_masks_without_a_record_are_not_taken_over(folder: RunFolder, tmp_path: Path) -> None:
    videos = manifest(tmp_path, "a.mp4")
    finish(folder, videos.tasks[0], tmp_path)
    with pytest.raises(RunFolderError, match=r"no run\.json"):
        folder.prepare(videos, RECORD)


def test_lengths_are_guessed_where_the_manifest_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "big.mp4").write_bytes(bytes(400_000))
    (tmp_path / "small.mp4").write_bytes(bytes(100_000))
    (tmp_path / "images").mkdir()
    for number in range(7):
        (tmp_path / "images" / f"{number}.png").touch()
    (tmp_path / "m.csv").write_text(
        "video,box,frames,end\n"
        'big.mp4,"1,1,2,2",,\nsmall.mp4,"1,1,2,2",,\nimages,"1,1,2,2",,\nmissing.mp4,"1,1,2,2",,\n'
        'known.mp4,"1,1,2,2",500,\ncut.mp4,"1,1,2,2",500,20\n'
    )
    tasks = read_manifest(str(tmp_path / "m.csv")).tasks
    lengths = {task.video_id: expected_lengths(tasks)[task.key] for task in tasks}
    assert lengths["big.mp4"] > lengths["small.mp4"] > lengths["images"] == 7
    assert (lengths["missing.mp4"], lengths["known.mp4"], lengths["cut.mp4"]) == (0, 500, 20)


def test_versions_name_what_computes() -> None:
    assert {"rts-batch", "torch", "numpy", "pyarrow", "av"} <= versions().keys()


# The lease


def holder(**fields: Any) -> bytes:
    return json.dumps({**_identity(), "token": "theirs", "beat": 0, **fields}).encode()


def test_a_lease_is_there_while_it_is_held(folder: RunFolder) -> None:
    with Lease(folder.paths.lease) as lease:
        content = json.loads(files.read_bytes(folder.paths.lease))
        assert (content["pid"], content["host"]) == (os.getpid(), socket.gethostname())
        assert not lease.lost.is_set()
    assert not files.exists(folder.paths.lease)


def test_a_live_process_keeps_its_lease(folder: RunFolder) -> None:
    with Lease(folder.paths.lease):
        with pytest.raises(RunBusyError, match=f"process {os.getpid()} .*alive") as refused, Lease(folder.paths.lease):
            pass
        assert refused.value.exit_code == 11
        assert files.exists(folder.paths.lease)


def test_the_lease_of_a_dead_process_is_taken_at_once(folder: RunFolder) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    files.put_bytes(folder.paths.lease, holder(pid=child.pid))
    assert seconds_to_take(folder) < 5


def test_a_process_id_that_was_given_again_does_not_hold_a_lease(folder: RunFolder) -> None:
    files.put_bytes(folder.paths.lease, holder(started="12"))
    assert seconds_to_take(folder) < 5


def test_a_lease_from_before_a_reboot_is_taken_at_once(folder: RunFolder) -> None:
    files.put_bytes(folder.paths.lease, holder(boot="another boot"))
    assert seconds_to_take(folder) < 5


def test_a_zombie_does_not_hold_a_lease(folder: RunFolder) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    try:
        stat = Path(f"/proc/{child.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        started = stat.read_text().rpartition(")")[2].split()[19]
        files.put_bytes(folder.paths.lease, holder(pid=child.pid, started=started))
        assert seconds_to_take(folder) < 5
    finally:
        child.wait()


def seconds_to_take(folder: RunFolder) -> float:
    begun = time.monotonic()
    with Lease(folder.paths.lease):
        return time.monotonic() - begun


def test_a_silent_lease_elsewhere_is_waited_for_and_said_so(folder: RunFolder) -> None:
    files.put_bytes(folder.paths.lease, holder(host="elsewhere"))
    notes: list[str] = []
    begun = time.monotonic()
    with Lease(folder.paths.lease, note=notes.append, silent=1.5):
        assert time.monotonic() - begun >= 1.5
    assert len(notes) == 1
    assert "elsewhere" in notes[0]
    assert "2 s" in notes[0]


def test_a_lease_elsewhere_that_beats_is_refused(folder: RunFolder) -> None:
    files.put_bytes(folder.paths.lease, holder(host="elsewhere"))

    def beat(text: str) -> None:
        files.put_bytes(folder.paths.lease, holder(host="elsewhere", beat=1))

    with pytest.raises(RunBusyError, match="on elsewhere"), Lease(folder.paths.lease, note=beat, silent=30):
        pass


def test_a_holder_notices_that_its_lease_was_taken(folder: RunFolder) -> None:
    with Lease(folder.paths.lease, heartbeat=0.05) as lease:
        files.put_bytes(folder.paths.lease, holder(host="elsewhere"))
        assert lease.lost.wait(10)
    assert json.loads(files.read_bytes(folder.paths.lease))["token"] == "theirs", "the other's lease must stay"


def test_a_lease_is_renewed(folder: RunFolder) -> None:
    with Lease(folder.paths.lease, heartbeat=0.05):
        first = files.read_bytes(folder.paths.lease)
        deadline = time.monotonic() + 10
        while files.read_bytes(folder.paths.lease) == first:
            assert time.monotonic() < deadline


def test_rubbish_in_place_of_a_lease_is_named(folder: RunFolder) -> None:
    files.put_bytes(folder.paths.lease, b"rubbish")
    with pytest.raises(RunBusyError, match="is not a lease"), Lease(folder.paths.lease):
        pass


def hold(uri: str, barrier: Any, results: Any) -> None:
    barrier.wait()
    try:
        with Lease(uri):
            results.put("held")
            barrier.wait()
    except RunBusyError:
        results.put("busy")
        barrier.wait()


def test_of_many_processes_one_gets_the_lease(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    files.put_bytes(str(tmp_path / "lease.json"), holder(started="12"))  # stale, so that all want to replace it
    barrier, results = context.Barrier(6), context.Queue()
    processes = [context.Process(target=hold, args=(str(tmp_path / "lease.json"), barrier, results)) for _ in range(6)]
    for process in processes:
        process.start()
    outcomes = sorted(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
    assert outcomes == ["busy"] * 5 + ["held"]


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
