"""What the parity tests share: the weights that any machine can rebuild, the synthetic frames, and comparisons.

The rules are those of the parity folder's README and of the network specification's section on parity vectors.
"""

from __future__ import annotations

import importlib.util
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import load_file

from rts_batch.config import RTS50
from rts_batch.model.rts import RTS

FIXTURES = Path(__file__).parent / "fixtures"


def load_golden() -> dict[str, Any]:
    return json.loads((FIXTURES / "rts-golden.json").read_text())


def official_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Returns key → shape of an official checkpoint, `rts50` or `sta`, in file order."""
    entries = json.loads((FIXTURES / f"{name}-state-dict.json").read_text())
    return {entry["key"]: tuple(entry["shape"]) for entry in entries}


def golden_fill(name: str) -> dict[str, torch.Tensor]:
    """Returns the state dict of the golden numbers: splitmix64 of each entry's place (network spec §16)."""
    state = {}
    for index, (key, shape) in enumerate(official_shapes(name).items()):
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros(shape, dtype=torch.int64)
            continue
        count = int(np.prod(shape))
        with np.errstate(over="ignore"):
            z = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(1000003 * index)) * np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
        u = (z >> np.uint64(11)).astype(np.float64) / 2.0**53
        s = 2 * u - 1
        leaf = key.rsplit(".", 1)[-1]
        if leaf == "filter_reg":
            values = np.full(count, 0.05)
        elif leaf == "running_mean":
            values = 0.1 * s
        elif leaf == "running_var":
            values = 0.8 + 0.4 * u
        elif leaf == "bias":
            values = 0.1 * s + (1 if key.endswith("samp_w_pred.bias") else 0)
        elif len(shape) == 4:
            values = s * np.sqrt(6 / (shape[1] * shape[2] * shape[3]))
        else:
            values = 0.4 + 0.2 * u
        state[key] = torch.from_numpy(values.astype(np.float32).reshape(shape))
    return state


def synthetic_frame(height: int, width: int, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns an RGB frame `[H, W, 3] uint8` and its object's mask `[H, W] bool` (network spec §16)."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    image = (
        127.5
        + 60 * np.sin(0.05 * x + 0.9 * c) * np.cos(0.07 * y - 0.5 * c)
        + 50 * np.sin(0.011 * x * (c + 1) + 0.023 * y)
    )
    inside = ((y - 0.5 * height - 1.5 * t) / (0.09 * height)) ** 2 + (
        (x - 0.5 * width - 2.5 * t) / (0.07 * width)
    ) ** 2 <= 1
    image = np.where(inside, 200 - 30 * c + 30 * np.sin(0.4 * x - 0.3 * y + c), image)
    return np.floor(image.clip(0, 255) + 0.5).astype(np.uint8), inside[..., 0]


@lru_cache(maxsize=1)
def _parity_state(folder: str) -> dict[str, torch.Tensor]:
    spec = importlib.util.spec_from_file_location("parity_fill", f"{folder}/fill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    fresh = RTS(RTS50).state_dict()
    state = {
        key: torch.from_numpy(np.asarray(module.fill(key, tuple(value.shape), value.numpy())))
        for key, value in fresh.items()
    }
    trained = load_file(f"{folder}/decoder_and_mu.safetensors")
    mu = trained.pop("mu").float()
    for key in ("target_model.feature_extractor.0.weight", "classifier.feature_extractor.0.weight"):
        weight = state[key]
        state[key] = weight - torch.einsum("ochw,c->ohw", weight, mu)[:, None] * mu[None, :, None, None]
    identity = torch.zeros_like(state["classifier.filter_initializer.filter_conv.weight"])
    channel = torch.arange(identity.shape[0])
    identity[channel, channel, 1, 1] = 1
    state["classifier.filter_initializer.filter_conv.weight"] = identity
    state["classifier.filter_initializer.filter_conv.bias"].zero_()
    state.update({key: value.to(fresh[key].dtype) for key, value in trained.items()})
    return state


def parity_model(folder: Path) -> RTS:
    """Returns the network of the parity tracks."""
    model = RTS(RTS50)
    model.load_state_dict(_parity_state(str(folder)))
    return model.requires_grad_(False)


def read_davis(folder: Path, sequence: str, index: int) -> np.ndarray:
    """Returns a frame, `[H, W, 3] uint8` RGB; index −1 is the grey frame of the tracks."""
    if index < 0:
        return np.full((480, 854, 3), 114, np.uint8)
    image = cv2.imread(str(folder / f"JPEGImages/480p/{sequence}/{index:05d}.jpg"))
    return np.ascontiguousarray(image[..., ::-1])


def read_davis_mask(folder: Path, sequence: str, index: int) -> np.ndarray:
    mask = cv2.imread(str(folder / f"Annotations/480p/{sequence}/{index:05d}.png"), cv2.IMREAD_GRAYSCALE)
    return np.asarray(mask > 127)


def relative_error(ours: torch.Tensor, theirs: np.ndarray) -> float:
    reference = torch.from_numpy(np.asarray(theirs, dtype=np.float64)).flatten()
    return float((ours.double().flatten() - reference).norm() / reference.norm())


def iou(first: np.ndarray, second: np.ndarray) -> float:
    union = np.logical_or(first, second).sum()
    return 1.0 if union == 0 else float(np.logical_and(first, second).sum() / union)
