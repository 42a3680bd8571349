"""Whatever fails, and whenever: submitting again completes the run with the same bytes; nothing half-done is seen."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import polars
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rts_batch.errors import ResultsError, RtsBatchError, StorageError
from rts_batch.io.results.file import MasksFile, video_entries
from rts_batch.io.storage import download, files, retries, uris
from rts_batch.io.storage import ranges as streaming
from rts_batch.io.video.limits import SpoolLimits
from rts_batch.manifest import Manifest, read_manifest
from rts_batch.runs.folder import RunFolder
from rts_batch.runs.record import RunRecord
from rts_batch.worker.messages import Failed, Finished
from tests.support.faulty_proxy import FaultyProxy
from tests.support.running import write_manifest
from tests.support.videos import make_images, make_video
from tests.support.workers import TRACKER, Workers

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("videos")
    for name in ("a", "b"):
        make_images(folder / name, 3, size=(64, 48))
    rows = [{"video": name, "box": [10, 10, 9, 9]} for name in ("a", "b")]
    return read_manifest(str(write_manifest(folder / "manifest.jsonl", rows)))


@pytest.fixture(scope="module")
def workers() -> Workers:
    return Workers()


class Fault:
    """Counts operations and makes the n-th fail, or all from the n-th on."""

    def __init__(self) -> None:
        self.count, self.at, self.lasting = 0, -1, False

    def arm(self, at: int, *, lasting: bool) -> None:
        self.count, self.at, self.lasting = 0, at, lasting

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def faulty(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == self.at or (self.lasting and 0 < self.at < self.count):
                raise OSError(errno.EIO, "the fault")
            return function(*arguments, **options)

        return faulty


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fault]:
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.0)
    fault = Fault()
    for name in ("cat_file", "pipe_file", "put_file", "info", "ls", "exists", "isdir", "rm"):
        monkeypatch.setattr(MemoryFileSystem, name, fault.wrap(getattr(MemoryFileSystem, name)))
    for owner, name in ((os, "fsync"), (shutil, "copyfile"), (Path, "write_bytes"), (Path, "replace")):
        monkeypatch.setattr(owner, name, fault.wrap(getattr(owner, name)))
    yield fault
    fault.arm(-1, lasting=False)


def contents(out: str) -> dict[str, bytes]:
    folder = uris.join(out, "masks")
    return {name: files.read_bytes(uris.join(folder, name)) for name in files.list_names(folder)}


def seen_by_readers(out: str) -> int:
    """Rows that tools without our code find, by a plain `masks/*.parquet`; what is half there would be an error."""
    names = [name for name in files.list_names(uris.join(out, "masks")) if name.endswith(".parquet")]
    if not names:
        return 0
    pattern = f"{out}/masks/*.parquet"
    if out.startswith("memory://"):
        filesystem = fsspec.filesystem("memory")
        return sum(pq.read_table(path, filesystem=filesystem).num_rows for path in filesystem.glob(pattern))
    ((found,),) = duckdb.sql(f"SELECT count(*) FROM '{pattern}'").fetchall()
    assert found == polars.read_parquet(pattern).height
    return int(found)


@pytest.mark.parametrize("lasting", [False, True], ids=["one fault", "an outage"])
@pytest.mark.parametrize("store", ["local", "memory"])
def test_every_operation_may_fail(
    workers: Workers, manifest: Manifest, tmp_path: Path, fault: Fault, store: str, lasting: bool
) -> None:
    def folder(name: str) -> str:
        return str(tmp_path / name) if store == "local" else f"memory://{uuid.uuid4().hex}/{name}"

    reference = folder("reference")
    fault.arm(-1, lasting=False)
    assert all(isinstance(end, Finished) for end in workers.submit(reference, manifest))
    operations, expected = fault.count, contents(reference)
    assert operations >= 8
    assert len(expected) == 2
    failures = 0
    for at in range(1, operations + 1):
        out = folder(f"run-{at}")
        fault.arm(at, lasting=lasting)
        try:
            ends = workers.submit(out, manifest)
            failures += any(isinstance(end, Failed) for end in ends)
            assert all(end.kind == "transient" for end in ends if isinstance(end, Failed))
        except RtsBatchError:
            failures += 1
        fault.arm(-1, lasting=False)
        assert seen_by_readers(out) in (0, 3, 6)
        assert all(isinstance(end, Finished) for end in workers.submit(out, manifest))
        assert contents(out) == expected
        assert seen_by_readers(out) == 6
        assert store == "memory" or not list(Path(out, "masks").glob(".*"))
    assert failures > (operations // 2 if lasting else 0)


def test_a_commit_may_be_killed_at_every_step(workers: Workers, manifest: Manifest, tmp_path: Path) -> None:
    """SIGKILL before each call that touches the disk, in a process of its own."""
    reference = str(tmp_path / "reference")
    workers.submit(reference, manifest)
    expected = contents(reference)
    task = manifest.tasks[0]
    masks = tmp_path / "a.parquet"
    masks.write_bytes(expected[f"{task.key}.parquet"])
    step = 0
    while True:
        step += 1
        out = str(tmp_path / f"run-{step}")
        RunFolder(out).prepare(manifest, RunRecord(results={"weights": TRACKER.fingerprint}, environment={}))
        pid = os.fork()
        if pid == 0:
            _kill_at(step)
            RunFolder(out).commit(task, masks, {"rows": 3})
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        found = contents(out)
        assert set(found) <= set(expected)
        assert seen_by_readers(out) == 3 * len(found)
        ends = workers.submit(out, manifest)
        assert len(ends) == 2 - len(found)
        assert contents(out) == expected
        assert not list(Path(out, "masks").glob(".*"))
        if os.WIFEXITED(status):
            break
    assert step > 8


def _kill_at(step: int) -> None:
    count = 0

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def deadly(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return deadly

    for owner, name in ((os, "fsync"), (os, "open"), (shutil, "copyfile"), (Path, "write_bytes"), (Path, "replace")):
        setattr(owner, name, wrap(getattr(owner, name)))


def test_a_full_disk_is_transient_and_leaves_nothing(
    workers: Workers, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "run")

    def full(source: Any, target: Any) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    ends = workers.submit(out, manifest)
    assert [(type(end), end.kind) for end in ends] == [(Failed, "transient")] * 2
    assert not list(Path(out, "masks").iterdir())
    monkeypatch.undo()
    assert all(isinstance(end, Finished) for end in workers.submit(out, manifest))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(disk: Path, *, leave: int) -> Path:
    """Fills a disk up to so many bytes."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free - leave))
    return ballast


def test_a_run_folder_on_a_full_disk_loses_nothing(
    workers: Workers, manifest: Manifest, tmp_path: Path, small_disk: Path
) -> None:
    workers.submit(str(tmp_path / "reference"), manifest)
    expected = contents(str(tmp_path / "reference"))
    failures = 0
    for pages in range(12):
        out = str(small_disk / f"run-{pages}")
        ballast = fill(small_disk, leave=4096 * pages)
        try:
            ends = workers.submit(out, manifest)
            assert all(end.kind == "transient" for end in ends if isinstance(end, Failed))
            failures += any(isinstance(end, Failed) for end in ends)
        except RtsBatchError:
            failures += 1
        found = contents(out)
        assert found.items() <= expected.items()
        assert seen_by_readers(out) == 3 * len(found)
        assert not [path for path in Path(out).rglob("*") if path.name.endswith(files.TEMPORARY_SUFFIX)]
        ballast.unlink()
        assert all(isinstance(end, Finished) for end in workers.submit(out, manifest))
        assert contents(out) == expected
        shutil.rmtree(out)
    assert 3 < failures < 12  # with and without enough room


def test_a_full_disk_for_work_under_way_is_transient_and_released(
    manifest: Manifest, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images from a store need the disk, and so do the masks until they are complete."""
    monkeypatch.setattr(download, "RESERVE_BYTES", 0)
    store = f"memory://{uuid.uuid4().hex}"
    for image in Path(manifest.tasks[0].uri).iterdir():
        files.put_file(image, f"{store}/a/{image.name}")
    rows = [{"video": f"{store}/a", "box": [10, 10, 9, 9]}]
    far = read_manifest(str(write_manifest(tmp_path / "far.jsonl", rows)))
    workers = Workers(scratch=small_disk)
    kinds = []
    for pages in range(0, 16, 3):
        ballast = fill(small_disk, leave=4096 * pages)
        free = shutil.disk_usage(small_disk).free
        (end,) = workers.submit(str(tmp_path / f"run-{pages}"), far)
        kinds.append(end.kind if isinstance(end, Failed) else "finished")
        assert shutil.disk_usage(small_disk).free == free
        assert list(small_disk.iterdir()) == [ballast]
        ballast.unlink()
    assert kinds[0] == "transient"
    assert kinds[-1] == "finished"
    assert set(kinds) == {"transient", "finished"}


def test_no_secret_reaches_results_or_messages(
    s3: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Canary values stand for the credentials and for the signature of a signed address."""
    canaries = ("canary-key", "canary-token", "canary-signature")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", canaries[0])
    monkeypatch.setenv("AWS_SESSION_TOKEN", canaries[1])
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.0)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    make_images(tmp_path / "clip", 2, size=(64, 48))
    for image in (tmp_path / "clip").iterdir():
        files.put_file(image, f"{s3}/clip/{image.name}")
    rows = [
        {"video": f"{s3}/clip", "box": [10, 10, 9, 9]},
        {"video": f"https://127.0.0.1:9/a.mp4?X-Amz-Signature={canaries[2]}", "box": [10, 10, 9, 9]},
        {"video": f"{s3}/missing.mp4", "box": [10, 10, 9, 9]},
    ]
    found = read_manifest(str(write_manifest(tmp_path / "manifest.jsonl", rows)))
    ends = Workers().submit(f"{s3}/run", found)
    assert [type(end) for end in ends] == [Finished, Failed, Failed]
    for task, end in zip(found.tasks[1:], ends[1:], strict=True):
        RunFolder(f"{s3}/run").fail(task, [{"message": end.message}])
    filesystem, root = files.open_filesystem(f"{s3}/run")
    contents = {path: filesystem.cat_file(path) for path in filesystem.find(root)}
    assert len(contents) == 6
    # The manifest must say where the videos are; it is the only file that may.
    written = b"".join(data for path, data in contents.items() if not path.endswith("manifest.parquet"))
    said = caplog.text + "".join(capfd.readouterr()) + "".join(map(repr, ends))
    for canary in canaries:
        assert canary.encode() not in written
        assert canary not in said


@pytest.fixture(scope="module")
def masks_file(workers: Workers, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = str(tmp_path_factory.mktemp("runs") / "run")
    workers.submit(out, manifest)
    return next(iter(contents(out).values()))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_results_file_is_our_error_or_none(masks_file: bytes, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(masks_file)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(len(content) - 40, len(content)))]
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    file = MasksFile(str(path))
    for read in (
        lambda: [table.to_pylist() for table in file.tables(0, file.rows)],
        lambda: list(video_entries(file, "")),
        lambda: file.metadata,
    ):
        with contextlib.suppress(ResultsError):
            read()
    file.close()


# A store behind a bad network


@pytest.fixture
def footage(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """A manifest of two videos in a bucket, and requests for small parts."""
    monkeypatch.setattr(download, "PART_BYTES", 4_000)
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 4_000)
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.01)
    rows = []
    for number in range(2):
        make_video(tmp_path / f"{number}.mp4", 6 + number)
        files.put_file(tmp_path / f"{number}.mp4", f"{s3}/{number}.mp4")
        rows.append({"video": f"{s3}/{number}.mp4", "video_id": str(number), "box": [10, 10, 9, 9]})
    return read_manifest(str(write_manifest(tmp_path / "footage.jsonl", rows)))


ONE_KIND = [pytest.param([kind], marks=pytest.mark.slow) for kind in ("reset", "break", "short", "slow down", "twice")]


@pytest.mark.parametrize("spool", [SpoolLimits(), SpoolLimits(quota=0)], ids=["copied", "streamed"])
@pytest.mark.parametrize("faults", [None, *ONE_KIND], ids=str)
def test_a_run_through_a_bad_network_is_the_undisturbed_one(
    s3: str,
    s3_server: str,
    footage: Manifest,
    monkeypatch: pytest.MonkeyPatch,
    faults: list[str] | None,
    spool: SpoolLimits,
) -> None:
    assert all(isinstance(end, Finished) for end in Workers().submit(f"{s3}/reference", footage))
    for task in footage.tasks:  # by default decord reads what it can, from a bucket too
        report = json.loads(files.read_bytes(f"{s3}/reference/videos/{task.key}.json"))
        assert (report["decoder"], report["streamed"]) == ("decord", False)
    workers = Workers(spool)
    all_faults = ["reset", "break", "short", "slow down", "twice"]
    proxy = FaultyProxy(s3_server, faults or all_faults, every=4, latency=0.03)
    with proxy.serving() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        for _ in range(5):  # as the coordinator does with what is transient
            ends = workers.submit(f"{s3}/run", footage)
            assert all(end.kind == "transient" for end in ends if isinstance(end, Failed)), ends
            if all(isinstance(end, Finished) for end in ends):
                break
        assert contents(f"{s3}/run") == contents(f"{s3}/reference")
        for task in footage.tasks:
            report = json.loads(files.read_bytes(f"{s3}/run/videos/{task.key}.json"))
            assert report["streamed"] is (spool.quota == 0)
    assert sum(proxy.done.values()) >= 2


def test_expired_credentials_are_said_and_nothing_is_half_there(
    s3: str,
    s3_server: str,
    footage: Manifest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with FaultyProxy(s3_server, ["expired"], every=1).serving() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        with pytest.raises(StorageError, match=r"xpired|Bad Request"):
            Workers().submit(f"{s3}/run", footage)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert contents(f"{s3}/run") == {}
    assert all(isinstance(end, Finished) for end in Workers().submit(f"{s3}/run", footage))
