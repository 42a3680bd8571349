"""How a cut-out changes its shape: bending, limbs that turn at joints, and relief that is seen from another side.

Everything is a displacement of where a picture is read, on a coarse grid over it: `[GRID, GRID, 2]`, (x, y) in pixels
of the picture. A cut-out is flat; its relief is a guess, as deep at each pixel as the square root of the distance to
the outline, so that its outline stays in place while what lies inside moves to one side.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rts_batch.training.clips.stills.curves import Curve

GRID = 32
LARGEST_TURN = 0.7
"""Radians of yaw or pitch; a relief that is turned further shows what no picture has."""

Displacement = NDArray[np.float32]
"""`[GRID, GRID, 2]`, (x, y) in picture pixels."""


@dataclass(frozen=True)
class Relief:
    """A depth map that turns about both axes of the picture."""

    depth: NDArray[np.float32]
    """`[GRID, GRID]` in picture pixels, 0 at the outline and beyond."""
    extent: tuple[int, int]
    """Height and width of the picture."""
    yaw: Curve
    pitch: Curve

    def angles(self, t: float) -> tuple[float, float]:
        """Return yaw and pitch at time `t` in radians."""
        yaw, pitch = (float(np.clip(curve(t), -LARGEST_TURN, LARGEST_TURN)) for curve in (self.yaw, self.pitch))
        return yaw, pitch

    def displacement(self, t: float) -> Displacement:
        """Return where the turned relief is read, beside the shrinking by cos(yaw) and cos(pitch)."""
        slope = np.tan(np.array(self.angles(t), np.float32))
        cells = slope * GRID / np.array(self.extent[::-1], np.float32)
        here = np.dstack(np.meshgrid(*[np.arange(GRID, dtype=np.float32)] * 2))
        # What is seen at a place lies where the depth there, not the depth here, has moved it from: one step of it.
        there = here - self.depth[..., None] * cells.astype(np.float32)
        depth = cv2.remap(self.depth, there.astype(np.float32), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return np.asarray(-depth[..., None] * slope.astype(np.float32), np.float32)


@dataclass(frozen=True)
class Limb:
    """A part of a picture that turns about a joint."""

    joint: tuple[float, float]
    """(x, y) in picture pixels."""
    share: NDArray[np.float32]
    """`[GRID, GRID]`: 0 what stays, 1 what turns."""
    places: NDArray[np.float32]
    """`[GRID, GRID, 2]`: (x, y) of the grid's cells in picture pixels."""
    angle: Curve

    def displacement(self, t: float) -> Displacement:
        angle = self.angle(t)
        cosine, sine = np.cos(angle), np.sin(angle)
        arm = self.places - np.array(self.joint, np.float32)
        turned = np.stack([cosine * arm[..., 0] + sine * arm[..., 1], cosine * arm[..., 1] - sine * arm[..., 0]], -1)
        return np.asarray(self.share[..., None] * (turned - arm), np.float32)


def random_relief(alpha: NDArray[np.uint8], rng: np.random.Generator, pace: float) -> Relief:
    """Return a relief over a cut-out's opacity, `[h, w] uint8`, with a random way to turn."""
    solid = (alpha >= 128).astype(np.uint8)
    distance = cv2.distanceTransform(solid, cv2.DIST_L2, 3)
    depth = float(rng.uniform(0.5, 1.1)) * np.sqrt(distance * max(float(distance.max()), 1.0))
    grid = cv2.resize(depth.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA)
    height, width = alpha.shape
    yaw, pitch = Curve.random(rng, 0.7 * pace), Curve.random(rng, 0.3 * pace)
    return Relief(np.asarray(grid, np.float32), (height, width), yaw, pitch)


def random_limbs(alpha: NDArray[np.uint8], rng: np.random.Generator, pace: float) -> tuple[Limb, ...]:
    """Return one to three parts of a cut-out, each everything on one side of a line through a point of it."""
    height, width = alpha.shape
    inside = np.argwhere(alpha >= 128)
    if not len(inside):
        return ()
    x, y = (np.arange(GRID, dtype=np.float32) + 0.5) * width / GRID, (np.arange(GRID) + 0.5) * height / GRID
    places = np.dstack(np.meshgrid(x, y.astype(np.float32)))
    size = float(np.sqrt(height * width))
    middle = np.array([width / 2, height / 2])
    limbs = []
    for _ in range(int(rng.integers(1, 4))):
        row, column = inside[int(rng.integers(len(inside)))]
        joint = np.array([column, row], float)
        outward = joint - middle + rng.normal(0, 0.15 * size, 2)
        outward /= max(float(np.linalg.norm(outward)), 1e-3)
        along = (places - joint.astype(np.float32)) @ outward.astype(np.float32)
        share = 1 / (1 + np.exp(-np.clip(along / (0.05 * size), -20, 20)))
        limbs.append(
            Limb((float(joint[0]), float(joint[1])), share.astype(np.float32), places, Curve.swing(rng, 0.5, pace))
        )
    return tuple(limbs)


def smooth_fields(rng: np.random.Generator, amplitude: float) -> NDArray[np.float32]:
    """Return two random smooth displacement fields, `[2, GRID, GRID, 2]`, of about `amplitude` pixels."""
    coarse = rng.normal(0, amplitude, (2, 5, 5, 2)).astype(np.float32)
    return np.stack([cv2.resize(field, (GRID, GRID), interpolation=cv2.INTER_CUBIC) for field in coarse])
