"""The archives that the servers of TrackingNet and YouTube-VOS take, whose annotations are not public."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rts_batch.errors import ResultsError, UsageError
from rts_batch.evaluation.benchmarks import VotBenchmark, find_benchmark
from rts_batch.evaluation.layouts.sequences import BoxSequence, MaskSequence, image_names
from rts_batch.evaluation.measures.boxes import fill_missing
from rts_batch.evaluation.predictions import Predictions
from rts_batch.io.storage import files
from rts_batch.masks import LABEL_PALETTE

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The files' date, always the same, so that the same run gives the same bytes."""


def write_archive(benchmark: str, root: Path, run: str, output: str) -> int:
    """Write the ZIP archive that a benchmark's server scores, and return the number of sequences in it.

    TrackingNet: `<name>.txt` with a box a line. YouTube-VOS: `Annotations/<video>/<frame>.png`, palette images.

    Raises:
        UsageError: no such benchmark, or one that is scored here.
        ResultsError: the run lacks sequences or frames.
        StorageError: the archive cannot be written.
    """
    chosen = find_benchmark(benchmark)
    if isinstance(chosen, VotBenchmark) or chosen.name not in ("trackingnet", "youtubevos2019"):
        raise UsageError(f"{chosen.title} takes no archive; archives are for trackingnet and youtubevos2019")
    predictions = Predictions(run)
    sequences = chosen.sequences(root.resolve())
    if missing := sorted({sequence.name for sequence in sequences} - predictions.video_ids):
        raise ResultsError(
            f"{run} lacks {len(missing)} of the {len(sequences)} sequences of {chosen.title}: "
            f"{', '.join(missing[:5])}; the server takes complete archives only, finish the run"
        )
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "archive.zip"
        with zipfile.ZipFile(local, "w", zipfile.ZIP_DEFLATED) as archive:
            for sequence in sequences:
                if isinstance(sequence, BoxSequence):
                    _add_boxes(archive, sequence, predictions)
                else:
                    _add_masks(archive, sequence, predictions)
        files.put_file(local, output)
    return len(sequences)


def _add_boxes(archive: zipfile.ZipFile, sequence: BoxSequence, predictions: Predictions) -> None:
    frames = len(image_names(sequence.folder))
    boxes = predictions.boxes(sequence.name, start=sequence.start, frames=frames)
    boxes = fill_missing(np.concatenate([sequence.truth[:1], boxes[1:]]))
    lines = [",".join(f"{value:.4f}" for value in box) for box in boxes]
    _add(archive, f"{sequence.name}.txt", ("\n".join(lines) + "\n").encode())


def _add_masks(archive: zipfile.ZipFile, sequence: MaskSequence, predictions: Predictions) -> None:
    """One label image for each frame from the first object's beginning on."""
    images: dict[int, NDArray[np.uint8]] = {}
    for target in sequence.objects:
        wanted = range(target.start, len(sequence.frames))
        for frame, mask in predictions.masks(sequence.name, target.object_id, start=target.start, wanted=wanted):
            image = images.setdefault(frame, np.zeros(mask.shape, np.uint8))
            image[mask & (image == 0)] = target.object_id
    for frame, image in sorted(images.items()):
        picture = Image.fromarray(image)
        picture.putpalette(LABEL_PALETTE)
        data = io.BytesIO()
        picture.save(data, "PNG")
        _add(archive, f"Annotations/{sequence.name}/{Path(sequence.frames[frame]).stem}.png", data.getvalue())


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, data)
