"""The stages of a slot in Triton kernels.

Identical to the `steps.py` of the folder above up to rounding, with a few launches where that has hundreds: on a GPU
the time of a frame outside the network is launches.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from rts_batch.model.fast.kernels.sizes import precision
from rts_batch.tracking.appearance import OUTSIDE, PromptLook
from rts_batch.tracking.gpu.kernels import common as kernels
from rts_batch.tracking.gpu.kernels import judge as kernels_judge
from rts_batch.tracking.gpu.kernels import likeness as kernels_likeness
from rts_batch.tracking.gpu.kernels import measure as kernels_measure
from rts_batch.tracking.gpu.kernels import search as kernels_search
from rts_batch.tracking.gpu.kernels.common import TILE_COLUMNS, TILE_ROWS, launch
from rts_batch.tracking.gpu.memory import DeviceMemory
from rts_batch.tracking.gpu.network import Slot
from rts_batch.tracking.gpu.steps import Branches, SlotSteps
from rts_batch.tracking.memory import SampleMemory
from rts_batch.tracking.motion import LOST_HISTORY, LOST_MEAN
from rts_batch.tracking.signals import NEIGHBOURHOOD, Signal

log = logging.getLogger(__name__)

BLOCK = 512
CELL = 16
"""Pixels a side that a cell of the features has."""
CELLS = 4
"""In a tile of `measure.tiles`."""
LIKEN = {"BLOCK": 16, "PROMPT": 128, "CHANNELS": 32}
AVERAGE = {"BLOCK": 64, "CHANNELS": 32}


def try_launch(device: torch.device) -> None:
    """Build and run a kernel; raise whatever keeps it from that."""
    values, sample = torch.zeros(1, device=device), torch.ones(1, device=device)
    slot, gate = torch.zeros(1, dtype=torch.int64, device=device), torch.ones(1, dtype=torch.int8, device=device)
    launch(kernels.keep, (1,), values, sample, slot, gate, 1, BLOCK=1024)
    if values.item() != 1:
        raise RuntimeError("a kernel ran and did not write what it should")


@functools.cache
def can_liken(device: torch.device) -> bool:
    """Whether the one kernel with a matrix product can be built and launched; the others want less of a GPU."""
    seen, coarse = torch.ones(32, 4, 4, device=device), torch.ones(4, 4, device=device)
    try:
        _liken(seen.flatten(1), PromptLook.of(seen, coarse), coarse, torch.zeros(1, 2, device=device))
    except Exception as error:  # whatever Triton raises
        log.warning("the Triton kernel of a mask's likeness cannot run here, so a frame takes longer: %s", error)
        return False
    return True


def _liken(seen: Tensor, prompt: PromptLook, coarse: Tensor, out: Tensor) -> None:
    """`likeness.liken` of features `[C, cells]`, for blocks of cells, `[blocks, 2]`."""
    launch(
        kernels_likeness.liken,
        (len(out),),
        *(seen, *seen.stride(), prompt.mean, prompt.cells, *prompt.cells.stride()),
        *(_bytes(prompt.target), _bytes(prompt.background), coarse, out, coarse.numel(), len(seen), OUTSIDE),
        PRECISION=precision()["PRECISION"],
        **LIKEN,
    )


def _next_power(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _tiles(length: int, tile: int) -> int:
    return -(-length // tile)


def _bytes(flags: Tensor) -> Tensor:
    return flags.view(torch.int8)


class KernelMemory(DeviceMemory):
    """Identical to the parent; the bookkeeping is one kernel, and so is each tensor of a sample."""

    def __init__(self, memory: SampleMemory, device: torch.device) -> None:
        super().__init__(memory, device)
        self.slot = torch.zeros(1, dtype=torch.int64, device=device)

    def insert(self, sample: Mapping[str, Tensor], gate: Tensor) -> None:
        launch(
            kernels.weigh,
            (1,),
            *(self.weights, self.age, _bytes(self.protected), self.prompt_weights, self.counters, self.slot),
            *(_bytes(gate), self.capacity, self.learning_rate, 1 - self.learning_rate, self.minimum or 0.0),
            GUARDED=self.minimum is not None,
            BLOCK=_next_power(self.capacity),
            warps=1,
        )
        for name, values in sample.items():
            size = values.numel()
            launch(
                kernels.keep,
                (_tiles(size, 1024),),
                *(self.slots[name], values.contiguous(), self.slot, _bytes(gate), size),
                BLOCK=1024,
            )


class KernelSteps(SlotSteps):
    """Identical to the parent but for rounding; each override is one kernel or two."""

    memory = KernelMemory

    def __init__(self, slot: Slot, branches: Branches, image_size: tuple[int, int]) -> None:
        super().__init__(slot, branches, image_size)
        height, width = image_size
        self._down, self._across = _tiles(height, TILE_ROWS), _tiles(width, TILE_COLUMNS)
        device = self.network.device
        self._rows = torch.zeros(self._across, height, device=device)
        self._columns = torch.zeros(self._down, width, device=device)
        self._partial = torch.zeros(self._down * self._across, 8, device=device)
        self._crop = {"CROP_HEIGHT": self.config.crop_size[0], "CROP_WIDTH": self.config.crop_size[1]}
        self._tile = {"TILE_ROWS": TILE_ROWS, "TILE_COLUMNS": TILE_COLUMNS}
        crop_height, crop_width = self.config.crop_size
        can_liken(device)  # asked here, where nothing is captured
        self._coarse = torch.zeros(self.x_s.shape[-2:], device=device)
        self._likenesses = torch.zeros(_tiles(self._coarse.numel(), LIKEN["BLOCK"]), 2, device=device)
        self._cells = (crop_height // CELL, _tiles(crop_width // CELL, CELLS))
        self._sums = torch.zeros(self._cells[0] * self._cells[1], kernels_measure.SUMS.value, device=device)

    def _remember(self) -> None:
        state = self.state
        launch(
            kernels_search.remember,
            (_tiles(self.remembered.numel(), BLOCK),),
            *(state.previous, state.places, _bytes(state.inside), self.remembered, self.image_size[1]),
            **self._crop,
            BLOCK=BLOCK,
        )

    def _look(self) -> None:
        state, config = self.state, self.config
        height, width = self.image_size
        maps = (self._rows, self._columns)
        launch(
            kernels_search.profiles,
            (self._down, self._across),
            *(state.previous, *maps, height, width, config.moment_threshold),
            **self._tile,
        )
        odd = [(size // 16 + self.model.config.target_filter_size) % 2 for size in config.crop_size]
        launch(
            kernels_search.search,
            (1,),
            *(state.values, _bytes(state.flags), *maps, state.places, _bytes(state.inside)),
            *(height, width, self._across, self._down),
            *(*config.max_scale_change, float(odd[0]), float(odd[1])),
            **self._crop,
            FALLBACK=config.localisation_fallback,
            BLOCK=_next_power(max(height, width)),
            CROP_BLOCK=_next_power(sum(config.crop_size)),
            LENGTH=LOST_HISTORY,
            FEWEST=LOST_MEAN[0],
            MOST=LOST_MEAN[1],
        )
        launch(
            kernels_search.cut,
            (_tiles(self.remembered.numel(), BLOCK),),
            *(self.frame, state.placement, self.crop, state.previous, self.previous_mask),
            *(state.places, _bytes(state.inside), _bytes(state.flags), width),
            **self._crop,
            PREVIOUS=self.model.config.previous_mask,
            BLOCK=BLOCK,
        )

    def _judge(self) -> None:
        state, config = self.state, self.config
        height, width = self.image_size
        launch(
            kernels_judge.paste,
            (self._down, self._across),
            *(self.logits, state.placement, self.scores, state.probabilities, state.previous, _bytes(self.mask)),
            *(self._partial, height, width, self._across),
            **self._crop,
            **self._tile,
        )
        features = (self.x_c.shape[-2], self.x_c.shape[-1])
        rows, columns = self.score_map.shape
        factor = config.localisation_sigma_factor / config.search_area_scale
        launch(
            kernels_judge.judge,
            (1,),
            *(state.values, _bytes(state.flags), self._partial, self.score_map, self.label, self.numbers),
            *(height, width, self._down * self._across, config.not_found_threshold, config.min_mask_area),
            *(config.search_area_scale, config.target_inside_ratio - 0.5),
            *(factor**2 * features[0] * features[1], 0.0 if self.model.config.localisation_filter_size % 2 else 0.5),
            **self._crop,
            MAP_ROWS=rows,
            MAP_COLUMNS=columns,
            FEATURE_ROWS=features[0],
            FEATURE_COLUMNS=features[1],
            TILES=_next_power(self._down * self._across),
            MAP_BLOCK=_next_power(rows * columns),
        )

    def _measure(self) -> None:
        height, width = self.config.crop_size
        fits = (CELL * self._coarse.shape[0], CELL * self._coarse.shape[1]) == (height, width)
        if not fits or not can_liken(self.network.device):
            return super()._measure()
        rows, columns = self.score_map.shape
        sizes = {"HEIGHT": height, "WIDTH": width, "CELL": CELL, "CELLS": CELLS}
        launch(kernels_measure.tiles, self._cells, self.logits, self._coarse, self._sums, **sizes)
        seen, prompt = self.x_s.flatten(1), self.look
        cells, channels = self._coarse.numel(), len(seen)
        _liken(seen, prompt, self._coarse, self._likenesses)
        launch(
            kernels_likeness.average,
            (_tiles(channels, AVERAGE["CHANNELS"]),),
            *(seen, *seen.stride(), self._coarse, self.signals[Signal.LENGTH :], cells, channels),
            **AVERAGE,
        )
        launch(
            kernels_measure.combine,
            (1,),
            *(self._sums, self._coarse, self.score_map, self._likenesses, _bytes(prompt.target), self.signals, OUTSIDE),
            **sizes,
            MAP_ROWS=rows,
            MAP_COLUMNS=columns,
            NEIGHBOURHOOD=NEIGHBOURHOOD,
            TILES=_next_power(len(self._sums)),
            COARSE=_next_power(cells),
            MAP_BLOCK=_next_power(rows * columns),
            CELL_BLOCKS=_next_power(len(self._likenesses)),
            CELL_BLOCK=LIKEN["BLOCK"],
        )
        return None
