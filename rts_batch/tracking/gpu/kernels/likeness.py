"""Triton kernels for what a mask looks like: its likeness to the prompt (`appearance.py`) and its mean feature.

Features are `[C, cells]`, laid out as they are; a program has a block of this frame's cells, or of channels. What
`liken` leaves `measure.combine` puts together.
"""

from __future__ import annotations

import triton
import triton.language as tl

from rts_batch.tracking.gpu.kernels.common import bytes_of, floats
from rts_batch.tracking.gpu.kernels.offsets import (
    FIELD_FINISHES,
    FIELD_LENGTH,
    FIELD_LOOK_BACKGROUND,
    FIELD_LOOK_CELLS,
    FIELD_LOOK_MEAN,
    FIELD_LOOK_TARGET,
    FIELD_SIGNALS,
    SIGNAL_LENGTH,
)


@triton.jit
def _insert(first, second, third, value):
    """The three highest of four, of which three are in order."""
    lower = tl.minimum(first, value)
    lowest = tl.minimum(second, lower)
    return tl.maximum(first, value), tl.maximum(second, lower), tl.maximum(third, lowest)


@triton.jit
def _best(similar, which, first, second, third):
    """The three highest so far of each row, with those of a tile's columns that are meant."""
    values = tl.where(which, similar, float("-inf"))
    column = tl.arange(0, similar.shape[1])[None, :]
    for _ in tl.static_range(3):
        first, second, third = _insert(first, second, third, tl.max(values, 1))
        values = tl.where(column == tl.argmax(values, 1)[:, None], float("-inf"), values)
    return first, second, third


@triton.jit
def _mean(first, second, third):
    """`appearance._nearest`, of the three highest."""
    there = tl.where(first > float("-inf"), 1.0, 0.0)
    there += tl.where(second > float("-inf"), 1.0, 0.0) + tl.where(third > float("-inf"), 1.0, 0.0)
    total = tl.where(first > float("-inf"), first, 0.0) + tl.where(second > float("-inf"), second, 0.0)
    return (total + tl.where(third > float("-inf"), third, 0.0)) / tl.maximum(there, 1.0)


@triton.jit
def liken(
    table, all_features, place_step, channel_step, cell_step, prompt_channel_step, prompt_cell_step,
    all_coarse, all_partial, cells, channels, outside,
    PRECISION: tl.constexpr, BLOCK: tl.constexpr, PROMPT: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Σ margin · weight and Σ weight of a block of cells; a cell's weight is its probability."""
    place_of_batch = tl.program_id(1)
    entry = table + place_of_batch * FIELD_LENGTH
    if tl.load(entry + FIELD_FINISHES) == 0:
        return
    mean, prompt = floats(entry, FIELD_LOOK_MEAN), floats(entry, FIELD_LOOK_CELLS)
    target, background = bytes_of(entry, FIELD_LOOK_TARGET), bytes_of(entry, FIELD_LOOK_BACKGROUND)
    features, coarse = all_features + place_of_batch * place_step, all_coarse + place_of_batch * cells
    partial = all_partial + 2 * tl.num_programs(0) * place_of_batch
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = cell < cells
    squares = tl.zeros([BLOCK], tl.float32)
    for start in range(0, channels, CHANNELS):
        channel = start + tl.arange(0, CHANNELS)
        wanted = valid[:, None] & (channel < channels)[None, :]
        x = tl.load(features + cell[:, None] * cell_step + channel[None, :] * channel_step, mask=wanted, other=0.0)
        x = tl.where(wanted, x - tl.load(mean + channel, mask=channel < channels, other=0.0)[None, :], 0.0)
        squares += tl.sum(x * x, 1)
    scale = 1 / tl.maximum(tl.sqrt(squares), 1e-12)
    none = tl.zeros([BLOCK], tl.float32) + float("-inf")
    own_1, own_2, own_3, other_1, other_2, other_3 = none, none, none, none, none, none
    for begin in range(0, cells, PROMPT):
        place = begin + tl.arange(0, PROMPT)
        known = place < cells
        similar = tl.zeros([BLOCK, PROMPT], tl.float32)
        for start in range(0, channels, CHANNELS):
            channel = start + tl.arange(0, CHANNELS)
            wanted = valid[:, None] & (channel < channels)[None, :]
            x = tl.load(features + cell[:, None] * cell_step + channel[None, :] * channel_step, mask=wanted, other=0.0)
            x = tl.where(wanted, x - tl.load(mean + channel, mask=channel < channels, other=0.0)[None, :], 0.0)
            at = channel[:, None] * prompt_channel_step + place[None, :] * prompt_cell_step
            y = tl.load(prompt + at, mask=(channel < channels)[:, None] & known[None, :], other=0.0)
            similar = tl.dot(x, y, similar, input_precision=PRECISION)
        similar *= scale[:, None]
        which = (tl.load(target + place, mask=known, other=0) != 0)[None, :]
        own_1, own_2, own_3 = _best(similar, which, own_1, own_2, own_3)
        which = (tl.load(background + place, mask=known, other=0) != 0)[None, :]
        other_1, other_2, other_3 = _best(similar, which, other_1, other_2, other_3)
    weight = tl.load(coarse + cell, mask=valid, other=0.0)
    weight = tl.where(weight < outside, 0.0, weight)
    margin = _mean(own_1, own_2, own_3) - _mean(other_1, other_2, other_3)
    tl.store(partial + 2 * tl.program_id(0), tl.sum(tl.where(valid, margin * weight, 0.0), 0))
    tl.store(partial + 2 * tl.program_id(0) + 1, tl.sum(weight, 0))


@triton.jit
def average(
    table, all_features, place_step, channel_step, cell_step, all_coarse, cells, channels,
    BLOCK: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The mean feature of a mask, each cell weighed by its probability. A block of channels."""
    place = tl.program_id(1)
    entry = table + place * FIELD_LENGTH
    if tl.load(entry + FIELD_FINISHES) == 0:
        return
    features, coarse = all_features + place * place_step, all_coarse + place * cells
    out = floats(entry, FIELD_SIGNALS) + SIGNAL_LENGTH
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    found, share = tl.zeros([CHANNELS], tl.float32), tl.zeros([], tl.float32)
    for start in range(0, cells, BLOCK):
        cell = start + tl.arange(0, BLOCK)
        weight = tl.load(coarse + cell, mask=cell < cells, other=0.0)
        wanted = (cell < cells)[:, None] & (channel < channels)[None, :]
        x = tl.load(features + cell[:, None] * cell_step + channel[None, :] * channel_step, mask=wanted, other=0.0)
        found += tl.sum(x * weight[:, None], 0)
        share += tl.sum(weight, 0)
    tl.store(out + channel, found / tl.maximum(share, 1e-3), mask=channel < channels)
