"""The faults of real footage: colour, blur, noise, compression, low resolution, and the frame's edge."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


class Footage:
    """The faults of one clip's footage: colour, blur, noise, compression, resolution."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.gain = np.exp(rng.normal(0, 0.12, 3)) * np.exp(rng.normal(0, 0.15))
        self.flip = rng.random() < 0.5
        self.grey = rng.random() < 0.05
        self.blur = rng.random() < 0.3
        self.noise = float(rng.uniform(2, 9)) if rng.random() < 0.3 else 0.0
        self.quality = int(rng.integers(25, 80)) if rng.random() < 0.3 else 0
        self.coarse = float(rng.uniform(1.3, 3.0)) if rng.random() < 0.25 else 0.0

    def __call__(
        self, image: NDArray[np.uint8], target: NDArray[np.uint8], rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        gain = self.gain * np.exp(rng.normal(0, 0.05))
        result = cv2.multiply(image, (*gain.tolist(), 1.0))
        if self.grey:
            result = cv2.cvtColor(cv2.cvtColor(result, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        if self.blur and rng.random() < 0.6:
            length = int(rng.integers(3, 14))
            kernel = cv2.getRotationMatrix2D((length / 2 - 0.5, length / 2 - 0.5), float(rng.uniform(0, 180)), 1)
            line = np.zeros((length, length), np.float32)
            line[length // 2] = 1
            line = cv2.warpAffine(line, kernel, (length, length))
            result = cv2.filter2D(result, -1, line / max(float(line.sum()), 1e-3))
        if self.coarse:
            small = (max(8, int(width / self.coarse)), max(8, int(height / self.coarse)))
            result = cv2.resize(cv2.resize(result, small, interpolation=cv2.INTER_AREA), (width, height))
        if self.noise:
            grain = np.empty(image.shape, np.int16)
            cv2.setRNGSeed(int(rng.integers(2**31)))
            cv2.randn(grain, 0, self.noise)
            result = np.clip(result.astype(np.int16) + grain, 0, 255).astype(np.uint8)
        if self.quality:
            _, packed = cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, self.quality])
            result = cv2.imdecode(packed, cv2.IMREAD_COLOR)
        return np.asarray(result, np.uint8)


def frame_edge(image: NDArray[np.uint8], pad: tuple[int, ...]) -> NDArray[np.uint8]:
    """Replace the edges by replication, as where a search region leaves the frame. `pad`: top, left, bottom, right."""
    top, left, bottom, right = pad[0], pad[1], pad[2], pad[3]
    height, width = image.shape[:2]
    inner = image[top : height - bottom, left : width - right]
    return np.asarray(cv2.copyMakeBorder(inner, top, bottom, left, right, cv2.BORDER_REPLICATE), np.uint8)


def nothing_outside(mask: NDArray[np.uint8], pad: tuple[int, ...]) -> NDArray[np.uint8]:
    top, left, bottom, right = pad[0], pad[1], pad[2], pad[3]
    blanked = np.zeros_like(mask)
    inside = (slice(top, mask.shape[0] - bottom), slice(left, mask.shape[1] - right))
    blanked[inside] = mask[inside]
    return blanked
