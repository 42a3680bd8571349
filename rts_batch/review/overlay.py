"""A contact sheet of a run: some frames of each video with the masks painted over them, in one PNG.

`python -m rts_batch.review.overlay RUN --out sheet.png`
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import ResultsError, RtsBatchError
from rts_batch.io.results.writer import read_masks
from rts_batch.io.storage import files as storage
from rts_batch.io.video.opening import open_video
from rts_batch.manifest import VideoTask, read_manifest
from rts_batch.masks import decode_rle
from rts_batch.review.painting import choose_colours, paint

TILE_WIDTH = 480
COLUMNS = 4
LABEL_HEIGHT = 22


def contact_sheet(run_folder: str, *, frames: int = 8) -> NDArray[np.uint8]:
    """Paints `frames` evenly spaced tracked frames of every finished video.

    Returns:
        [H, W, 3] uint8 RGB; videos one under another, time from left to right.

    Raises:
        ResultsError: The run has no finished video.
        VideoError: A finished video cannot be read any more.
    """
    blocks = []
    for task in read_manifest(storage.join(run_folder, "manifest.parquet")).tasks:
        rows = read_masks(run_folder, video_ids=[task.video_id]).to_pylist()
        if rows:
            blocks.append(_tile(_painted(task, rows, frames)))
    if not blocks:
        raise ResultsError(f"{run_folder} has no finished video to show")
    width = max(block.shape[1] for block in blocks)
    return np.vstack([np.pad(block, ((0, 0), (0, width - block.shape[1]), (0, 0))) for block in blocks])


def _painted(task: VideoTask, rows: Sequence[Mapping[str, Any]], count: int) -> list[NDArray[np.uint8]]:
    covered = sorted({row["frame"] for row in rows})
    wanted = {covered[round(place)] for place in np.linspace(0, len(covered) - 1, count)}
    colours = choose_colours({row["object_id"] for row in rows})
    tiles = []
    with tempfile.TemporaryDirectory(prefix="rts-batch-") as scratch:
        path = storage.fetch(task.uri, scratch)
        with open_video(str(path), start=min(wanted), end=max(wanted) + 1) as source:
            for frame in source:
                if frame.index in wanted:
                    image = frame.image.copy()
                    states = []
                    for row in rows:
                        if row["frame"] == frame.index:
                            mask = decode_rle(row["rle"], row["height"], row["width"])
                            paint(image, mask, colours[row["object_id"]])
                            states.append(row["state"])
                    tiles.append(_labelled(image, f"{task.video_id}  {frame.index}  {', '.join(states)}"))
    return tiles


def _labelled(image: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    height = round(image.shape[0] * TILE_WIDTH / image.shape[1])
    tile = cv2.resize(image, (TILE_WIDTH, height), interpolation=cv2.INTER_AREA)
    tile[:LABEL_HEIGHT] //= 3
    cv2.putText(tile, text, (8, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return np.asarray(tile, np.uint8)


def _tile(tiles: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    tiles = tiles + [np.zeros_like(tiles[0])] * (-len(tiles) % COLUMNS)
    return np.vstack([np.hstack(tiles[first : first + COLUMNS]) for first in range(0, len(tiles), COLUMNS)])


def main() -> int:
    parser = argparse.ArgumentParser(description="Paint a run's masks over some frames of each video.")
    parser.add_argument("run", help="the run's folder")
    parser.add_argument("--out", required=True, type=Path, help="the PNG to write")
    parser.add_argument("--frames", type=int, default=8, help="frames of each video (default: 8)")
    options = parser.parse_args()
    try:
        sheet = contact_sheet(options.run, frames=options.frames)
    except RtsBatchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    cv2.imwrite(str(options.out), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    return 0


if __name__ == "__main__":
    sys.exit(main())
