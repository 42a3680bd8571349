"""The damage corpus: small video files with something wrong or unusual, always the same bytes with one FFmpeg.

`CORPUS` names them; `make_corpus` writes them all, `write_table` what became of each (docs/damage-corpus.md)::

    python -m tests.support.damaged docs/damage-corpus.md
"""

from __future__ import annotations

import random
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from rts_batch.errors import VideoError
from rts_batch.io.video.isolated.process import DecodingProcess
from tests.support.videos import make_audio, make_video, remux

FRAMES = 40
GROUPS = {"g": "10", "bf": "2"}


@dataclass(frozen=True)
class Damaged:
    """One file of the corpus. `whole` gives the frames that it may show, where that is known: an undamaged file."""

    name: str
    make: Callable[[Path], None]
    whole: str | None = None


def _plain(**options: Any) -> Callable[[Path], None]:
    return lambda path: _discard(make_video(path, **{"frames": FRAMES, **options}))


def _discard(_: object) -> None:
    pass


def _changed(source: str, change: Callable[[bytearray], bytes | bytearray]) -> Callable[[Path], None]:
    """A copy of one of the undamaged files, changed."""
    return lambda path: _discard(path.write_bytes(change(bytearray((path.parent / source).read_bytes()))))


def _cut(part: float) -> Callable[[bytearray], bytearray]:
    return lambda data: data[: round(len(data) * part)]


def _hole(data: bytearray) -> bytearray:
    start = len(data) // 2
    data[start : start + 400] = bytes(400)
    return data


def _flips(count: int) -> Callable[[bytearray], bytearray]:
    """Flips single bits in what lies behind the header."""

    def flip(data: bytearray) -> bytearray:
        chance = random.Random(count)
        for _ in range(count):
            data[chance.randrange(len(data) // 4, len(data))] ^= 1 << chance.randrange(8)
        return data

    return flip


def _without_index(data: bytearray) -> bytearray:
    return data.replace(b"moov", b"gone")


def _lying_count(data: bytearray) -> bytearray:
    """Doubles the number of frames in the table of durations."""
    place = data.index(b"stts") + 12
    assert int.from_bytes(data[place : place + 4], "big") == FRAMES
    data[place : place + 4] = (2 * FRAMES).to_bytes(4, "big")
    return data


def _size_change(path: Path) -> None:
    parts = [path.with_name(f"part{number}.h264") for number in range(2)]
    make_video(parts[0], 10)
    make_video(parts[1], 10, size=(128, 96))
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()


def _two_streams(path: Path) -> None:
    with av.open(str(path.parent / "whole.mp4")) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copies = [target.add_stream_from_template(stream) for _ in range(2)]
        for packet in source.demux(stream):
            if packet.dts is not None:
                for copy in copies:
                    packet.stream = copy
                    target.mux(packet)


def _shifted(seconds: float, **options: str) -> Callable[[Path], None]:
    return lambda path: remux(path.parent / "whole.mp4", path, shift=seconds, options=options)


def _alpha(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "rgba"
        for index in range(5):
            picture = np.full((120, 160, 4), 40 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgba")))
        container.mux(stream.encode(None))


def _noise(path: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(20_000))


X265 = {"codec": "libx265"}
WHOLE: dict[str, Callable[[Path], None]] = {
    "whole.mp4": _plain(options=GROUPS),
    "index-first.mp4": _plain(options=GROUPS, container_options={"movflags": "faststart"}),
    "whole.mkv": _plain(options=GROUPS),
    "whole.webm": _plain(codec="libvpx-vp9", options={"g": "10"}),
    "whole.ts": _plain(options=GROUPS),
    "whole.avi": _plain(codec="mpeg4", options=GROUPS),
    "fragmented.mp4": _plain(options=GROUPS, container_options={"movflags": "frag_keyframe+empty_moov"}),
}
CORPUS: tuple[Damaged, ...] = (
    *(Damaged(name, make, name) for name, make in WHOLE.items()),
    *(
        Damaged(f"cut-{round(100 * part)}.{name}", _changed(name, _cut(part)), name)
        for name, parts in {
            "index-first.mp4": (0.02, 0.3, 0.6, 0.9, 0.995),
            "whole.mkv": (0.02, 0.5, 0.95),
            "whole.ts": (0.5, 0.95),
            "whole.avi": (0.5, 0.95),
            "whole.webm": (0.6,),
            "fragmented.mp4": (0.5, 0.9),
            "whole.mp4": (0.9,),
        }.items()
        for part in parts
    ),
    *(
        Damaged(f"hole.{name}", _changed(name, _hole), name)
        for name in ("whole.mp4", "whole.mkv", "whole.ts", "whole.avi")
    ),
    *(
        Damaged(f"flips-{count}.{name}", _changed(name, _flips(count)), name)
        for name in ("index-first.mp4", "whole.mkv", "whole.webm", "whole.ts")
        for count in (1, 30)
    ),
    Damaged("no-index.mp4", _changed("whole.mp4", _without_index)),
    Damaged("lying-count.mp4", _changed("whole.mp4", _lying_count), "whole.mp4"),
    Damaged("empty.mp4", lambda path: path.write_bytes(b"") and None),
    Damaged("noise.mp4", _noise),
    Damaged("text.mkv", lambda path: _discard(path.write_text("no video\n" * 300))),
    Damaged("audio.m4a", make_audio),
    Damaged("no-frames.mp4", _plain(frames=0)),
    Damaged("one-frame.mp4", _plain(frames=1)),
    Damaged("1x1.mkv", _plain(codec="ffv1", size=(1, 1), frames=5)),
    Damaged("16x16.mp4", _plain(size=(16, 16), frames=5)),
    Damaged("16x8192.mp4", _plain(size=(16, 8192), frames=2)),
    Damaged("size-change.h264", _size_change),
    Damaged("two-streams.mp4", _two_streams, "whole.mp4"),
    Damaged("negative-times.mkv", _shifted(-0.2, avoid_negative_ts="disabled"), "whole.mp4"),
    Damaged("edit-list.mp4", _shifted(-0.2, avoid_negative_ts="disabled"), "whole.mp4"),
    Damaged("interlaced.mp4", _plain(options={"x264-params": "interlaced=1"})),
    Damaged("ten-bit.mp4", _plain(**X265, frames=5, pixels="yuv420p10le")),
    Damaged(
        "hdr.mp4",
        _plain(
            **X265,
            frames=5,
            pixels="yuv420p10le",
            options={"x265-params": "log-level=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"},
        ),
    ),
    Damaged("444.mp4", _plain(pixels="yuv444p", frames=5)),
    Damaged("alpha.mov", _alpha),
    Damaged("av1.mp4", _plain(codec="libsvtav1", frames=6)),
    Damaged("b-frames.avi", _plain(codec="mpeg4", options={"bf": "2"})),
    Damaged("moving.gif", _plain(codec="gif", pixels="rgb8", frames=5)),
    Damaged("playlist.m3u8", lambda path: _discard(path.write_text("#EXTM3U\n#EXTINF:1,\nwhole.ts\n#EXT-X-ENDLIST\n"))),
)


def make_corpus(folder: Path) -> None:
    for item in CORPUS:
        item.make(folder / item.name)


@dataclass(frozen=True)
class Outcome:
    name: str
    decoder: str
    frames: list[tuple[float | None, bytes]]
    """Time and pixels of each."""
    damage: str
    error: str


def read_all(process: DecodingProcess, path: Path) -> Outcome:
    """Reads a file as a worker does."""
    frames = []
    try:
        with process.open(path) as source:
            frames = [(frame.time, frame.image.tobytes()) for frame in source]
            warnings = [*source.warnings]
            assert bool(source.damage) <= bool(warnings)
            return Outcome(path.name, source.info.decoder, frames, "; ".join(warnings), "")
    except VideoError as error:
        return Outcome(path.name, "", frames, "", str(error).replace(f"{path.parent}/", ""))


def write_table(target: Path) -> None:
    lines = [
        "# The damage corpus",
        "",
        "What becomes of each file of `tests/support/damaged.py`, which wrote this table itself",
        "(`python -m tests.support.damaged docs/damage-corpus.md`).",
        f"Names that end like an undamaged file's (the first {len(WHOLE)}, of {FRAMES} frames) were made from it.",
        "",
        "| file | decoder | frames | what is said of it |",
        "|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder, DecodingProcess() as process:
        make_corpus(Path(folder))
        for item in CORPUS:
            found = read_all(process, Path(folder) / item.name)
            said = re.sub(r"\s+", " ", found.error or found.damage).replace("|", "¦")
            count = len(found.frames) if found.decoder else ""
            lines.append(f"| `{found.name}` | {found.decoder or 'error'} | {count} | {said} |")
    target.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write_table(Path(sys.argv[1]))
