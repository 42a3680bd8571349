"""Every stage of the network against the published implementation's numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from rts_batch.config import RTS50, StaConfig
from rts_batch.model.instance_model import gaussian_labels, prroi_pool
from rts_batch.model.layers import resize
from rts_batch.model.learner import apply_filter
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from tests.support.parity_data import (
    golden_fill,
    iou,
    load_golden,
    official_shapes,
    parity_model,
    read_davis,
    read_davis_mask,
    relative_error,
    synthetic_frame,
)

pytestmark = pytest.mark.networks


@pytest.fixture(scope="module", autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.mark.parametrize(("name", "network"), [("rts50", lambda: RTS(RTS50)), ("sta", lambda: STA(StaConfig()))])
def test_state_dict_has_the_official_keys_and_shapes(name: str, network) -> None:
    ours = {key: tuple(value.shape) for key, value in network().state_dict().items()}
    assert ours == official_shapes(name)


def label_centre(place: list[tuple[float, float]]) -> torch.Tensor:
    return torch.tensor(place, dtype=torch.float64)


def test_network_equals_the_golden_numbers() -> None:
    golden = load_golden()["network"]
    model = RTS(RTS50)
    model.load_state_dict(golden_fill("rts50"))
    model.double()
    frames = [synthetic_frame(480, 832, t) for t in (0, 7)]
    assert [int(image.sum()) for image, _ in frames] == [
        golden["image.checksum"]["sum_frame0"],
        golden["image.checksum"]["sum_frame7"],
    ]
    assert int(frames[0][1].sum()) == golden["image.checksum"]["mask_sum"]
    images = torch.from_numpy(np.stack([image for image, _ in frames])).permute(0, 3, 1, 2).double()
    normalised = model.feature_extractor.normalise(images)
    maps = model.feature_extractor(normalised)
    features = model.branch(maps)
    ours = {
        "input.normalised": normalised,
        "seg.features": features.segmentation,
        "clf.features": features.localisation,
    }
    ours.update({f"backbone.{layer}": value for layer, value in maps.items()})

    mask = torch.from_numpy(frames[0][1]).double()[None, None]
    label, weight = model.label_encoder(mask)
    x_s = features.segmentation[:, None]
    taus = model.target_model.learn(x_s[:1], label, weight, iterations=5)
    ours |= {
        "seg.label": label,
        "seg.sample_weight": weight,
        "seg.filter.iter1": taus[1],
        "seg.filter.iter5": taus[5],
    }

    x_c = features.localisation[:, None]
    labels = gaussian_labels(
        label_centre([(0.5, 0.5), (0.5 + 10.5 / 32, 0.5 + 17.5 / 32)]), (15, 26), 4, sigma_factor=0.25 / 6
    )[:, None]
    boxes = torch.tensor([[358, 197, 116.5, 86.4], [375.5, 207.5, 116.5, 86.4]], dtype=torch.float64)[:, None]
    kappa0 = model.classifier.filter_initializer(x_c, boxes)
    kappas = model.classifier.learn(kappa0, x_c, labels, iterations=5)
    updated = model.classifier.learn(
        kappas[-1], x_c, labels, iterations=2, sample_weights=torch.tensor([0.3, 0.7], dtype=torch.float64)
    )
    score_map = model.localise(x_c[1:], kappas[5])
    ours |= {
        "clf.label": labels,
        "clf.filter.init": kappa0[:, 0],
        "clf.filter.iter1": kappas[1][:, 0],
        "clf.filter.iter5": kappas[5][:, 0],
        "clf.filter.update_w0.3_0.7_iter2": updated[-1][:, 0],
        "clf.scores.frame2": score_map,
        "clf_encoder.out.frame2": model.clf_encoder.label(score_map),
        "mask_encoding.frame2": apply_filter(x_s[1:], taus[5]),
        "decoder.out.frame2": model.segment(x_s[1:], {k: v[1:] for k, v in maps.items()}, taus[5], score_map),
    }
    assert set(ours) == {key for key in golden if not key.startswith(("sta.", "image."))}
    for key, value in ours.items():
        assert_golden(key, value, golden[key])


def test_sta_equals_the_golden_numbers() -> None:
    golden = load_golden()["network"]
    sta = STA(StaConfig())
    sta.load_state_dict(golden_fill("sta"))
    sta.double()
    image = torch.from_numpy(synthetic_frame(480, 832, 0)[0]).permute(2, 0, 1).double()
    normalised = sta.feature_extractor.normalise(image)[None, None]
    first, final = sta(normalised, torch.tensor([[[358, 197, 116.5, 86.4]]], dtype=torch.float64))
    assert_golden("sta.first", first, golden["sta.first"])
    assert_golden("sta.final", final, golden["sta.final"])


def assert_golden(key: str, value: torch.Tensor, entry: dict) -> None:
    assert list(value.shape) == entry["shape"], key
    tolerance = 2e-6 * entry["std"]
    sampled = value.flatten()[entry["flat_index"]]
    # The file rounds each value to nine significant digits.
    expected = torch.tensor(entry["value"], dtype=torch.float64)
    assert torch.allclose(sampled, expected, rtol=1e-6, atol=tolerance + 1e-9), key
    assert float(value.std(unbiased=False)) == pytest.approx(entry["std"], rel=1e-6), key
    assert float(value.mean()) == pytest.approx(entry["mean"], rel=1e-6, abs=tolerance), key
    assert float(value.abs().max()) == pytest.approx(entry["absmax"], rel=1e-6), key


def test_every_stage_equals_the_published_one_on_a_real_frame(parity_folder: Path, davis_folder: Path) -> None:
    theirs = np.load(parity_folder / "stages_dog.npz")
    model = parity_model(parity_folder)
    crop = read_davis(davis_folder, "dog", 0)[:, 11:843]
    mask = read_davis_mask(davis_folder, "dog", 0)[:, 11:843]
    image = torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1).float()[None]
    features = model.extract(image)
    x_s, x_c = features.segmentation[:, None], features.localisation[:, None]
    label, weight = model.label_encoder(torch.from_numpy(mask).float()[None, None])
    tau = model.target_model.learn(x_s, label, weight, iterations=20)[-1]
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    assert box == theirs["bbox"].tolist()
    x, y, w, h = map(float, box)
    centre = torch.tensor([[y + (h - 1) / 2, x + (w - 1) / 2]])
    grid, crop_size = torch.tensor([15.0, 26.0]), torch.tensor([480.0, 832.0])
    places = grid * (centre - torch.tensor([240.0, 416.0])) / crop_size + 0.5
    y_c = gaussian_labels(places, (15, 26), 4, sigma_factor=0.25 / 6)[None]
    kappa0 = model.classifier.filter_initializer(x_c, torch.tensor([[[x, y, w, h]]]))
    kappa = model.classifier.learn(kappa0, x_c, y_c, iterations=10)[-1]
    s_c = model.localise(x_c, kappa)
    logits = model.segment(x_s, features.maps, tau, s_c)
    x_m = apply_filter(x_s, tau)
    ours = {f"B.{layer}": value for layer, value in features.maps.items()} | {
        "x_s": features.segmentation,
        "x_c": features.localisation,
        "E.label": label,
        "W.weight": weight,
        "tau": tau,
        "y_c": y_c,
        "kappa0": kappa0[:, 0],
        "kappa": kappa[:, 0],
        "s_c": s_c,
        "H": model.clf_encoder.label(s_c),
        "x_m": x_m,
        "logits": logits,
    }
    after_the_learners = {"tau", "kappa", "s_c", "H", "x_m", "logits"}
    for key, value in ours.items():
        assert list(value.shape) == theirs[f"{key}.shape"].tolist(), key
        tolerance = 1e-3 if key in after_the_learners else 1e-4
        if key in theirs:
            assert relative_error(value, theirs[key]) <= tolerance, key
        else:
            assert relative_error(value.flatten()[theirs[f"{key}.idx"]], theirs[f"{key}.val"]) <= tolerance, key
        assert float(value.double().norm()) == pytest.approx(float(theirs[f"{key}.norm"]), rel=tolerance), key
    assert resize(ours["H"][0], (30, 52)).shape == x_m.shape[1:]
    reference = coco.decode({"size": [480, 832], "counts": theirs["mask_rle"].tobytes()}).astype(bool)
    assert iou((logits[0, 0] > 0).numpy(), reference) >= 0.999


def test_pooling_keeps_an_overlap_of_one_rounding_error() -> None:
    features = torch.ones(1, 1, 15, 26)
    # Four bins of one cell; the third begins at column 26, where the surface has faded to zero, or one bit before it.
    at_the_edge = torch.tensor([[24.0 * 16, 4.0 * 16, 64.0, 64.0]])
    before = at_the_edge.clone()
    before[0, 0] = torch.nextafter(before[0, 0], torch.tensor(0.0))
    for box, positive in ((at_the_edge, False), (before, True)):
        pooled = prroi_pool(features, box, 4, scale=1 / 16)
        assert bool((pooled[..., 2] > 0).all()) == positive
        assert (pooled[..., 3] == 0).all()


def test_pooling_rounds_corners_and_edges_as_published() -> None:
    """Which bins hold a sliver of the map, against float32 scalars in the operator's order (network spec §8.2)."""
    features = torch.ones(1, 1, 15, 26)
    four, sixteenth = np.float32(4), np.float32(1 / 16)
    # Boxes of first frames are centred, up to roundings, on column 26 and row 15, where the surface has faded to zero.
    generator = np.random.default_rng(0)
    for extent in generator.uniform(60, 200, (200, 2)).astype(np.float32):
        corner = np.float32([415.5, 239.5]) - (extent - np.float32(1)) / np.float32(2)
        pooled = prroi_pool(features, torch.tensor(np.concatenate([corner, extent])[None]), 4, scale=1 / 16)[0, 0]
        for axis, (end, bins) in enumerate(((26, pooled.amax(0)), (15, pooled.amax(1)))):
            first = corner[axis] * sixteenth
            width = ((corner[axis] + extent[axis]) * sixteenth - first) / four
            held = [bool(first + np.float32(place) * width < end) for place in range(4)]
            assert (bins > 0).tolist() == held, (corner.tolist(), extent.tolist())
