"""Targets that a manifest names by text: each gets a number in its video, and the name is carried into the results."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count, filterfalse
from typing import Any, Final

OBJECT_NAME: Final = "object_name"
"""The carried column that holds the names."""

Numbers = Mapping[str | None, Mapping[str, int]]
"""The numbers that the names of each video's targets have already."""

_LONGEST: Final = 200
_NOTHING: Final = frozenset({"nan", "null", "none", "true", "false", "inf", "infinity"})
"""What programs write for a value that they do not have."""


def parse_object_id(value: Any) -> Any:
    """Return a name as it is; anything else is left to be a number, or refused as one."""
    if not isinstance(value, str) or not value[:1].isalpha():
        return value
    if value.casefold() in _NOTHING:
        raise ValueError("which programs write where they have no value")
    if len(value) > _LONGEST or re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", value):
        raise ValueError(f"a name has at most {_LONGEST} characters, and no control characters")
    return value


def label_of(object_id: int, name: str | None) -> str:
    """Return what a target is called: its name or, without one, its number."""
    return str(object_id) if name is None else name


def number_names(
    video_ids: Sequence[str | None],
    object_ids: Sequence[int | str | None],
    known: Callable[[], Numbers] = dict,
) -> tuple[list[int | None], list[str | None]]:
    """Return the number and the name (None where it has none) of each row's target.

    The names of a video get the lowest numbers that are free in it, in alphabetical order, so that neither the order of
    the rows nor other videos change them.

    Args:
        video_ids: of each row.
        object_ids: of each row: numbers, names, or None where there is none.
        known: numbers that names have already; asked only where there are names.
    """
    names: dict[str | None, set[str]] = {}
    for video_id, object_id in zip(video_ids, object_ids, strict=True):
        if isinstance(object_id, str):
            names.setdefault(video_id, set()).add(object_id)
    if not names:
        return [number for number in object_ids if not isinstance(number, str)], [None] * len(object_ids)
    taken: dict[str | None, set[int]] = {}
    for video_id, object_id in zip(video_ids, object_ids, strict=True):
        if isinstance(object_id, int):
            taken.setdefault(video_id, set()).add(object_id)
    had = known()
    numbers = {
        video_id: _numbers(found, taken.get(video_id, set()), had.get(video_id, {}))
        for video_id, found in names.items()
    }
    rows = list(zip(video_ids, object_ids, strict=True))
    return (
        [numbers[video][name] if isinstance(name, str) else name for video, name in rows],
        [name if isinstance(name, str) else None for _, name in rows],
    )


def _numbers(names: Iterable[str], taken: set[int], known: Mapping[str, int]) -> dict[str, int]:
    new = sorted(set(names) - set(known))
    free = filterfalse((taken | set(known.values())).__contains__, count(1))
    return {**known, **dict(zip(new, free, strict=False))}
