"""What a user chooses of an export: the categories' numbers, and which videos are for training, validation and test."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rts_batch.errors import UsageError

PARTS: Final = ("train", "val", "test")


def parse_classes(text: str) -> dict[str, int]:
    """Read `car=1,pedestrian=2`.

    Raises:
        UsageError: anything else, or a name or number that is there twice.
    """
    found: dict[str, int] = {}
    for part in text.split(","):
        name, _, number = part.rpartition("=")
        if not name.strip() or not number.strip().isdecimal() or int(number) < 1:
            raise UsageError(f"--classes: {part.strip()!r} is no category with its number; write car=1,pedestrian=2")
        if name.strip() in found or int(number) in found.values():
            raise UsageError(f"--classes: the name or the number of {part.strip()!r} is there twice")
        found[name.strip()] = int(number)
    return found


def parse_split(text: str) -> tuple[float, ...]:
    """Read the shares of train, val and, if any, test: `0.8,0.1,0.1`.

    Raises:
        UsageError: not two or three shares that add up to 1, the first of them above 0.
    """
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    right = len(shares) in (2, 3) and all(0 <= share <= 1 for share in shares) and math.isclose(sum(shares), 1)
    if not right or shares[0] == 0:
        raise UsageError(
            f"--split {text!r}: write the shares of train, val and test so that they add up to 1: 0.8,0.1,0.1"
        )
    return shares


def split_videos(video_ids: Iterable[str], shares: Sequence[float], seed: int = 0) -> Mapping[str, str]:
    """The part of each video, whole videos only: what is validated on has no frame in training.

    Videos are put into an order by a digest of the seed and their id. Each part whose share is not 0 gets a video at
    least, as long as there are enough, the validation before the test.
    """
    order = sorted(video_ids, key=lambda video_id: hashlib.sha256(f"{seed}:{video_id}".encode()).digest())
    counts = [round(share * len(order)) for share in shares]
    counts[1:] = [max(count, 1) if share else 0 for count, share in zip(counts[1:], shares[1:], strict=True)]
    for place in reversed(range(1, len(counts))):  # training keeps a video
        counts[place] = min(counts[place], max(len(order) - 1 - sum(counts[1:place]), 0))
    names = [PARTS[place] for place in range(1, len(counts)) for _ in range(counts[place])]
    return {video_id: names[n] if n < len(names) else PARTS[0] for n, video_id in enumerate(order)}
