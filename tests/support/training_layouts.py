"""Miniature data sets in the standard layouts: a bright square that moves two pixels a frame over dark noise."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from rts_batch.io.results.writer import ResultsWriter
from rts_batch.manifest import read_manifest
from rts_batch.masks import State
from tests.support.run_folders import row_of

SIZE = (48, 64)


def picture(frame: int) -> np.ndarray:
    """The picture of a frame, in OpenCV's order: the objects of `two_objects` in two colours."""
    image = np.random.default_rng(frame).integers(0, 100, (*SIZE, 3), dtype=np.uint8)
    values = two_objects(frame)
    image[values == 1] = (40, 220, 250)
    image[values == 3] = (250, 60, 200)
    return image


def square(frame: int, *, top: int = 10, side: int = 12) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[top : top + side, 4 + 2 * frame : 4 + 2 * frame + side] = 1
    return mask


def square_box(frame: int, *, top: int = 10, side: int = 12) -> tuple[int, int, int, int]:
    return 4 + 2 * frame, top, side, side


def write_picture(path: Path, frame: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture(frame))


def write_palette(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values, mode="P")
    image.putpalette([channel for value in range(256) for channel in (value * 37 % 256, value * 91 % 256, value)])
    image.save(path)


def two_objects(frame: int) -> np.ndarray:
    """Object 1 in all frames, object 3 from the fifth on."""
    values = square(frame)
    if frame >= 4:
        values[square(frame, top=30) == 1] = 3
    return values


def write_masked(images: Path, masks: Path, video: str, *, frames: int = 14) -> None:
    for frame in range(frames):
        write_picture(images / video / f"{5 * frame:05d}.jpg", frame)
        write_palette(masks / video / f"{5 * frame:05d}.png", two_objects(frame))


def write_youtube_vos(root: Path, videos: tuple[str, ...] = ("v1", "v2")) -> Path:
    for video in videos:
        write_masked(root / "JPEGImages", root / "Annotations", video)
    entry = {"objects": {"1": {"category": "cat", "frames": []}, "3": {"category": "dog", "frames": []}}}
    (root / "meta.json").write_text(json.dumps({"videos": dict.fromkeys(videos, entry)}))
    return root


def write_davis(root: Path) -> Path:
    write_masked(root / "JPEGImages/480p", root / "Annotations/480p", "bear")
    write_masked(root / "JPEGImages/480p", root / "Annotations/480p", "camel")
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/train.txt").write_text("bear\n")
    return root


def write_boxes(folder: Path, frames: int) -> None:
    lines = [",".join(f"{value}.00" for value in square_box(frame % 20)) for frame in range(frames)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")


def write_got10k(root: Path, names: tuple[str, ...] = ("GOT-10k_Train_000001",), *, frames: int = 14) -> Path:
    for name in names:
        write_boxes(root / name, frames)
        for frame in range(frames):
            write_picture(root / name / f"{frame + 1:08d}.jpg", frame)
        (root / name / "absence.label").write_text("".join(f"{int(frame == 2)}\n" for frame in range(frames)))
        (root / name / "cover.label").write_text("".join(f"{0 if frame == 3 else 8}\n" for frame in range(frames)))
    return root


def write_mask_pictures(root: Path, name: str, *, frames: int = 14, step: int = 1) -> Path:
    for frame in range(0, frames, step):
        path = root / name / f"{frame + 1:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), square(frame % 20))
    return root


def write_lasot(root: Path, *, frames: int = 61) -> Path:
    folder = root / "cat" / "cat-7"
    write_boxes(folder, frames)
    for frame in range(0, frames, 5):
        write_picture(folder / "img" / f"{frame + 1:08d}.jpg", frame)
    (folder / "full_occlusion.txt").write_text(",".join(str(int(frame == 5)) for frame in range(frames)))
    (folder / "out_of_view.txt").write_text(",".join(str(int(frame == 10)) for frame in range(frames)))
    return root


def write_run(folder: Path, *, frames: int = 16, videos: tuple[str, ...] = ("a", "b")) -> Path:
    """A run's folder over folders of frames; the last video is not finished. Frames 6 and 7 are worse than the rest."""
    rows = ["video_id,video,box,frame"]
    for video in videos:
        for frame in range(frames):
            write_picture(folder.parent / video / f"{frame:05d}.jpg", frame)
        rows.append(f'{video},{folder.parent / video},"{",".join(map(str, square_box(0)))}",0')
    manifest_file = folder.parent / "manifest.csv"
    manifest_file.write_text("\n".join(rows) + "\n")
    manifest = read_manifest(str(manifest_file))
    (folder / "masks").mkdir(parents=True)
    (folder / "manifest.parquet").write_bytes(manifest.to_parquet())
    for task in manifest.tasks[:-1]:
        path = folder / "masks" / f"{task.key}.parquet"
        with ResultsWriter(path, targets={1: {}}, task={"video_id": task.video_id, "key": task.key}) as writer:
            for frame in range(frames):
                score = None if frame == 0 else 0.1 if frame == 6 else 0.9
                state: State = "prompt" if frame == 0 else "lost" if frame == 7 else "tracked"
                writer.add(row_of(square(frame), frame, state, video_id=task.video_id, score=score, confidence=0.95))
            writer.close(frames=frames)
    return folder


def write_stills(folder: Path, *, pictures: int = 30) -> Path:
    """Draws pictures with two objects each and an index of them, and returns the index."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(pictures):
        image = cv2.GaussianBlur(rng.integers(0, 256, (120, 160, 3), np.uint8), (0, 0), 3)
        mask = np.zeros((120, 160), np.uint8)
        for instance, x in ((1, 45), (2, 115)):
            cv2.ellipse(mask, (x, 60), (20 + number % 7, 30), 0, 0, 360, instance, -1)
            image[mask == instance] = rng.integers(0, 256, 3)
        cv2.imwrite(str(folder / f"{number}.jpg"), image)
        cv2.imwrite(str(folder / f"{number}.png"), mask)
        rows.append({"path": f"{number}.jpg", "mask": f"{number}.png", "tier": "clean"})
    write_index(folder / "index.csv", rows)
    return folder / "index.csv"


def write_index(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, ["path", "mask", "tier"])
        writer.writeheader()
        writer.writerows(rows)
