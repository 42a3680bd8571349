"""Videos with masks to train on: the standard layouts and this pipeline's own runs. Opening one reads no picture."""

from __future__ import annotations

from rts_batch.training.clips.datasets.base import AnnotatedFrame, SequenceData
from rts_batch.training.clips.datasets.boxed import BoxedFolders, got10k, lasot
from rts_batch.training.clips.datasets.masked import MaskedFolders, davis, youtube_vos
from rts_batch.training.clips.datasets.runs import RunMasks

__all__ = [
    "AnnotatedFrame",
    "BoxedFolders",
    "MaskedFolders",
    "RunMasks",
    "SequenceData",
    "davis",
    "got10k",
    "lasot",
    "youtube_vos",
]
