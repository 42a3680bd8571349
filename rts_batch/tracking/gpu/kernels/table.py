"""What the kernels are told of a round: a row of whole numbers for each place, most of them addresses.

So a captured graph depends neither on which slots are in a round nor on how large their images are.
"""

from __future__ import annotations

from enum import IntEnum

from torch import Tensor


class Kept(IntEnum):
    """What a row says of one of a slot's memories, in order; the addresses of a sample's tensors come last."""

    WEIGHTS = 0
    AGE = 1
    PROTECTED = 2
    PROMPT_WEIGHTS = 3
    COUNTERS = 4
    SLOT = 5
    GATE = 6
    SAMPLES = 7
    LENGTH = 10


class Field(IntEnum):
    """Where each number lies in a row, `[Field.LENGTH] int64`. The first are said anew for each round."""

    PREPARES = 0
    """Whether what comes before the network is done for this place. Where it is 0 nothing else is read."""
    FINISHES = 1
    """Whether what comes after it is."""
    STORES = 2
    """Whether the last frame may go to the memory of masks."""
    FORCED = 3
    """Whether it goes there however bad it was."""
    HEIGHT = 4
    WIDTH = 5
    FRAME = 6
    VALUES = 7
    FLAGS = 8
    PLACES = 9
    INSIDE = 10
    PROBABILITIES = 11
    PREVIOUS = 12
    SCORES = 13
    MASK = 14
    NUMBERS = 15
    SIGNALS = 16
    LABEL = 17
    FEATURES = 18
    TAU = 19
    KAPPA = 20
    ROWS = 21
    COLUMNS = 22
    PARTIAL = 23
    LOOK_MEAN = 24
    LOOK_CELLS = 25
    LOOK_TARGET = 26
    LOOK_BACKGROUND = 27
    SEGMENTATION = 28
    LOCALISATION = SEGMENTATION + Kept.LENGTH
    LENGTH = LOCALISATION + Kept.LENGTH


ALIGNMENT = 16
"""Bytes; the kernels read and write wide where an address is a multiple of it, and take for granted that it is."""


def address(values: Tensor) -> int:
    """Return where a tensor lies."""
    place = values.data_ptr()
    if place % ALIGNMENT:
        raise ValueError(f"a tensor of {tuple(values.shape)} lies at {place}, which the kernels cannot read")
    return place
