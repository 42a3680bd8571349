"""Videos that stay in their store: the same frames by ranges, in bounded memory, and of one version of the object."""

from __future__ import annotations

import errno
import functools
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from rts_batch.errors import StorageError, VideoError
from rts_batch.io.storage import download, files, retries
from rts_batch.io.storage import ranges as streaming
from rts_batch.io.storage.ranges import RangedObject
from rts_batch.io.video import spool
from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.io.video.limits import DecodingLimits, SpoolLimits
from rts_batch.io.video.opening import Frame, FrameRange, open_video
from rts_batch.io.video.spool import bring
from tests.support.decoded import frames_with_a_kill, same
from tests.support.faulty_proxy import FaultyProxy
from tests.support.videos import make_images, make_large_video, make_video

FRAMES = 30
BLOCK = 2048


@pytest.fixture(scope="module")
def process() -> Iterator[DecodingProcess]:
    with DecodingProcess() as process:
        yield process


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "BLOCK_BYTES", BLOCK)
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.0)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "a.mp4"
    make_video(path, FRAMES, size=(320, 240), options={"g": "10", "bf": "2"})
    return path


def put(path: Path) -> str:
    uri = f"memory://{uuid.uuid4().hex}/{path.name}"
    files.put_file(path, uri)
    return uri


def read(process: DecodingProcess, stored: RangedObject | Path, **part: Any) -> list[Frame]:
    with process.open(stored, **part) as source:
        return list(source)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("b.mp4", {"container_options": {"movflags": "+faststart"}}),
        ("c.mp4", {"container_options": {"movflags": "+frag_keyframe+empty_moov"}}),
        ("d.webm", {"codec": "libvpx-vp9"}),
        ("e.mkv", {}),
        ("f.avi", {"codec": "mpeg4"}),
        ("g.ts", {}),
        ("h.h264", {}),
    ],
    ids=str,
)
@pytest.mark.long
def test_streamed_frames_are_those_of_the_file(
    process: DecodingProcess, tmp_path: Path, small_blocks: None, name: str, options: dict[str, Any]
) -> None:
    make_video(tmp_path / name, FRAMES, size=(320, 240), **{"options": {"g": "10"}, **options})
    stored = RangedObject(put(tmp_path / name))
    assert stored.size > 8 * BLOCK
    with open_video(str(tmp_path / name), decoder="pyav") as expected, process.open(stored) as source:
        assert source.info == expected.info
        assert source.info.decoder == "pyav"
        frames = list(source)
        assert same(frames, list(expected))
        assert source.warnings == expected.warnings == []
    assert same(read(process, stored, wanted=FrameRange(start=7, end=20)), frames[7:20])
    assert same(read(process, stored, wanted=FrameRange(start=3, backward=True)), frames[3:][::-1])
    assert len(stored._blocks) <= streaming.BLOCKS_HELD
    assert process.starts == 1


def test_damage_is_told_of_streamed_videos_too(process: DecodingProcess, clip: Path, small_blocks: None) -> None:
    uri = put(clip)
    content = bytearray(clip.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 12_000] = bytes(12_000)
    files.put_bytes(uri, bytes(content))
    with process.open(RangedObject(uri)) as source:
        list(source)
    assert source.damage
    files.put_bytes(uri, b"This is no video.\n" * 1000)
    with pytest.raises(VideoError, match=r"a\.mp4 is not a video"):
        process.open(RangedObject(uri))
    assert process.starts == 1


def test_gaps_of_a_streamed_transport_stream_are_counted(
    process: DecodingProcess, tmp_path: Path, small_blocks: None
) -> None:
    make_video(tmp_path / "a.ts", FRAMES, size=(320, 240), codec="mpeg2video", options={"g": "10"})
    content = (tmp_path / "a.ts").read_bytes()
    middle = len(content) // 376 * 188
    (tmp_path / "a.ts").write_bytes(content[:middle] + content[middle + 5 * 188 + 50 :])
    stored = RangedObject(put(tmp_path / "a.ts"))
    damage = []
    for video in (tmp_path / "a.ts", stored):
        with process.open(video, decoder="pyav") as source:
            list(source)
        damage.append(source.damage)
    assert damage[0] == damage[1]
    assert damage[1].lost_packets > 0


class Meddling:
    """Does something before the n-th range of an object is read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, act: Callable[[], None]) -> None:
        cat_file = MemoryFileSystem.cat_file
        self.count = 0

        def meddle(*arguments: Any, **options: Any) -> bytes:
            self.count += 1
            if self.count == at:
                act()
            return cat_file(*arguments, **options)

        monkeypatch.setattr(MemoryFileSystem, "cat_file", meddle)


def test_an_object_that_changes_meanwhile_is_not_mixed(
    process: DecodingProcess, clip: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = put(clip)
    filesystem, path = files.open_filesystem(uri)
    info = MemoryFileSystem.info
    version = "first"
    monkeypatch.setattr(MemoryFileSystem, "info", lambda self, path: {**info(self, path), "ETag": version})

    def change() -> None:
        nonlocal version
        version = "second"
        filesystem.store[path].seek(0)
        filesystem.store[path].write(bytes(filesystem.store[path].size))

    stored = RangedObject(uri)
    Meddling(monkeypatch, 5, change)
    with pytest.raises(StorageError, match=rf"{path.rpartition('/')[2]} changed while it was read") as caught:
        read(process, stored)
    assert caught.value.transient
    version = "first"
    files.put_file(clip, uri)
    assert len(read(process, RangedObject(uri))) == FRAMES
    assert process.starts == 1


@pytest.mark.parametrize(
    ("error", "transient"), [(PermissionError("not any more"), False), (ConnectionResetError("gone"), True)]
)
def test_a_store_that_fails_for_good_fails_the_video_with_its_own_words(
    process: DecodingProcess,
    clip: Path,
    small_blocks: None,
    monkeypatch: pytest.MonkeyPatch,
    error: OSError,
    transient: bool,
) -> None:
    stored = RangedObject(put(clip))
    failing = False
    cat_file = MemoryFileSystem.cat_file

    def fail(*arguments: Any, **options: Any) -> bytes:
        if failing:
            raise error
        return cat_file(*arguments, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", fail)
    with process.open(stored) as source:
        frames = iter(source)
        next(frames)
        failing = True
        with pytest.raises(StorageError, match=str(error)) as caught:
            list(frames)
    assert caught.value.transient is transient
    failing = False
    assert len(read(process, RangedObject(stored.uri))) == FRAMES


def test_ranges_that_fail_are_read_again(
    process: DecodingProcess, clip: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cat_file = MemoryFileSystem.cat_file
    failed: set[int] = set()

    def cat_badly(self: MemoryFileSystem, path: str, start: int, end: int) -> bytes:
        if start not in failed:
            failed.add(start)
            if start % (2 * BLOCK):
                raise OSError(errno.EBUSY, "SlowDown")
            return cat_file(self, path, start=start, end=end)[:-3]
        return cat_file(self, path, start=start, end=end)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_badly)
    stored = RangedObject(put(clip))
    assert len(read(process, stored)) == FRAMES
    assert len(failed) == -(-stored.size // BLOCK)


@pytest.mark.long
def test_a_slow_store_is_no_hang(clip: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = RangedObject(put(clip))
    Meddling(monkeypatch, 3, lambda: time.sleep(4.0))
    with DecodingProcess(DecodingLimits(silence=3.0)) as process:
        assert len(read(process, stored)) == FRAMES
        assert process.starts == 1


def test_a_killed_process_is_replaced_and_served_again(clip: Path, small_blocks: None) -> None:
    stored = RangedObject(put(clip))
    with DecodingProcess(DecodingLimits(ring_frames=2)) as process, process.open(stored) as source:
        frames = frames_with_a_kill(process, source, at=9)
        with open_video(str(clip), decoder="pyav") as expected:
            assert same(frames, list(expected))
        assert "another one went on from there" in source.warnings[0]


def test_a_streamed_video_may_be_left_early(process: DecodingProcess, clip: Path, small_blocks: None) -> None:
    stored = RangedObject(put(clip))
    for _ in range(3):
        with process.open(stored) as source:
            assert next(iter(source)).index == 0
    assert process.starts == 1


# How soon the first frame is there


@pytest.mark.parametrize("header", ["front", "end"])
@pytest.mark.long
def test_the_first_frame_needs_little_of_the_object(
    s3: str,
    s3_server: str,
    process: DecodingProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    header: str,
) -> None:
    """A part of it, in a few requests, through a network that takes 30 ms for each."""
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 1 << 17)
    frames = make_large_video(tmp_path / "a.mp4", 12 << 20, frame=(640, 360), header=header)
    files.put_file(tmp_path / "a.mp4", f"{s3}/a.mp4")
    proxy = FaultyProxy(s3_server, [None], latency=0.03)
    with proxy.serving() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        stored = RangedObject(f"{s3}/a.mp4")
        with process.open(stored) as source:
            next(iter(source))
            # The decoder goes on as far as its ring reaches, and the reading a block or two further.
            ahead = (DecodingLimits.ring_frames + 2) * stored.size / frames + 3 * streaming.BLOCK_BYTES
            assert proxy.sent < ahead + (2 * streaming.BLOCK_BYTES if header == "end" else 0) < stored.size / 4
            assert proxy.requests["GET"] <= proxy.sent / streaming.BLOCK_BYTES + 1


# What is copied and what is streamed


def test_small_videos_are_copied_and_large_ones_stay(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, size = put(clip), clip.stat().st_size
    assert bring(str(clip), tmp_path / "spool", SpoolLimits(largest=0, quota=0)) == clip
    for limits in (SpoolLimits(), SpoolLimits(largest=size), SpoolLimits(quota=2 * size)):
        assert bring(uri, tmp_path / "spool", limits) == tmp_path / "spool" / "a.mp4"
    for limits in (SpoolLimits(largest=size - 1), SpoolLimits(quota=2 * size - 1), SpoolLimits(quota=0)):
        assert isinstance(bring(uri, tmp_path / "spool", limits), RangedObject)
    assert isinstance(bring(uri, tmp_path / "spool", SpoolLimits(largest=0), decoder="decord"), Path)
    monkeypatch.setattr(spool, "_free", lambda folder: size)
    assert isinstance(bring(uri, tmp_path / "spool"), RangedObject)


@pytest.mark.parametrize("size", [1000, 50_000], ids=["in one piece", "in parts"])
@pytest.mark.long
def test_a_copy_is_asked_about_once_before_and_once_after(
    s3: str,
    s3_server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    monkeypatch.setattr(download, "PART_BYTES", 10_000)
    files.put_bytes(f"{s3}/a.mp4", b"video" * (size // 5))
    proxy = FaultyProxy(s3_server, [None])
    with proxy.serving() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        copy = bring(f"{s3}/a.mp4", tmp_path / "spool")
    assert Path(copy).stat().st_size == size
    assert proxy.requests == {"HEAD": 2, "GET": -(-size // 10_000)}


class Server(SimpleHTTPRequestHandler):
    """A web server over a folder; `knows_ranges` sends parts of files."""

    knows_ranges = True

    def do_GET(self) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not wanted or not self.knows_ranges:
            super().do_GET()
            return
        content = Path(self.translate_path(self.path)).read_bytes()
        first, last = int(wanted[1]), min(int(wanted[2]), len(content) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(content[first : last + 1])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_web_server_is_streamed_from_if_it_knows_ranges(
    process: DecodingProcess,
    clip: Path,
    tmp_path: Path,
    small_blocks: None,
    monkeypatch: pytest.MonkeyPatch,
    knows_ranges: bool,
) -> None:
    monkeypatch.setenv("RTS_BATCH_PRIVATE_HTTP", "allow")
    monkeypatch.setattr(Server, "knows_ranges", knows_ranges)
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=str(clip.parent))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}/{clip.name}?signature=1"
        found = bring(uri, tmp_path / "spool", SpoolLimits(largest=0))
        assert isinstance(found, RangedObject) is knows_ranges
        assert len(read(process, found)) == FRAMES
        server.shutdown()


def test_what_must_lie_on_disk_must_fit_its_quota(tmp_path: Path, clip: Path) -> None:
    make_images(tmp_path / "frames", 3)
    folder = f"memory://{uuid.uuid4().hex}/frames"
    for image in (tmp_path / "frames").iterdir():
        files.put_file(image, f"{folder}/{image.name}")
    size = sum(image.stat().st_size for image in (tmp_path / "frames").iterdir())
    assert len(list(Path(bring(folder, tmp_path / "spool", SpoolLimits(quota=2 * size))).iterdir())) == 3
    for uri, decoder in ((folder, "auto"), (put(clip), "decord")):
        with pytest.raises(StorageError, match=r"--spool-quota, which 2 videos share") as caught:
            bring(uri, tmp_path / "spool", SpoolLimits(quota=1000), decoder=decoder)
        assert not caught.value.transient


def test_what_does_not_exist_is_said(tmp_path: Path) -> None:
    for act in (lambda uri: bring(uri, tmp_path), RangedObject):
        with pytest.raises(StorageError, match="does not exist") as caught:
            act(f"memory://{uuid.uuid4().hex}/a.mp4")
        assert not caught.value.transient
