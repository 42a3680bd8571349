"""What the page asks and sends, checked."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Spot(BaseModel, extra="forbid"):
    """A target on a frame."""

    video_id: str
    object_id: int = Field(ge=1)
    frame: int = Field(ge=0)


class Change(BaseModel, extra="forbid"):
    """What is said of a target: its mask on a frame, that it is absent from there on, or only its category."""

    video_id: str
    object_id: int = Field(ge=1)
    frame: int | None = Field(default=None, ge=0)
    counts: str | None = None
    """Of the COCO RLE of its mask."""
    absent: bool = False
    category: str | None = Field(default=None, max_length=200)


class Save(BaseModel, extra="forbid"):
    version: str
    changes: list[Change] = Field(default=[], max_length=10_000)
    removed: list[Spot] = Field(default=[], max_length=10_000)


class TrackAgain(BaseModel, extra="forbid"):
    bidirectional: bool = False
    """Whether from either side of each prompt."""


class BoxOnFrame(BaseModel, extra="forbid"):
    video_id: str
    frame: int = Field(ge=0)
    box: tuple[float, float, float, float]


class Marked(BaseModel, extra="forbid"):
    object_id: int = Field(ge=1)
    counts: str


class Ahead(BaseModel, extra="forbid"):
    video_id: str
    frame: int = Field(ge=0)
    marked: list[Marked] = Field(min_length=1, max_length=50)


class Masks(BaseModel):
    id: str
    first: int = Field(ge=0)
    count: int = Field(default=1, ge=1)


class Frame(BaseModel):
    id: str
    index: int = Field(ge=0)
    width: int | None = Field(default=None, ge=16)
    """Pixels that are shown of its width; None asks for all."""
