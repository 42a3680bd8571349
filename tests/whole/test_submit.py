"""`rts-batch submit` from end to end: the real command, a real local Ray, real videos."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from rts_batch import read_masks
from rts_batch.manifest import read_manifest
from tests.support.cluster import LOOPBACK, SharedCluster
from tests.support.places import REPOSITORY
from tests.support.running import STUB, done, finish, masks_of, run, start, wait_until, write_manifest
from tests.support.videos import make_video

pytestmark = pytest.mark.ray

BOX = [30, 30, 20, 20]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(6):
        make_video(folder / f"{number}.mp4", 12 + 4 * number)
    (folder / "text.mp4").write_text("This is no video.")
    return folder


def rows(videos: Path, count: int = 6, **fields: object) -> list[dict[str, object]]:
    return [{"video": str(videos / f"{number}.mp4"), "box": BOX, **fields} for number in range(count)]


@pytest.fixture(scope="module")
def undisturbed(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of six videos on two workers, with frames slow enough to be interrupted elsewhere."""
    folder = tmp_path_factory.mktemp("undisturbed")
    manifest = write_manifest(folder / "manifest.jsonl", rows(videos, sleep=0.05))
    outcome = run("submit", manifest, "--out", folder / "run", "--workers", 2, "--json", *STUB)
    assert outcome.code == 0, outcome.err
    summary = outcome.summary
    assert (summary["videos"], summary["done"], summary["failed"], summary["frames"]) == (6, 6, 0, 132)
    return folder / "run"


def test_a_run_leaves_masks_reports_and_a_summary(undisturbed: Path) -> None:
    table = read_masks(str(undisturbed)).table()
    assert table.num_rows == 132
    assert set(table["state"].to_pylist()) == {"prompt", "tracked"}
    assert table["score"].null_count == 6  # the prompts'
    reports = [json.loads(path.read_text()) for path in sorted((undisturbed / "videos").iterdir())]
    assert [report["frames"] for report in reports] == [12, 16, 20, 24, 28, 32]
    assert {report["decoder"] for report in reports} == {"decord"}  # the default, over H.264
    assert {report["attempt"] for report in reports} == {1}
    assert json.loads((undisturbed / "summary.json").read_text())["done"] == 6
    record = json.loads((undisturbed / "run.json").read_text())
    assert record["results"]["weights"] == "fingerprint of stub"
    assert record["environment"]["threads_per_worker"] >= 1
    assert sorted(path.name for path in undisturbed.iterdir()) == [
        *("manifest.parquet", "masks", "run.json", "status.json", "summary.json", "videos")
    ]


def test_the_folders_manifest_is_a_manifest_of_the_same_videos(undisturbed: Path) -> None:
    keys = {task.key for task in read_manifest(str(undisturbed / "manifest.parquet")).tasks}
    assert keys == {path.stem for path in done(undisturbed)}


def test_workers_do_not_change_a_byte(undisturbed: Path, videos: Path, tmp_path: Path, cluster: SharedCluster) -> None:
    manifest = write_manifest(tmp_path / "manifest.jsonl", rows(videos, sleep=0.05))
    outcome = cluster.run(
        "submit", manifest, "--out", tmp_path / "run", "--workers", 1, "--threads-per-worker", 1, *STUB
    )
    assert outcome.code == 0, outcome.err
    assert "6 of 6 done" in outcome.out
    written, expected = masks_of(tmp_path / "run"), masks_of(undisturbed)
    # The manifest says which folder it was in.
    assert written.pop("manifest.parquet") != expected.pop("manifest.parquet")
    assert written == expected


def test_python_gives_the_commands_bytes(undisturbed: Path, tmp_path: Path) -> None:
    """From a script without an `if __name__ == "__main__"`, which no process of the run imports again."""
    manifest = undisturbed.parent / "manifest.jsonl"
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, rts_batch\n"
        "print('begun')\n"
        "summary = rts_batch.submit(sys.argv[1], sys.argv[2], workers=2, tracker=sys.argv[3], progress=False)\n"
        "print(summary.done, summary.videos, summary.frames, summary.exit_code)\n"
    )
    outcome = finish(start(manifest, tmp_path / "run", STUB[1], program=(str(script),)))
    assert (outcome.code, outcome.out, outcome.err) == (0, "begun\n6 6 132 0\n", "")
    assert masks_of(tmp_path / "run") == masks_of(undisturbed)


def test_submitting_again_does_nothing_and_a_longer_manifest_only_the_rest(
    videos: Path, tmp_path: Path, cluster: SharedCluster
) -> None:
    out = tmp_path / "run"
    manifest = tmp_path / "manifest.jsonl"
    write_manifest(manifest, rows(videos, 2))
    assert cluster.run("submit", manifest, "--out", out, "--workers", 1, *STUB).code == 0
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in done(out)}

    kept = (out / "summary.json").read_bytes()
    script = (
        "import sys; from rts_batch.cli.app import app\n"
        f"try: app(['submit', {str(manifest)!r}, '--out', {str(out)!r}, '--json', *{STUB}])\n"
        "except SystemExit as end: assert not end.code\n"
        "sys.exit(str({'torch', 'ray'} & set(sys.modules) or ''))"
    )
    outcome = finish(start(program=("-c", script)))
    assert outcome.err.strip() == "", "a run with nothing to do imports neither PyTorch nor Ray"
    assert (out / "summary.json").read_bytes() == kept
    assert "nothing  was left to do" in cluster.run("submit", manifest, "--out", out, *STUB).out
    outcome = cluster.run("submit", manifest, "--out", out, "--json", *STUB)
    assert (outcome.code, outcome.summary["already_done"], outcome.summary["frames"]) == (0, 2, 0)

    write_manifest(manifest, rows(videos, 3))
    outcome = cluster.run("submit", manifest, "--out", out, "--json", *STUB)
    assert (outcome.code, outcome.summary["already_done"], outcome.summary["frames"]) == (0, 2, 20)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before

    write_manifest(manifest, rows(videos, 2))
    outcome = cluster.run("submit", manifest, "--out", out, *STUB)
    assert outcome.code == 11
    assert "masks of 1 video(s) that this manifest does not have" in outcome.err


def test_other_settings_of_a_finished_run_are_still_refused(undisturbed: Path) -> None:
    for options in (["--overlap", "allow"], ["--rules", "paper"]):
        outcome = run("submit", undisturbed.parent / "manifest.jsonl", "--out", undisturbed, *options, *STUB)
        assert outcome.code == 11, outcome.out


def test_quiet_and_verbose(videos: Path, tmp_path: Path, cluster: SharedCluster) -> None:
    given = [{"video": str(videos / name), "box": BOX} for name in ("0.mp4", "text.mp4")]
    manifest = write_manifest(tmp_path / "manifest.jsonl", given)
    verbose = run("submit", manifest, "--out", tmp_path / "run", "--workers", 1, "--verbose", *STUB)
    assert verbose.code == 3
    log = (tmp_path / "run" / "log.txt").read_text().splitlines()
    for words in ("reading ", "loading the weights", "starting Ray", "done: ", "failed: "):
        assert sum(words in line for line in log) == 1, words
        assert words in verbose.err
    quiet = cluster.run("retry", tmp_path / "run", "--failed", "--quiet", "--verbose")
    assert quiet.out == ""
    assert all(line.startswith(("failed: ", "warning: ")) for line in quiet.err.splitlines())
    more = (tmp_path / "run" / "log.txt").read_text().splitlines()
    assert more[: len(log)] == log
    assert len(more) > len(log)


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(undisturbed: Path, videos: Path) -> None:
    # In the same folder as the undisturbed run, whose manifest is used again: its path is part of manifest.parquet.
    manifest, out = undisturbed.parent / "manifest.jsonl", undisturbed.parent / "killed"
    command = ("submit", manifest, "--out", out, "--workers", 2, "--json", *STUB)
    process = start(*command)
    # On a busy machine one worker may have a video done before the other has started.
    wait_until(lambda: done(out) and len(at_work(process)) == 6, process=process)
    working = at_work(process)
    assert_loopback_only(psutil.Process(process.pid).children(recursive=True))
    process.kill()
    process.communicate()
    before = {path: path.stat().st_mtime_ns for path in done(out)}
    assert 0 < len(before) < 6

    started = time.monotonic()
    again = start(*command)
    wait_until(lambda: len(done(out)) > len(before), process=again)
    assert time.monotonic() - started < 45, "a new run must not wait for the dead one"
    outcome = finish(again)
    assert outcome.code == 0, outcome.err
    assert outcome.summary["already_done"] >= len(before)
    assert masks_of(out) == masks_of(undisturbed)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not (out / "lease.json").exists()
    # Two idle helpers of Ray's, which look for their dead server for a minute, may still be there.
    assert not any(map(is_running, working))


@pytest.mark.slow
def test_a_killed_run_of_the_real_tracker_ends_with_the_same_bytes(tmp_path: Path) -> None:
    prompts = []
    # The first is soon done; at the second the one worker is long enough that it ends no more than that after the kill.
    for number, frames in enumerate((3, 12, 12)):
        masks = make_video(tmp_path / f"{number}.mp4", frames)
        cv2.imwrite(str(tmp_path / f"{number}.png"), masks[0, 0].astype(np.uint8) * 255)
        prompts.append({"video": f"{number}.mp4", "mask": f"{number}.png"})
    manifest = write_manifest(tmp_path / "manifest.jsonl", prompts)
    options = ("--weights", "rts-mini-untrained", "--threads-per-worker", 1, "--workers", 1, "--json")
    command = ("submit", manifest, *options, "--out")

    undisturbed, killed = start(*command, tmp_path / "undisturbed"), start(*command, tmp_path / "killed")
    wait_until(lambda: done(tmp_path / "killed"), process=killed)
    killed.kill()
    killed.communicate()
    assert 0 < len(done(tmp_path / "killed")) < 3
    outcome = finish(undisturbed)
    assert outcome.code == 0, outcome.err
    assert "masks are meaningless" in outcome.err
    assert outcome.summary["frames"] == 27

    outcome = run(*command, tmp_path / "killed")
    assert outcome.code == 0, outcome.err
    # The video in hand at the kill may still end: its worker notices the driver's death only after a moment.
    assert outcome.summary["frames"] in (12, 24)
    assert masks_of(tmp_path / "killed") == masks_of(tmp_path / "undisturbed")


def at_work(run: subprocess.Popen[str]) -> list[psutil.Process]:
    """Ray's own two processes, and each worker's actor and process."""
    pattern = "raylet/raylet|gcs_server|WorkerActor|rts_batch.worker"
    children = psutil.Process(run.pid).children(recursive=True)
    return [one for one in children if re.search(pattern, command_line(one))]


def command_line(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def assert_loopback_only(processes: list[psutil.Process]) -> None:
    addresses = set()
    for process in processes:
        try:
            connections = process.net_connections(kind="inet")
        except psutil.NoSuchProcess:
            continue
        addresses |= {one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN}
    assert addresses
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_each_failure_is_told_and_costs_nobody_else_anything(
    videos: Path, tmp_path: Path, cluster: SharedCluster
) -> None:
    out = tmp_path / "run"
    first = str(videos / "0.mp4")
    good = [{"video": first, "video_id": f"good-{number:02}", "box": BOX} for number in range(20)]
    # Every row has every column: a further column would make other tasks of all rows.
    knobs = ["raise_at", "segfault_at", "kill_at", "exit_at", "hang_at", "allocate_at", "once"]
    bad: list[dict[str, object]] = [
        {"video": str(videos / "missing.mp4"), "video_id": "missing", "box": BOX},
        {"video": str(videos / "text.mp4"), "video_id": "text", "box": BOX},
        {"video": first, "video_id": "raises", "box": BOX, "raise_at": 3},
        {"video": first, "video_id": "segfaults", "box": BOX, "segfault_at": 5},
        {"video": first, "video_id": "hangs", "box": BOX, "hang_at": 4},
        {"video": first, "video_id": "allocates", "box": BOX, "allocate_at": 6},
        {"video": first, "video_id": "exits", "box": BOX, "exit_at": 2},
        {"video": first, "video_id": "killed", "box": BOX, "kill_at": 5, "once": str(tmp_path / "killed")},
    ]
    bad, good = ([{**dict.fromkeys(knobs), **row} for row in part] for part in (bad, good))
    manifest = write_manifest(tmp_path / "manifest.jsonl", [*bad, *good])
    # Each process that dies is followed by another, a copy of one that has imported what it needs, as a tracker's is.
    forkable = ("--tracker", "tests.support.stub_tracker:ForkableStub")
    command = ("submit", manifest, "--out", out, "--workers", 2, "--stall-timeout", 4, "--json", *forkable)
    outcome = run(*command)
    assert outcome.code == 3, outcome.err
    summary = outcome.summary
    assert (summary["done"], summary["failed"]) == (21, 7)
    failures = {failure["video_id"]: failure for failure in summary["failures"]}
    attempts = {"missing": 1, "text": 1, "raises": 3, "segfaults": 3, "hangs": 3, "allocates": 3, "exits": 3}
    assert {name: failure["attempts"] for name, failure in failures.items()} == attempts
    reasons = {
        "missing": "missing.mp4 does not exist",
        "raises": "RuntimeError: the stub was told to raise",
        "segfaults": "Segmentation fault",
        "hangs": "no progress for 4 s in phase track",
        "allocates": "Unable to allocate 20.0 GiB",
        "exits": "ended itself with exit code 7",
    }
    for name, text in reasons.items():
        assert text in failures[name]["message"]
    assert "Traceback" not in outcome.err
    recorded = {record["video_id"]: record["attempts"] for record in map(read_json, (out / "failed").iterdir())}
    kinds = {name: [attempt["kind"] for attempt in attempts] for name, attempts in recorded.items()}
    assert kinds["text"] == ["permanent"]
    assert all(kinds[name] == ["crash"] * 3 for name in ("raises", "segfaults", "hangs", "allocates", "exits"))
    assert {attempt["error"] for attempt in recorded["allocates"]} == {"MemoryError"}
    reports = {report["video_id"]: report["attempt"] for report in map(read_json, (out / "videos").iterdir())}
    assert reports == {"killed": 2} | {row["video_id"]: 1 for row in good}

    # A corrected row is another task; the old failure goes with the old row.
    manifest = write_manifest(tmp_path / "manifest.jsonl", [*bad[7:], *good, {**bad[0], "video": first}])
    outcome = cluster.run("submit", manifest, "--out", out, *forkable)
    assert outcome.code == 0, outcome.err
    assert list((out / "failed").iterdir()) == []


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_a_run_in_which_every_video_failed_has_failed(tmp_path: Path, cluster: SharedCluster) -> None:
    manifest = write_manifest(tmp_path / "manifest.jsonl", [{"video": "missing.mp4", "box": BOX}])
    outcome = cluster.run("submit", manifest, "--out", tmp_path / "run", *STUB)
    assert outcome.code == 1
    assert "0 of 1 done, 1 failed" in outcome.out
    assert "missing.mp4 does not exist" in outcome.out


def test_ctrl_c_once_finishes_what_is_in_hand(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    manifest = write_manifest(tmp_path / "manifest.jsonl", rows(videos, sleep=0.2))
    process = start("submit", manifest, "--out", out, "--workers", 1, *STUB)
    wait_until(lambda: is_tracking(process), process=process)

    second = run("submit", manifest, "--out", out, *STUB)
    assert second.code == 11
    assert f"process {process.pid}" in second.err
    assert "which is alive" in second.err

    interrupt(process)
    outcome = finish(process)
    assert outcome.code == 130, outcome.err
    assert "finishing the videos in hand" in outcome.err
    assert "interrupted; to go on: rts-batch submit" in outcome.err
    assert len(done(out)) == 1
    assert read_json(out / "summary.json")["not_started"] == 5
    assert "Traceback" not in outcome.err


def test_ctrl_c_twice_stops_now(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    manifest = write_manifest(tmp_path / "manifest.jsonl", rows(videos, sleep=120))
    process = start("submit", manifest, "--out", out, "--workers", 1, *STUB)
    wait_until(lambda: is_tracking(process), process=process)
    interrupt(process)
    time.sleep(1)
    interrupt(process)
    outcome = finish(process, timeout=100)  # less than a frame takes
    assert outcome.code == 130, outcome.err
    assert not done(out)
    assert not (out / "lease.json").exists()


def test_a_second_ctrl_c_keeps_what_a_long_video_has(videos: Path, tmp_path: Path, cluster: SharedCluster) -> None:
    manifest = write_manifest(tmp_path / "manifest.jsonl", rows(videos, 1, sleep=1.0))
    options = ("--workers", 1, "--checkpoint-every", 5, *STUB)
    assert cluster.run("submit", manifest, "--out", tmp_path / "undisturbed", *options).code == 0

    out = tmp_path / "run"
    process = start("submit", manifest, "--out", out, *options)
    wait_until(lambda: is_tracking(process), process=process)
    wait_until(lambda: frames_tracked(out) >= 2, process=process)
    wait_until(lambda: (found := running_of(run("status", out, "--json").events()[0])) and found[0]["frames"] >= 2)
    interrupt(process)
    time.sleep(0.5)
    interrupt(process)
    outcome = finish(process, timeout=30)
    assert outcome.code == 130, outcome.err
    assert "keeping what long videos have" in outcome.err
    assert not done(out)
    assert list(out.glob("checkpoints/*/*/checkpoint.json"))

    assert cluster.run("resume", out).code == 0
    (report,) = (out / "videos").glob("*.json")
    assert read_json(report)["checkpoints"]["resumed_after"] >= 1
    assert masks_of(out) == masks_of(tmp_path / "undisturbed")


def is_tracking(process: subprocess.Popen[str]) -> bool:
    """True when a worker has begun a video."""
    with contextlib.suppress(psutil.Error):
        children = psutil.Process(process.pid).children(recursive=True)
        return any(re.search(r"WorkerActor\.work", " ".join(child.cmdline())) for child in children)
    return False


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C: the terminal sends it to every process of the group."""
    os.killpg(process.pid, signal.SIGINT)


def test_a_run_stops_at_an_error_is_resumed_watched_and_cancelled(
    videos: Path, tmp_path: Path, cluster: SharedCluster
) -> None:
    out = tmp_path / "run"
    late = tmp_path / "late.mp4"
    prompts = [{**row, "frames": 9} for row in rows(videos, 6, sleep=1.0)]
    manifest = write_manifest(
        tmp_path / "manifest.jsonl", [*prompts, {"video": str(late), "box": BOX, "sleep": 1.0, "frames": 99}]
    )
    outcome = cluster.run("submit", manifest, "--out", out, "--workers", 1, "--on-error", "stop", "--json", *STUB)
    assert outcome.code == 1, outcome.err
    assert (outcome.summary["stopped"], outcome.summary["failed"], outcome.summary["not_started"]) == (True, 1, 6)
    outcome = run("status", out, "--json")
    (found,) = outcome.events()
    assert (found["videos"], found["done"], found["failed"], found["running"]) == (7, 0, 1, False)

    late.write_bytes((videos / "0.mp4").read_bytes())
    manifest.unlink()  # the folder has its own
    process = start("resume", out, "--address", "local", "--json")
    wait_until(lambda: is_tracking(process), process=process)
    wait_until(lambda: frames_tracked(out), process=process)
    wait_until(lambda: (found := run("status", out, "--json").events()[0])["running"] and running_of(found))
    outcome = run("cancel", out, "--now")
    assert "to stop now" in outcome.out
    assert outcome.out.startswith("now: videos in hand stop after the frame at work; long ones keep a checkpoint")
    assert "in hand: " in outcome.out
    outcome = finish(process)
    assert outcome.code == 130, outcome.err
    assert outcome.summary["not_started"] > 0
    assert run("cancel", out).out.strip().endswith("nothing is running")


def running_of(status: dict[str, Any]) -> list[dict[str, Any]]:
    (submission,) = status["submissions"]
    assert submission["holder"] == "alive"
    return [video for video in submission["status"].get("videos_running", []) if video["frames"]]


def frames_tracked(out: Path) -> int:
    """Of the videos in hand, as the run last wrote it; cheaper to wait by than the command that reads it too."""
    try:
        return sum(video["frames"] for video in read_json(out / "status.json")["videos_running"])
    except (FileNotFoundError, KeyError):
        return 0


def test_workers_that_cannot_start_end_the_run(videos: Path, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "manifest.jsonl", rows(videos, 1))
    outcome = run("submit", manifest, "--out", tmp_path / "run", "--weights", "cannot-load", "--json", *STUB)
    assert outcome.code == 13
    assert "a worker cannot start" in outcome.err
    assert "the stub was told not to load" in outcome.err
    assert "Traceback" not in outcome.err
    assert [event["event"] for event in outcome.events()][-1] == "error"


def test_the_job_script_runs_on_a_cluster_that_is_there(videos: Path, tmp_path: Path, cluster: SharedCluster) -> None:
    manifest = write_manifest(tmp_path / "manifest.jsonl", rows(videos, 2))
    outcome = finish(
        start(
            *(manifest, "--out", tmp_path / "run", "--device", "cpu", "--workers", 2, *STUB),
            program=[str(REPOSITORY / "jobs" / "track.py")],
            RAY_ADDRESS=cluster.address,
            **LOOPBACK,
        )
    )
    assert outcome.code == 0, outcome.err
    assert "2 of 2 done" in outcome.out


def test_targets_may_appear_late_and_by_time(videos: Path, tmp_path: Path, cluster: SharedCluster) -> None:
    video = str(videos / "5.mp4")
    late = [
        {"video": video, "object_id": 1, "frame": 2, "box": BOX, "category": "cat", "source": "a"},
        {"video": video, "object_id": 7, "time": 0.41, "box": BOX, "category": "dog", "source": "b"},
    ]
    manifest = write_manifest(tmp_path / "manifest.jsonl", late)
    assert cluster.run("submit", manifest, "--out", tmp_path / "run", *STUB).code == 0
    table = pq.read_table(done(tmp_path / "run")[0])
    by_object = {
        object_id: table.filter([one == object_id for one in table["object_id"].to_pylist()]) for object_id in (1, 7)
    }
    assert by_object[1]["frame"].to_pylist() == list(range(2, 32))
    assert by_object[7]["frame"].to_pylist() == list(range(10, 32))  # 0.41 s is nearest to frame 10's 0.40 s
    assert by_object[7]["state"].to_pylist()[0] == "prompt"
    assert set(by_object[7]["category"].to_pylist()) == {"dog"}
    assert set(by_object[1]["source"].to_pylist()) == {"a"}
