"""Weights that others publish: whose they are, where they lie, and where they are kept once they have been fetched.

Light: the command line asks before it imports PyTorch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from rts_batch.errors import WeightsError

CACHE_VARIABLE: Final = "RTS_BATCH_CACHE"


@dataclass(frozen=True)
class Publication:
    """Official checkpoints under one name."""

    name: str
    what: str
    authors: str
    licence: str
    """What is known of it; recorded in the file that is made of them."""
    drive_folder: str
    """Id of the authors' folder on Google Drive."""
    tracker: str
    """Name of the file with the tracker's network."""
    sta: str
    """Name of the file with the network that makes a mask of a box."""

    @property
    def address(self) -> str:
        return f"https://drive.google.com/drive/folders/{self.drive_folder}"

    @property
    def files(self) -> tuple[str, str]:
        return self.tracker, self.sta


PUBLISHED: Final[Mapping[str, Publication]] = MappingProxyType(
    {
        "rts50": Publication(
            name="rts50",
            what="RTS with a ResNet-50, as measured in the paper, and its network for boxes",
            authors="M. Paul, M. Danelljan, C. Mayer, L. Van Gool (Robust Visual Tracking by Segmentation, ECCV 2022)",
            licence="none is known for the checkpoints alone; their authors publish them with an implementation that "
            "is under GPL-3.0",
            drive_folder="1mOSA6HZ80zDu-6R7EOSiW8YwQMlzR5SQ",
            tracker="rts50.pth",
            sta="sta.pth.tar",
        )
    }
)


BUILT_IN: Final = ("rts-mini", "rts-mini-untrained")
"""Weights that come with the package."""

DATA: Final = Path(__file__).parent / "data"
"""Weights files that the package brings along."""

DEFAULT_WEIGHTS: Final = "rts-mini" if (DATA / "rts-mini.safetensors").is_file() else "rts-mini-untrained"
"""The trained small network where this release brings it."""

NAMES: Final = (*BUILT_IN, *PUBLISHED)
"""What stands for weights wherever a file of them may; any other word is a path or a URI."""


def cache_folder() -> Path:
    """Where fetched weights are kept: as `RTS_BATCH_CACHE` says, else where the platform keeps such files.

    Raises:
        WeightsError: there is no such place.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser().absolute()
    try:
        home = Path.home()
    except RuntimeError:  # a user id that the system does not know has none
        raise WeightsError(f"there is no home folder to keep weights in; set {CACHE_VARIABLE} to a folder") from None
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "rts-batch"
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else home / ".cache") / "rts-batch"


def cached(name: str) -> Path:
    """Where the weights of a published name are, or will be once `rts-batch weights get` has fetched them."""
    return cache_folder() / "weights" / f"{name}.safetensors"
