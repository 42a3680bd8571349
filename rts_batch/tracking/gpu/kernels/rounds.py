"""What lies before and after the network for all targets of a round: one launch of each kernel, captured at load.

A place that no target has, or that has nothing to do, is left alone by every kernel; only the label encoder and the
network run for all places, whatever lies there.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rts_batch.model.fast.kernels.sizes import precision
from rts_batch.tracking.appearance import OUTSIDE, PromptLook
from rts_batch.tracking.branches import LocalisationBranch, SegmentationBranch
from rts_batch.tracking.gpu.kernels import common, crops, judge, likeness, measure, search
from rts_batch.tracking.gpu.kernels.common import TILE_COLUMNS, TILE_ROWS, launch, tiles_of
from rts_batch.tracking.gpu.kernels.table import Field, Kept
from rts_batch.tracking.gpu.network import BatchedNetwork, Rounds, Slot
from rts_batch.tracking.memory import SampleMemory
from rts_batch.tracking.motion import LOST_HISTORY, LOST_MEAN
from rts_batch.tracking.signals import NEIGHBOURHOOD

log = logging.getLogger(__name__)

PROGRAMS = 256
"""For each place where there is an image's work to do; they share its tiles, of which 854×480 pixels have 210."""
BLOCK = 512
COPIED = 1024
"""Of a tensor, by a program."""
CELL = 16
"""Pixels a side that a cell of the features has."""
CELLS = 4
"""In a tile of `measure.tiles`."""
LIKEN = {"BLOCK": 16, "PROMPT": 128, "CHANNELS": 32}
AVERAGE = {"BLOCK": 64, "CHANNELS": 32}
TILE = {"TILE_ROWS": TILE_ROWS, "TILE_COLUMNS": TILE_COLUMNS}


@functools.cache
def can_liken(device: torch.device) -> bool:
    """Whether the one kernel with a matrix product can be built and launched; the others want less of a GPU."""
    seen, coarse = torch.ones(1, 32, 4, 4, device=device), torch.ones(1, 16, device=device)
    look = PromptLook.of(seen[0], coarse.view(4, 4))
    row = torch.zeros(1, Field.LENGTH, dtype=torch.int64)
    row[0, Field.FINISHES] = 1
    for field in (Field.LOOK_MEAN, Field.LOOK_CELLS, Field.LOOK_TARGET, Field.LOOK_BACKGROUND):
        row[0, field] = getattr(look, field.name.removeprefix("LOOK_").lower()).data_ptr()
    try:
        liken(row.to(device), seen, look, coarse, torch.zeros(1, 1, 2, device=device))
    except Exception as error:  # whatever Triton raises
        log.warning("the Triton kernel of a mask's likeness cannot run here, so a frame takes longer: %s", error)
        return False
    return True


def liken(table: Tensor, features: Tensor, look: PromptLook, coarse: Tensor, out: Tensor) -> None:
    """`likeness.liken` of features `[places, C, h, w]`, for blocks of cells, `[places, blocks, 2]`."""
    launch(
        likeness.liken,
        (out.shape[1], len(out)),
        *(table, features, *features.flatten(2).stride(), *look.cells.stride()),
        *(coarse, out, coarse.shape[1], features.shape[1], OUTSIDE),
        PRECISION=precision()["PRECISION"],
        **LIKEN,
    )


def next_power(number: int) -> int:
    return 1 << (number - 1).bit_length()


class KernelRounds(Rounds):
    """Identical to the slots' own stages but for rounding."""

    def __init__(self, network: BatchedNetwork) -> None:
        super().__init__(network)
        self.model, self.config = network.model, network.config
        places, device = network.at_once, network.device
        self.table = torch.zeros(places, Field.LENGTH, dtype=torch.int64, device=device)
        self._memories = (
            SegmentationBranch(network.model, network.config).memory,
            LocalisationBranch(network.model, network.config).memory,
        )
        height, width = self.config.crop_size
        features = network.outputs[0]
        cells = features[0, 0].numel()
        self._look = PromptLook.of(torch.zeros_like(features[0]), torch.zeros(features.shape[-2:], device=device))
        """How the slots' own lie in memory."""
        self._crop = {"CROP_HEIGHT": height, "CROP_WIDTH": width}
        self._remembered = torch.zeros(places, height, width, device=device)
        self._coarse = torch.zeros(places, cells, device=device)
        self._likenesses = torch.zeros(places, tiles_of(cells, LIKEN["BLOCK"]), 2, device=device)
        self._tiles = (height // CELL, tiles_of(width // CELL, CELLS))
        self._sums = torch.zeros(places, self._tiles[0] * self._tiles[1], measure.SUMS.value, device=device)
        fits = (CELL * features.shape[-2], CELL * features.shape[-1]) == (height, width)
        self._measures = fits and can_liken(device)
        self.stages = {"before": network.captured(self.before), "after": network.captured(self.after)}

    def run(self, slots: Sequence[Slot]) -> None:
        targets = [slot.steps for slot in slots if slot.steps.to_finish]
        if not targets:
            return
        for place, steps in enumerate(targets):
            if steps.to_prepare:
                steps.place = place
        rows = [[0] * Field.LENGTH] * len(self.table)
        for steps in targets:
            rows[steps.place] = steps.row()
        self._tell(torch.tensor(rows))
        self.stages["before"]()
        for steps in targets:
            steps.to_prepare = False
        for steps in targets:
            steps.learn()
        self.network.stage()
        if not self._measures:  # before what may be done only once, as it may want memory that there is not
            for steps in targets:
                steps.measure()
        self.stages["after"]()
        for steps in targets:
            steps.to_finish = False

    def _tell(self, rows: Tensor) -> None:
        # Pinned memory is given out again only when the copy of it is done, which PyTorch sees to.
        self.table.copy_(rows.pin_memory() if self.table.is_cuda else rows, non_blocking=True)

    def before(self) -> None:
        """Store the last frames, and cut the crops out of the next."""
        pixels = self._remembered[0].numel()
        crop_inputs, previous_masks, tau, kappa = self.network.inputs
        grid = (tiles_of(pixels, BLOCK), len(self.table))
        if self.config.update_target_model:
            launch(crops.remember, grid, self.table, self._remembered, **self._crop, BLOCK=BLOCK)
            self._store()
        self._search()
        launch(
            crops.cut,
            grid,
            *(self.table, crop_inputs, previous_masks),
            **self._crop,
            PREVIOUS=self.model.config.previous_mask,
            BLOCK=BLOCK,
        )
        self._carry(tau, Field.TAU)
        self._carry(kappa, Field.KAPPA)

    def after(self) -> None:
        """Follow the targets, and write down what the host will read and the learners learn from."""
        features, coarse_features, score_maps, logits = self.network.outputs
        self._judge(score_maps, logits)
        self._carry(features, Field.FEATURES, away=True)
        if self._measures:
            self._measure(features, score_maps, logits)
        if self.config.update_localisation:
            memory = int(Field.LOCALISATION)
            self._weigh(self._memories[1], memory, Field.FINISHES)
            for sample, (maps, field) in enumerate(((coarse_features, -1), (score_maps[:, None], int(Field.LABEL)))):
                self._keep(maps, memory, Field.FINISHES, sample, field=field)

    def _carry(self, values: Tensor, field: Field, *, away: bool = False) -> None:
        size = values[0].numel()
        grid = (tiles_of(size, COPIED), len(values))
        launch(common.carry, grid, self.table, values, size, FIELD=int(field), AWAY=away, BLOCK=COPIED)

    def _store(self) -> None:
        """`SlotSteps._store`."""
        memory, reach = int(Field.SEGMENTATION), self.model.config.target_filter_size // 2
        labels, weights = self.model.label_encoder(self._remembered[:, None])
        self._weigh(self._memories[0], memory, Field.STORES)
        features, field = self.network.outputs[0], int(Field.FEATURES)  # where they lie in a slot as they do here
        self._keep(features, memory, Field.STORES, 0, field=field, reach=reach, last=True)
        self._keep(labels[:, 0], memory, Field.STORES, 1, reach=reach)
        self._keep(weights[:, 0], memory, Field.STORES, 2, reach=reach)

    def _weigh(self, memory: SampleMemory, first: int, needed: Field) -> None:
        minimum = memory.minimum_initial_weight
        launch(
            common.weigh,
            (len(self.table),),
            *(self.table, memory.capacity, memory.learning_rate, 1 - memory.learning_rate, minimum or 0.0),
            MEMORY=first,
            NEEDED=int(needed),
            GUARDED=minimum is not None,
            BLOCK=next_power(memory.capacity),
            warps=1,
        )

    def _keep(
        self,
        maps: Tensor,
        memory: int,
        needed: Field,
        sample: int,
        *,
        field: int = -1,
        reach: int = 0,
        last: bool = False,
    ) -> None:
        """Store maps `[places, C, h, w]`, or a slot's own that are laid out as they are, as the memory's sample."""
        _, channels, rows, columns = maps.shape
        size = channels * (rows + 2 * reach) * (columns + 2 * reach)
        launch(
            common.keep,
            (tiles_of(size, COPIED), len(self.table)),
            *(self.table, maps, *maps.stride(), channels, rows, columns, reach),
            MEMORY=memory,
            NEEDED=int(needed),
            SAMPLE=Kept.SAMPLES + sample,
            FIELD=field,
            LAST=last,
            BLOCK=COPIED,
        )

    def _search(self) -> None:
        config, places = self.config, len(self.table)
        launch(search.profiles, (PROGRAMS, places), self.table, config.moment_threshold, **TILE)
        odd = [float((size // 16 + self.model.config.target_filter_size) % 2) for size in config.crop_size]
        launch(
            search.search,
            (places,),
            *(self.table, *config.max_scale_change, *odd),
            **self._crop,
            **TILE,
            FALLBACK=config.localisation_fallback,
            BLOCK=COPIED,
            CROP_BLOCK=next_power(sum(config.crop_size)),
            LENGTH=LOST_HISTORY,
            FEWEST=LOST_MEAN[0],
            MOST=LOST_MEAN[1],
        )

    def _judge(self, score_maps: Tensor, logits: Tensor) -> None:
        config, places = self.config, len(self.table)
        launch(judge.paste, (PROGRAMS, places), self.table, logits, **self._crop, **TILE)
        rows, columns = score_maps.shape[-2:]
        features = self.network.outputs[1].shape[-2:]
        factor = config.localisation_sigma_factor / config.search_area_scale
        launch(
            judge.judge,
            (places,),
            *(self.table, score_maps, config.not_found_threshold, config.min_mask_area),
            *(config.search_area_scale, config.target_inside_ratio - 0.5),
            *(factor**2 * features[0] * features[1], 0.0 if self.model.config.localisation_filter_size % 2 else 0.5),
            **self._crop,
            **TILE,
            MAP_ROWS=rows,
            MAP_COLUMNS=columns,
            FEATURE_ROWS=features[0],
            FEATURE_COLUMNS=features[1],
            TILES=256,
            MAP_BLOCK=next_power(rows * columns),
        )

    def _measure(self, features: Tensor, score_maps: Tensor, logits: Tensor) -> None:
        table, places = self.table, len(self.table)
        (height, width), (rows, columns) = self.config.crop_size, score_maps.shape[-2:]
        cells, channels = self._coarse.shape[1], features.shape[1]
        sizes: dict[str, Any] = {"HEIGHT": height, "WIDTH": width, "CELL": CELL, "CELLS": CELLS}
        launch(measure.tiles, (*self._tiles, places), table, logits, self._coarse, self._sums, **sizes)
        liken(table, features, self._look, self._coarse, self._likenesses)
        launch(
            likeness.average,
            (tiles_of(channels, AVERAGE["CHANNELS"]), places),
            *(table, features, *features.flatten(2).stride(), self._coarse, cells, channels),
            **AVERAGE,
        )
        launch(
            measure.combine,
            (places,),
            *(table, self._sums, self._coarse, score_maps, self._likenesses, OUTSIDE),
            **sizes,
            MAP_ROWS=rows,
            MAP_COLUMNS=columns,
            NEIGHBOURHOOD=NEIGHBOURHOOD,
            TILES=next_power(self._sums.shape[1]),
            COARSE=next_power(cells),
            MAP_BLOCK=next_power(rows * columns),
            CELL_BLOCKS=next_power(self._likenesses.shape[1]),
            CELL_BLOCK=LIKEN["BLOCK"],
        )
