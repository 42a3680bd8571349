"""Which pictures of a folder or archive are a video's frames, and in which order: decided once, for the whole of it.

Pictures whose names differ only in their numbers are a series. One series is a video. Beside it there may be masks,
which are left out with a warning; whatever else could be meant is refused, with names.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from pathlib import PurePosixPath
from typing import Final

from rts_batch.errors import VideoError
from rts_batch.io.video.picture_names import READ, UNREAD, Numbers, PictureName, is_picture

LOSSLESS: Final = {".png", ".bmp", ".tif", ".gif", ".pgm", ".ppm"}
"""What a mask is kept in that has the very name of its frame."""

COMPARED: Final = 8
"""With more kinds of names than this the names have no system, and no two kinds are compared."""

LISTED: Final = 4
"""Kinds of names that a message gives."""

IsMask = Callable[[Sequence[str]], bool]
"""Says of pictures whether they look like masks: a few flat colours."""


@dataclass
class Chosen:
    """The frames in order, and what a labeller should know of how they were chosen."""

    names: list[str]
    warnings: list[str] = field(default_factory=list)


@dataclass
class _Series:
    """Pictures of one kind of name, folder and ending, in order."""

    names: list[PictureName]

    def __post_init__(self) -> None:
        self.names.sort(key=lambda name: name.order)
        self.first = self.names[0]

    @cached_property
    def keys(self) -> set[tuple[Decimal | str, ...]]:
        """The numbers in the names, but for those that never change, as in leftImg8bit."""
        keys = {name.key for name in self.names}
        columns = [column for column in zip(*keys, strict=True) if len(set(column)) > 1]
        return set(zip(*columns, strict=True)) or keys

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        return f"{len(self)} picture{'s' if len(self) > 1 else ''} like {self.first.name}"

    def goes_with(self, other: _Series) -> bool:
        """Whether some of its pictures have the numbers of one of the other's, or those and one more."""
        return any(key in other.keys or key[:-1] in other.keys for key in self.keys)

    def sample(self) -> list[str]:
        return [self.names[place].name for place in sorted({0, len(self) // 2, len(self) - 1})]


def choose_frames(path: str, names: Iterable[str], is_mask: IsMask) -> Chosen:
    """Choose the frames among the files of a folder or archive.

    Raises:
        VideoError: there are none, or it is not clear which are meant; `path` is its name.
    """
    pictures = sorted(filter(is_picture, names))
    if not pictures:
        raise VideoError(f"{path} holds no images; as a video it must hold {', '.join(READ)} files")
    numbers = Numbers.of(PurePosixPath(name).stem for name in pictures)
    kinds: dict[tuple[str, str, str], list[PictureName]] = {}
    for name in (PictureName(name, numbers) for name in pictures):
        kinds.setdefault((name.folder, name.text, name.ending), []).append(name)
    series = sorted(map(_Series, kinds.values()), key=lambda one: (-len(one), one.first.order))
    series, masks = _without_masks(series, is_mask)
    _refuse_unclear(path, series)
    frames = _Series([name for one in series for name in one.names])
    warnings = [f"{mask}: taken for masks and left out; the frames are {frames}" for mask in masks]
    if numbers.doubt:
        warnings.append(f"the numbers in names like {numbers.doubt} are read as decimals: 1.25 comes before 1.3")
    if len(series) > 1:
        warnings.append(f"all pictures are frames, in the order of their names: {_listed(series)}")
    if len({name.text for name in frames.names}) == 1 and frames.first.text:
        warnings += _oddities(frames.names)
    return Chosen([name.name for name in frames.names], warnings)


def _without_masks(series: list[_Series], is_mask: IsMask) -> tuple[list[_Series], list[_Series]]:
    """Take out the series that are masks of another one: their names say so, or their pictures show it."""
    words = [one.first.mask_words for one in series]
    masks = [
        one
        for one, said in zip(series, words, strict=True)
        if said and any(said > other.first.mask_words and one.goes_with(other) for other in series)
    ]
    rest = [one for one in series if one not in masks]
    if not 1 < len(rest) <= COMPARED:
        return rest, masks
    flat = [one for one in rest if one.first.ending in LOSSLESS and is_mask(one.sample())]
    for one in flat:
        frames = [other for other in rest if other is not one and one.goes_with(other) and other not in flat]
        if any(other.first.ending in READ and not is_mask(other.sample()) for other in frames):
            masks.append(one)
    return [one for one in rest if one not in masks], masks


def _refuse_unclear(path: str, series: list[_Series]) -> None:
    unread = [one for one in series if one.first.ending in UNREAD]
    if unread:
        raise VideoError(
            f"{path} holds pictures of a kind that is not read here: {_listed(unread)}; convert them to PNG or JPEG, "
            "or take them out where they are no frames"
        )
    folders = sorted({one.first.folder for one in series})
    if len(folders) > 1:
        raise VideoError(f"{path} holds images in {len(folders)} folders ({folders[0]}, {folders[1]} …); give one")
    keys = Counter(name.key for one in series for name in one.names)
    texts = {one.first.text for one in series}
    twice = next((name for one in series for name in one.names if keys[name.key] > 1), None)
    if twice is not None and len(texts) == 1 and len(series) == 1:
        raise VideoError(f"{path} holds two pictures with the numbers of {twice.name}; take one out, or rename it")
    together = twice is not None or any(
        one.goes_with(other) for one, other in itertools.permutations(series[:COMPARED], 2)
    )
    system = len(texts) > 1 and len(series[0]) > 1
    few = len(series) <= COMPARED or len(series[0]) >= sum(map(len, series)) * 2 / 3
    if together or (system and few):
        raise VideoError(
            f"{path}: which of its pictures are the frames is not clear, as their names are of several kinds: "
            f"{_listed(series)}; put the frames alone into a folder"
        )


def _listed(series: list[_Series]) -> str:
    return ", ".join(map(str, series[:LISTED])) + (f" and {len(series) - LISTED} more" if len(series) > LISTED else "")


def _oddities(names: list[PictureName]) -> Iterator[str]:
    """What may be wrong with the numbers of one kind of name."""
    columns = [column for column in zip(*(name.key for name in names), strict=True) if len(set(column)) > 1]
    if len(columns) == 1:
        gaps = _gaps([Decimal(value) for value in columns[0]])
        if gaps:
            first, second = names[gaps[0] - 1].name, names[gaps[0]].name
            yield (
                f"numbers are missing between {first} and {second}"
                + (f" and at {len(gaps) - 1} other places" if len(gaps) > 1 else "")
                + f"; a frame's index counts the pictures: {second} is frame {gaps[0]}"
            )
    elif columns:
        parts: dict[object, set[tuple[object, ...]]] = {}
        for value, *others in zip(*columns, strict=True):
            parts.setdefault(value, set()).add(tuple(others))
        counts = list(parts.values())
        if len(counts) > 1 and len(counts[0]) > 1 and all(count == counts[0] for count in counts):
            second = names[len(counts[0])].name
            yield (
                f"the names count several times alike, again from {second} on, and are read in a row; give each video "
                "a folder of its own if these are several"
            )


def _gaps(numbers: list[Decimal]) -> list[int]:
    """The places before which a number is left out, in numbers that otherwise have one and the same step."""
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    (step, times), *_ = Counter(steps).most_common(1)
    gaps = [place for place, width in enumerate(steps, start=1) if width != step]
    regular = step > 0 and 2 * times > len(steps) and all(steps[place - 1] % step == 0 for place in gaps)
    return gaps if regular else []
