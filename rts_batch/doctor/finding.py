"""One thing that the doctor has looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]
"""Fit for runs; fit, but slower or with less than it could have; unfit."""


@dataclass(frozen=True)
class Finding:
    level: Level
    about: str
    """What has been looked at, in a word or two."""
    text: str
    """What is there."""
    advice: str | None = None
    """What to do about it; None where nothing is to be done."""
