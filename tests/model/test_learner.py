"""The closed-form learners against automatic differentiation, and pooling against numerical integration."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from rts_batch.model.instance_model import gaussian_labels, prroi_pool
from rts_batch.model.learner import apply_adjoint, apply_filter, steepest_descent, windows
from rts_batch.model.sta import box_masks


@pytest.mark.parametrize(("kernel", "even"), [(3, 0), (4, 1), (1, 0)])
def test_filter_is_a_padded_convolution_and_its_adjoint(kernel: int, even: int) -> None:
    torch.manual_seed(0)
    features = torch.randn(3, 2, 5, 7, 9, dtype=torch.float64)
    filters = torch.randn(2, 4, 5, kernel, kernel, dtype=torch.float64)
    scores = apply_filter(features, filters)
    assert scores.shape == (3, 2, 4, 7 + even, 9 + even)
    for sequence in range(2):
        reference = functional.conv2d(features[:, sequence], filters[sequence], padding=kernel // 2)
        assert torch.allclose(scores[:, sequence], reference)
    residual = torch.randn_like(scores)
    gradient = apply_adjoint(features, residual, kernel)
    assert gradient.shape == filters.shape
    assert torch.allclose((gradient * filters).sum(), (residual * scores).sum())


@pytest.mark.parametrize("kernel", [3, 4, 1])
def test_windows_of_a_gpu_have_the_bits_of_unfold(kernel: int) -> None:
    maps = torch.randn(6, 2, 7 + 1 - kernel % 2, 9 + 1 - kernel % 2)
    unfolded = functional.unfold(maps, kernel, padding=(kernel - 1) // 2)
    assert torch.equal(windows(maps, kernel), unfolded)
    assert windows(maps, kernel).is_contiguous(), "as a matrix product takes them without a further copy"


@pytest.mark.long
def test_steepest_descent_equals_automatic_differentiation() -> None:
    torch.manual_seed(1)
    features = torch.randn(4, 1, 6, 8, 8, dtype=torch.float64)
    labels = torch.rand(4, 1, 3, 8, 8, dtype=torch.float64)
    weights = torch.randn(4, 1, 3, 8, 8, dtype=torch.float64)
    reg = 0.3
    start = torch.zeros(1, 3, 6, 3, 3, dtype=torch.float64)

    def stacked(filters: torch.Tensor) -> torch.Tensor:
        data = weights * (apply_filter(features, filters) - labels)
        return torch.cat([data.flatten(), reg * filters.flatten()])

    ours = steepest_descent(
        start, features, lambda scores: (weights * (scores - labels), weights), reg=reg, iterations=4
    )
    filters = start
    for step in range(4):
        jacobian = torch.autograd.functional.jacobian(stacked, filters).flatten(1)
        gradient = jacobian.T @ stacked(filters)
        change = jacobian @ gradient
        filters = filters - (gradient @ gradient / (change @ change) * gradient).view_as(filters)
        assert torch.allclose(ours[step + 1], filters, atol=1e-12)
    losses = [float(stacked(iterate).square().sum()) for iterate in ours]
    assert losses == sorted(losses, reverse=True)


def test_pooling_is_the_exact_integral() -> None:
    torch.manual_seed(2)
    features = torch.randn(2, 3, 6, 9, dtype=torch.float64)
    boxes = torch.tensor([[5.0, 10.0, 70.0, 55.0], [90.0, 60.0, 60.0, 40.0]], dtype=torch.float64)
    pooled = prroi_pool(features, boxes, 4, scale=1 / 16)
    # Midpoint sums over a fine grid of the zero-padded bilinear surface.
    padded = functional.pad(features, (12, 12, 12, 12))
    fine = 60
    for index, (x, y, w, h) in enumerate((boxes / 16).tolist()):
        ys = y + h * (torch.arange(4 * fine, dtype=torch.float64) + 0.5) / (4 * fine) + 12
        xs = x + w * (torch.arange(4 * fine, dtype=torch.float64) + 0.5) / (4 * fine) + 12
        grid = torch.stack(
            [
                (2 * xs / (padded.shape[-1] - 1) - 1).expand(4 * fine, -1),
                (2 * ys / (padded.shape[-2] - 1) - 1)[:, None].expand(-1, 4 * fine),
            ],
            dim=-1,
        )
        sampled = functional.grid_sample(padded[index : index + 1], grid[None], align_corners=True)
        expected = functional.avg_pool2d(sampled, fine)[0]
        assert torch.allclose(pooled[index], expected, atol=2e-4)


def test_pooling_a_box_without_area_or_outside_the_map_is_zero() -> None:
    features = torch.ones(2, 1, 4, 4)
    boxes = torch.tensor([[10.0, 10.0, 0.0, 20.0], [500.0, 500.0, 20.0, 20.0]])
    assert float(prroi_pool(features, boxes, 4, scale=1 / 16).abs().max()) == 0


def test_first_label_has_the_published_values() -> None:
    label = gaussian_labels(torch.tensor([[0.5, 0.5]]), (15, 26), 4, sigma_factor=0.25 / 6)[0]
    assert label.shape == (16, 27)
    assert float(label.max()) == pytest.approx(0.83142, abs=1e-5)
    assert (label > 0.83).nonzero().tolist() == [[7, 13], [8, 13]]
    assert int((label > 0.05).sum()) == 12


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [((3.7, 2.9, 4.6, 3.2), (2, 4), (3, 6)), ((-2.5, -1.2, 6.9, 4.9), (0, 3), (0, 4))],
)
def test_boxes_are_drawn_with_the_released_rounding(box, rows, columns) -> None:
    mask = box_masks(torch.tensor(box), (10, 12))
    ys, xs = mask.nonzero(as_tuple=True)
    assert (int(ys.min()), int(ys.max())) == rows
    assert (int(xs.min()), int(xs.max())) == columns
    assert mask.sum() == (rows[1] - rows[0] + 1) * (columns[1] - columns[0] + 1)
