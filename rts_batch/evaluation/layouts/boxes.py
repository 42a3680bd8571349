"""Where the box benchmarks keep their sequences: LaSOT, NFS, UAV123, TrackingNet and GOT-10k as they are unpacked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np

from rts_batch.errors import UsageError
from rts_batch.evaluation.layouts.sequences import BoxSequence, image_names, read_boxes, read_flags

UAV123_STARTS: Final = {
    "bird1_2": 775, "bird1_3": 1573, "car1_2": 751, "car1_3": 1627, "car6_2": 487, "car6_3": 1807, "car6_4": 2953,
    "car6_5": 3925, "car8_2": 1357, "car16_2": 415, "group1_2": 1333, "group1_3": 2515, "group1_4": 3925,
    "group2_2": 907, "group2_3": 1771, "group3_2": 1567, "group3_3": 2827, "group3_4": 4369, "person2_2": 1189,
    "person4_2": 1501, "person5_2": 877, "person7_2": 1249, "person8_2": 1075, "person12_2": 601, "person14_2": 847,
    "person14_3": 1813, "person17_2": 1501, "person19_2": 1243, "person19_3": 2791, "truck4_2": 577, "uav1_2": 1555,
    "uav1_3": 2473,
}  # fmt: skip
"""First frame, counted from 1, of the sequences that do not begin where their folder does."""


def lasot_sequences(root: Path) -> list[BoxSequence]:
    """`[<class>/]<class>-<n>/{img/, groundtruth.txt, full_occlusion.txt, out_of_view.txt}`.

    Where `testing_set.txt` stands in the root, only the sequences that it names.
    """
    found = {
        path.parent.name: path.parent for pattern in ("*", "*/*") for path in root.glob(f"{pattern}/groundtruth.txt")
    }
    split = root / "testing_set.txt"
    if split.exists():
        wanted = split.read_text().split()
        if absent := sorted(set(wanted) - set(found)):
            raise UsageError(
                f"{split} names {len(absent)} sequences that {root} does not hold: {', '.join(absent[:5])}"
            )
        found = {name: found[name] for name in wanted}
    sequences = []
    for name, folder in sorted(found.items()):
        truth = read_boxes(folder / "groundtruth.txt")
        absent_flags = [read_flags(folder / f"{kind}.txt", len(truth)) for kind in ("full_occlusion", "out_of_view")]
        sequences.append(BoxSequence(name, folder / "img", truth, (absent_flags[0] + absent_flags[1]) > 0))
    return _some(sequences, root, "<class>/<class>-<n>/groundtruth.txt")


def nfs_sequences(root: Path) -> list[BoxSequence]:
    """The version with 30 frames/s: `<name>/30/{<name>/, <name>.txt}`; of annotation at 240 frames/s every 8th line."""
    sequences = []
    for path in sorted(root.glob("*/30/*.txt")):
        folder = path.with_suffix("")
        frames = len(image_names(folder)) if folder.is_dir() else 0
        rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
        try:
            corners = np.array([[float(word) for word in row[1:5]] for row in rows]).reshape(-1, 4)
        except ValueError as error:
            raise UsageError(f"{path}: {error}; its lines are id, x1, y1, x2, y2 and flags") from None
        truth = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        if frames and abs(len(truth) / frames - 8) < 1:
            truth = truth[::8]
        if not frames or abs(len(truth) - frames) > 1:
            raise UsageError(f"{path} annotates {len(truth)} frames, but {folder} holds {frames}")
        truth = truth[:frames]
        sequences.append(BoxSequence(folder.name, folder, truth, np.zeros(len(truth), bool)))
    return _some(sequences, root, "<name>/30/<name>.txt")


def uav123_sequences(root: Path) -> list[BoxSequence]:
    """`anno/UAV123/<name>.txt` and `data_seq/UAV123/<folder>/`; several sequences may share a folder."""
    sequences = []
    for path in sorted((root / "anno" / "UAV123").glob("*.txt")):
        name, truth = path.stem, read_boxes(path)
        folder = root / "data_seq" / "UAV123" / name
        if not folder.exists() and "_" in name:
            folder = folder.with_name(name.rsplit("_", 1)[0])
        sequences.append(BoxSequence(name, folder, truth, np.zeros(len(truth), bool), UAV123_STARTS.get(name, 1) - 1))
    return _some(sequences, root, "anno/UAV123/<name>.txt")


def trackingnet_sequences(root: Path) -> list[BoxSequence]:
    """`[TEST/]anno/<name>.txt` and `[TEST/]frames/<name>/`; the test set annotates the first frame only."""
    base = root / "TEST" if (root / "TEST").is_dir() else root
    sequences = []
    for path in sorted((base / "anno").glob("*.txt")):
        truth = read_boxes(path)
        sequences.append(BoxSequence(path.stem, base / "frames" / path.stem, truth, np.zeros(len(truth), bool)))
    return _some(sequences, root, "TEST/anno/<name>.txt")


def got10k_sequences(root: Path) -> list[BoxSequence]:
    """`list.txt` and `<name>/{*.jpg, groundtruth.txt, cover.label}`, in the folder of one subset (`val` or `test`)."""
    names = root / "list.txt"
    if not names.exists():
        raise UsageError(f"{names} does not exist; give the folder of one subset, such as GOT-10k/val")
    sequences = []
    for name in names.read_text().split():
        truth = read_boxes(root / name / "groundtruth.txt")
        cover = root / name / "cover.label"
        absent = read_flags(cover, len(truth)) <= 0 if cover.exists() else np.zeros(len(truth), bool)
        sequences.append(BoxSequence(name, root / name, truth, absent))
    return _some(sequences, root, "<name>/groundtruth.txt")


def _some(sequences: Iterable[BoxSequence], root: Path, pattern: str) -> list[BoxSequence]:
    found = list(sequences)
    if not found:
        raise UsageError(f"{root} holds no sequence; expected {pattern} in it")
    return found
