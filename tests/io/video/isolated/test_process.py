"""The decoding process: the frames of `open_video`, and no video can do more harm than to fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from rts_batch.errors import VideoError
from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.io.video.limits import DecoderName, DecodingLimits
from rts_batch.io.video.opening import Frame, FrameRange, open_video
from tests.support.decoded import frames_with_a_kill, same
from tests.support.places import REPOSITORY
from tests.support.running import wait_until
from tests.support.videos import make_images, make_video

FRAMES = 40


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "a.mp4"
    make_video(path, FRAMES, options={"g": "10", "bf": "2"})
    return path


@pytest.fixture
def process() -> Iterator[DecodingProcess]:
    with DecodingProcess() as process:
        yield process


def bare(path: Path, **options: object) -> list[Frame]:
    with open_video(str(path), **options) as source:  # type: ignore[arg-type]
        return list(source)


def test_one_process_gives_the_frames_of_many_videos(process: DecodingProcess, clip: Path, tmp_path: Path) -> None:
    make_images(tmp_path / "folder", 5)
    make_video(tmp_path / "wide.webm", 30, codec="libvpx-vp9", size=(320, 64))
    for path in (clip, tmp_path / "folder", tmp_path / "wide.webm", clip):
        with open_video(str(path)) as expected, process.open(path) as source:
            assert replace(source.info, decoder=expected.info.decoder) == expected.info
            assert same(list(source), list(expected))
            assert source.warnings == expected.warnings == []
    assert process.starts == 1


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_a_part_of_a_video(process: DecodingProcess, clip: Path, decoder: DecoderName) -> None:
    with process.open(clip, FrameRange(7, 33), decoder=decoder) as source:
        assert source.info.decoder == decoder
        assert same(list(source), bare(clip, wanted=FrameRange(7, 33)))
    with process.open(clip, FrameRange(start=FRAMES)) as source, pytest.raises(VideoError, match="no frame 40"):
        list(source)


def test_backward(process: DecodingProcess, clip: Path) -> None:
    with process.open(clip, FrameRange(3, 30, backward=True)) as source:
        assert same(list(source), bare(clip)[3:30][::-1])
    with process.open(clip, FrameRange(backward=True)) as source:
        assert same(frames_with_a_kill(process, source, at=25), bare(clip)[::-1])
        assert "went on from there" in source.warnings[0]


def test_all_frames_before_an_error_come_first(process: DecodingProcess, tmp_path: Path) -> None:
    make_images(tmp_path / "folder", 90, size=(32, 32))
    (tmp_path / "folder/77.png").write_bytes(b"no picture")
    found: list[int] = []
    with process.open(tmp_path / "folder") as source, pytest.raises(VideoError, match=r"77\.png is not an image"):
        found.extend(frame.index for frame in source)
    assert found == list(range(77))


def test_a_video_may_be_left_early(process: DecodingProcess, clip: Path) -> None:
    pid = None
    for _ in range(3):
        with process.open(clip) as source:
            assert next(iter(source)).index == 0
            pid = pid or process.pid
    assert process.pid == pid


def test_what_is_no_video_costs_no_process(process: DecodingProcess, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("This is no video.\n" * 100)
    for _ in range(2):
        with pytest.raises(VideoError, match=r"text\.mp4 is not a video"):
            process.open(tmp_path / "text.mp4")
    with pytest.raises(VideoError, match="does not exist"):
        process.open(tmp_path / "missing.mp4")
    with process.open(clip) as source:
        assert len(list(source)) == FRAMES
    assert process.starts == 1


def test_lent_frames_are_the_ring_itself(clip: Path) -> None:
    """None is copied, and none changes while it is in hand."""
    with DecodingProcess(DecodingLimits(ring_frames=3)) as process, process.open(clip) as source:
        places = set()
        for frame, expected in zip(source.lent(), bare(clip), strict=True):
            time.sleep(0.01)  # long enough to decode as far ahead as there is room
            assert same([frame], [expected])
            places.add(frame.image.ctypes.data)
    assert len(places) == 3


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="only Linux can seal memory")
def test_the_ring_cannot_be_taken_from_under_its_reader(process: DecodingProcess, clip: Path) -> None:
    with process.open(clip) as source:
        frames = source.lent()
        next(frames)
        descriptors = Path(f"/proc/{process.pid}/fd").iterdir()
        ring = next(link for link in descriptors if os.readlink(link).startswith("/memfd:rts-batch-frames"))
        with ring.open("r+b") as memory, pytest.raises(PermissionError):
            memory.truncate(0)


def test_frames_stay_what_they_were(process: DecodingProcess, clip: Path) -> None:
    """The ring's slots are used again; a frame that was given out must not change with them."""
    with process.open(clip) as source:
        frames, copies = [], []
        for frame in source:
            frames.append(frame)
            copies.append(frame.image.copy())
    assert all(np.array_equal(frame.image, copy) for frame, copy in zip(frames, copies, strict=True))


# Back-pressure


def memory_of(process: DecodingProcess) -> int:
    """Bytes of memory that the decoding process alone has, and the ring."""
    return psutil.Process(process.pid).memory_full_info().uss


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.long
def test_a_slow_consumer_keeps_the_decoder_waiting(tmp_path: Path, decoder: DecoderName) -> None:
    frames, size = 120, (320, 180)
    frame_bytes = size[0] * size[1] * 3
    make_video(tmp_path / "a.mp4", frames, size=size, options={"g": "24"})
    expected = bare(tmp_path / "a.mp4", decoder="pyav")
    limits = DecodingLimits(ring_frames=4, decode_memory=20 * frame_bytes)
    with DecodingProcess(limits) as process:
        process.start()
        with process.open(tmp_path / "a.mp4", decoder=decoder) as source:
            iterator = iter(source)
            got = [next(iterator)]
            before = memory_of(process)
            for _ in range(20):
                time.sleep(0.05)  # a decoder that nothing holds back would be through the video by now
                got.append(next(iterator))
                assert memory_of(process) - before < 50 * frame_bytes
            got += iterator
        assert same(got, expected)


@pytest.fixture(scope="module")
def long_1080p(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "a.mp4"
    make_video(path, 250, size=(1920, 1080), options={"g": "48"})
    return path


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["auto", "decord"])
def test_a_1080p_video_stays_under_400_mb_at_12_frames_a_second(long_1080p: Path, decoder: DecoderName) -> None:
    own = psutil.Process()
    before, most = own.memory_full_info().uss, 0
    with DecodingProcess() as process, process.open(long_1080p, decoder=decoder) as source:
        for frame in source:
            time.sleep(1 / 12)
            if frame.index % 8 == 0 and process.pid is not None:
                # The ring is shared, so only its process's resident set has it.
                child = psutil.Process(process.pid).memory_info().rss
                most = max(most, child + own.memory_full_info().uss - before)
    assert most < 400e6


@pytest.mark.slow
def test_thirty_thousand_frames_take_no_more_memory_than_a_few(tmp_path: Path) -> None:
    """In a process of its own, since what other tests have left behind moves that of this one."""
    make_video(tmp_path / "a.mp4", 30_000, size=(64, 48))
    code = (
        "import sys; from psutil import Process; from rts_batch.io.video.isolated.process import DecodingProcess\n"
        "with DecodingProcess() as process, process.open(sys.argv[1]) as source:\n"
        "    for frame in source:\n"
        "        if frame.index in (2_000, 29_900, 29_999):\n"
        "            print(frame.index, Process(process.pid).memory_info().rss + Process().memory_full_info().uss)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.mp4")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    sizes = dict(tuple(map(int, line.split())) for line in answer.stdout.splitlines())
    assert sizes[29_900] - sizes[2_000] < 30e6
    assert 29_999 in sizes


def test_auto_leaves_to_pyav_what_decord_could_pile_up(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", 10)
    size = 10 * 160 * 120 * 3
    for limit, decoder in ((size, "decord"), (size - 1, "pyav")):
        with (
            DecodingProcess(DecodingLimits(decode_memory=limit)) as process,
            process.open(tmp_path / "a.mp4") as source,
        ):
            assert source.info.decoder == decoder


# Crash, hang and too much memory


def read_with_trouble(process: DecodingProcess, clip: Path, number: int, decoder: DecoderName, at: int = 5) -> Frame:
    """Reads a video, sends the process a signal at a frame, and goes on."""
    with process.open(clip, decoder=decoder) as source:
        frames = []
        for frame in source:
            frames.append(frame)
            if frame.index == at:
                assert process.pid is not None
                os.kill(process.pid, number)
                if number != signal.SIGSTOP:
                    wait_until(lambda: process.pid is None or not _runs(process.pid))
        assert same(frames, bare(clip))
        return source.warnings


def _runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
@pytest.mark.long
def test_a_crash_is_an_error_that_names_the_frame(process: DecodingProcess, clip: Path, number: int) -> None:
    with pytest.raises(VideoError, match=rf"a\.mp4: pyav died of {signal.Signals(number).name} .*at frame \d+"):
        read_with_trouble(process, clip, number, "pyav")
    with process.open(clip) as source:  # the next video finds a new process
        assert same(list(source), bare(clip))
    assert process.starts == 2


@pytest.mark.long
def test_pyav_goes_on_where_decord_crashed(process: DecodingProcess, clip: Path) -> None:
    (warning,) = read_with_trouble(process, clip, signal.SIGSEGV, "auto")
    assert "decord died of SIGSEGV" in warning
    assert "PyAV went on from there" in warning


def test_a_forced_decord_that_crashes_is_an_error(process: DecodingProcess, clip: Path) -> None:
    with pytest.raises(VideoError, match="decord died of SIGSEGV"):
        read_with_trouble(process, clip, signal.SIGSEGV, "decord")


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.long
def test_a_process_killed_from_outside_is_replaced(process: DecodingProcess, clip: Path, decoder: DecoderName) -> None:
    (warning,) = read_with_trouble(process, clip, signal.SIGKILL, decoder)
    assert "was killed at frame" in warning


@pytest.mark.long
def test_a_process_killed_again_and_again_is_an_error(clip: Path) -> None:
    def read(process: DecodingProcess) -> None:
        with process.open(clip, decoder="pyav") as source:
            for _ in source:
                assert process.pid is not None
                os.kill(process.pid, signal.SIGKILL)
                wait_until(lambda: process.pid is None or not _runs(process.pid))

    with DecodingProcess(DecodingLimits(ring_frames=2, restarts=1)) as process:
        with pytest.raises(VideoError, match="pyav died of SIGKILL at frame"):
            read(process)
        assert process.starts == 2


@pytest.mark.long
def test_a_hang_is_an_error_that_names_the_frame(clip: Path) -> None:
    limits = DecodingLimits(ring_frames=2, silence=3.0)
    with DecodingProcess(limits) as process:
        with pytest.raises(VideoError, match=r"pyav hung: it made no progress for 3 s at frame \d"):
            read_with_trouble(process, clip, signal.SIGSTOP, "pyav")
        with process.open(clip) as source:
            assert len(list(source)) == FRAMES


def _read_all(process: DecodingProcess, path: Path) -> list[Frame]:
    with process.open(path, decoder="pyav") as source:
        return list(source)


@pytest.mark.long
def test_too_much_memory_is_an_error(tmp_path: Path) -> None:
    make_video(tmp_path / "large.mp4", 12, size=(3072, 2048))
    with DecodingProcess(DecodingLimits(memory=16 << 20)) as process:
        with pytest.raises(VideoError, match=r"large\.mp4: pyav needs more than 16 MiB of memory at frame \d"):
            _read_all(process, tmp_path / "large.mp4")
        make_video(tmp_path / "small.mp4", 3)
        assert len(_read_all(process, tmp_path / "small.mp4")) == 3


@pytest.mark.long
def test_a_slow_tracker_is_no_hang(clip: Path) -> None:
    # On a busy machine the process alone may take two seconds to start.
    with DecodingProcess(DecodingLimits(ring_frames=2, silence=5.0)) as process, process.open(clip) as source:
        iterator = iter(source)
        first = next(iterator)
        time.sleep(5.7)
        assert same([first, *iterator], bare(clip))


# What the process knows and how it ends


def test_the_process_sees_no_credentials(process: DecodingProcess, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    with process.open(clip) as source:
        environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        assert len(list(source)) == FRAMES
    assert b"canary" not in environment
    assert b"PATH=" in environment


def test_the_process_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys, rts_batch.io.video.isolated.child; "
        "print(sorted({'torch', 'ray', 'pyarrow', 's3fs'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.long
def test_the_process_ends_with_a_killed_owner(clip: Path, tmp_path: Path) -> None:
    code = (
        "import sys, time; from rts_batch.io.video.isolated.process import DecodingProcess; "
        "process = DecodingProcess();"
        "source = process.open(sys.argv[1]); next(iter(source)); print(process.pid, flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code, str(clip)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    assert _runs(pid)
    owner.kill()
    owner.wait()
    wait_until(lambda: not _runs(pid), 20)
