"""Boxes of single targets, one folder for each: LaSOT and GOT-10k."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from rts_batch.export.base import NO_CATEGORY, Categories, ExportFormat, ExportVideo, Written
from rts_batch.export.catalogue import file_names
from rts_batch.masks import Box
from rts_batch.runs.video_masks import Target

ABSENT: Box = (0.0, 0.0, 0.0, 0.0)


class _Boxes(ExportFormat):
    """The tracker's boxes. Line i is the i-th exported frame of the target, from the first that has a box on.

    A target without a box has no sequence: readers take the first line for what is to be tracked.
    """

    needs_mask = False

    def __init__(self, folder: Path, categories: Categories) -> None:
        super().__init__(folder, categories)
        self._index: list[tuple[str, str, int, int, int]] = []

    def close(self) -> None:
        """`sequences.csv` says which video and target a sequence is, and which frame its first line."""
        with (self.folder / "sequences.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["sequence", "video_id", "object_id", "first_frame", "every"])
            writer.writerows(self._index)

    def _boxes(self, video: ExportVideo, target: Target, name: str) -> Iterator[tuple[int, Box | None]]:
        first = None
        for index, row in video.track(target):
            box = row.box if row else None
            if first is None and box is None:
                continue
            first = index if first is None else first
            yield index, box
        if first is not None:
            self._index.append((name, video.masks.video_id, target.object_id, first, video.every))


class Lasot(_Boxes):
    """`<class>/<class>-<n>/` with `groundtruth.txt`, `full_occlusion.txt`, `out_of_view.txt`, images in `img/`.

    Whether an absent target is hidden or out of view is not known: it is marked as fully occluded.
    """

    def __init__(self, folder: Path, categories: Categories) -> None:
        super().__init__(folder, categories)
        known = [name for _, name in categories.items()]
        self._classes = file_names(dict.fromkeys([*known, NO_CATEGORY]), marks="_")  # readers split at the hyphen

    def add(self, video: ExportVideo) -> Written:
        written = video.written()
        for target in video.targets:
            kind = self._kind(video.category(target))
            name = f"{kind}-{video.number_in_class(target)}"
            lines, absent = [], []
            for place, (index, box) in enumerate(self._boxes(video, target, name), start=1):
                lines.append(",".join(f"{value:.7g}" for value in box or ABSENT) + "\n")
                absent.append("0" if box else "1")
                written.image(index, f"{kind}/{name}/img/{place:08d}.jpg")
                written.masks += box is not None
            if not lines:
                continue
            folder = self.folder / kind / name
            folder.mkdir(parents=True)
            (folder / "groundtruth.txt").write_text("".join(lines))
            (folder / "full_occlusion.txt").write_text(",".join(absent) + "\n")
            (folder / "out_of_view.txt").write_text(",".join("0" for _ in absent) + "\n")
        return written

    def _kind(self, category: str) -> str:
        if category not in self._classes:  # masks are there, but the manifest has another category by now
            self._classes[category] = file_names([*self._classes, category], marks="_")[category]
        return self._classes[category]


class Got10k(_Boxes):
    """`GOT-10k_Train_000001/` with `groundtruth.txt`, the three label files and `meta_info.ini`; `list.txt` beside.

    `cover.label` is 8 (wholly visible) where there is a box and 0 where there is none: occlusion is not estimated.
    """

    def add(self, video: ExportVideo) -> Written:
        written = video.written()
        height, width = video.masks.size
        for target in video.targets:
            name = f"GOT-10k_Train_{video.target_number(target):06d}"
            found = []
            for place, (index, box) in enumerate(self._boxes(video, target, name), start=1):
                found.append(box)
                written.image(index, f"{name}/{place:08d}.jpg")
                written.masks += box is not None
            if not found:
                continue
            folder = self.folder / name
            folder.mkdir()
            lines = [",".join(f"{value:.4f}" for value in box or ABSENT) for box in found]
            (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
            _write_labels(folder / "absence.label", [int(box is None) for box in found])
            _write_labels(folder / "cover.label", [8 if box else 0 for box in found])
            _write_labels(folder / "cut_by_image.label", [int(_touches_border(box, width, height)) for box in found])
            fps = (video.masks.fps or 0) / video.every
            (folder / "meta_info.ini").write_text(
                f"[METAINFO]\nurl: {video.name}\nbegin: 00:00:00\nend: 00:00:00\nanno_fps: {fps:g}Hz\n"
                f"object_class: {' '.join(video.category(target).split())}\nmotion_class: \nmajor_class: \n"
                f"root_class: \nmotion_adverb: \nresolution: ({width}, {height})\n",
                encoding="utf-8",
            )
        return written

    def close(self) -> None:
        super().close()
        (self.folder / "list.txt").write_text("".join(f"{name}\n" for name, *_ in self._index), encoding="utf-8")


def _touches_border(box: Box | None, width: int, height: int) -> bool:
    if box is None:
        return False
    x, y, w, h = box
    return x <= 0 or y <= 0 or x + w >= width or y + h >= height


def _write_labels(path: Path, values: list[int]) -> None:
    path.write_text("".join(f"{value}\n" for value in values))
