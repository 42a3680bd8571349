"""The scales of search regions, whose order of roundings decides a pixel (spec rts-tracker §14)."""

from __future__ import annotations

import numpy as np
import torch

from rts_batch.tracking.motion import scale_of_target, scale_to_follow

SIZES = np.random.default_rng(0).uniform(3, 900, (500, 2)).astype(np.float32)


def test_the_scale_of_a_start_multiplies_by_the_rounded_reciprocal() -> None:
    for crop_size in ((480, 832), (240, 416), (96, 160)):
        per_pixel = np.float32(1) / np.sqrt(np.float32(crop_size[0] * crop_size[1]))
        for area_scale in (4.0, 6.0):
            for height, width in SIZES:
                area = (np.float32(area_scale) * height) * (np.float32(area_scale) * width)
                expected = per_pixel * np.float32(np.sqrt(np.float64(area)))
                ours = scale_of_target(torch.tensor([height, width]), area_scale, crop_size)
                assert ours.dtype == torch.float32
                assert float(ours) == expected, (crop_size, area_scale, height, width)


def test_the_scale_that_follows_rounds_areas_quotient_and_root() -> None:
    for (height, width), (base_height, base_width) in zip(SIZES, SIZES[::-1], strict=True):
        expected = np.sqrt((height * width) / (base_height * base_width))
        ours = scale_to_follow(torch.tensor([height, width]), torch.tensor([base_height, base_width]))
        assert float(ours) == expected, (height, width, base_height, base_width)
