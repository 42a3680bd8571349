"""Writes synthetic clips with their truth as videos of single pictures, in the layout of DAVIS.

    python -m rts_batch.training.clips.stills.write_clips OUT INDEX [INDEX…] --split held-out --count 40 --frames 90

`OUT` gets `JPEGImages/480p/<clip>/<frame>.jpg`, `Annotations/480p/<clip>/<frame>.png` (1 the target, 2 others) and
`ImageSets/2017/val.txt`, so that everything that reads DAVIS reads it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from rts_batch.training.clips.stills.films import Films
from rts_batch.training.clips.stills.stills import read_index
from rts_batch.training.clips.stills.whole_frames import HARD, LONG, TruthClip, truth_clips

JPEG_QUALITY = 92


def write_clips(clips: Iterable[TruthClip], out: Path) -> list[str]:
    """Write clips one after the other and return their names."""
    names = []
    for place, clip in enumerate(clips):
        name = f"clip-{place:03d}"
        pictures, labels = (out / kind / "480p" / name for kind in ("JPEGImages", "Annotations"))
        for folder in (pictures, labels):
            folder.mkdir(parents=True, exist_ok=True)
        for frame, (image, target, others) in enumerate(zip(clip.frames, clip.masks, clip.others, strict=True)):
            stem = f"{frame:05d}"
            cv2.imwrite(
                str(pictures / f"{stem}.jpg"),
                np.ascontiguousarray(image[:, :, ::-1]),
                [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY],
            )
            cv2.imwrite(str(labels / f"{stem}.png"), np.where(target, 1, 2 * others.astype(np.uint8)).astype(np.uint8))
        names.append(name)
    lists = out / "ImageSets" / "2017"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / "val.txt").write_text("".join(f"{name}\n" for name in names))
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("indexes", type=Path, nargs="+", help="index.csv of stills, and of footage")
    parser.add_argument("--split", choices=("train", "held-out"), default="held-out")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--frames", type=int, default=90)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenes", choices=("hard", "long"), default="long")
    options = parser.parse_args()
    stills = read_index(options.indexes, split=options.split)
    films = Films.read(options.indexes, split=options.split)
    scenes = HARD if options.scenes == "hard" else LONG
    clips = truth_clips(
        stills, count=options.count, seed=options.seed, frames=options.frames, options=scenes, films=films
    )
    print(len(write_clips(clips, options.out)), "clips in", options.out)


if __name__ == "__main__":
    main()
