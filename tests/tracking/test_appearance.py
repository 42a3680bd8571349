"""A mask looks like the prompt where its cells do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rts_batch.tracking.appearance import PromptLook, likeness_to_prompt

GRID = (8, 12)


def scene(*, target: tuple[int, int], other: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Features of a target and another object, two cells each way, before noise; and what either covers, `[8, 12]`."""
    generator = torch.Generator().manual_seed(3)
    kinds = torch.randn(3, 16, generator=generator)
    features = kinds[0][:, None, None] + 0.1 * torch.randn(16, *GRID, generator=generator)
    coverages = []
    for kind, (row, column) in ((1, target), (2, other)):
        covered = torch.zeros(GRID)
        covered[row : row + 2, column : column + 2] = 1
        features = torch.where(covered > 0, features - kinds[0][:, None, None] + kinds[kind][:, None, None], features)
        coverages.append(covered)
    return features, coverages[0], coverages[1]


def test_the_target_is_more_like_the_prompt_than_another_object_or_the_background() -> None:
    prompt, covered, _ = scene(target=(3, 4), other=(0, 9))
    now, target, other = scene(target=(5, 1), other=(1, 7))
    background = 1 - target - other
    look = PromptLook.of(prompt, covered)
    on_target, on_other, on_background = (
        float(likeness_to_prompt(now, coverage, look)) for coverage in (target, other, background)
    )
    assert on_target > 0.5 > 0 > on_other
    assert on_background < -0.5
    half = float(likeness_to_prompt(now, torch.maximum(target, background * 0.5), look))
    assert on_background < half < on_target
    # What is next to nothing does not count.
    assert float(likeness_to_prompt(now, target + 0.04 * background, look)) == pytest.approx(on_target)


def test_a_target_smaller_than_a_cell_has_its_most_covered_cells() -> None:
    prompt, covered, _ = scene(target=(3, 4), other=(0, 9))
    now, target, other = scene(target=(5, 1), other=(1, 7))
    small = PromptLook.of(prompt, 0.3 * covered)
    assert float(likeness_to_prompt(now, target, small)) > float(likeness_to_prompt(now, other, small))


def test_nothing_is_not_like_the_prompt_and_without_a_prompt_nobody_knows() -> None:
    prompt, covered, _ = scene(target=(3, 4), other=(0, 9))
    assert float(likeness_to_prompt(prompt, torch.zeros(GRID), PromptLook.of(prompt, covered))) == 0
    assert math.isnan(likeness_to_prompt(prompt, covered, PromptLook.of(prompt, torch.zeros(GRID))))
    assert math.isnan(likeness_to_prompt(prompt, covered, None))
    everywhere = likeness_to_prompt(prompt, covered, PromptLook.of(prompt, torch.ones(GRID)))
    assert math.isfinite(everywhere)
