"""Moving layers made of still pictures: a background, a target, objects like it and things that pass in front.

A `Scene` is a function of time: `render(t, view, size)` draws any instant as seen through any 3×3 view matrix, so
training draws search regions and evaluation whole frames from one description. World units are pixels of a frame of
`FRAME`; time runs from 0 (the prompt) to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rts_batch.training.clips.stills.curves import Curve
from rts_batch.training.clips.stills.deformation import GRID, Displacement, Limb, Relief

FRAME = (272, 480)
"""Height and width of the world's frame."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Motion:
    """A layer's pose: where its centre is, its size, turn, aspect, perspective and bending at time t."""

    start: tuple[float, float, float, float]
    """x, y of the centre in the world, log of world pixels per picture pixel, turn in radians."""
    x: Curve
    y: Curve
    log_scale: Curve
    turn: Curve
    log_aspect: Curve
    tilt: tuple[Curve, Curve]
    bend: tuple[Curve, Curve]
    """How much of each of the layer's two displacement fields is applied."""
    absence: tuple[float, float] | None = None
    """The interval in which the layer has left the frame, if it does."""
    exit: tuple[float, float] = (0.0, 0.0)
    """The way it leaves, in world pixels."""

    def matrix(self, t: float, extent: tuple[int, int], turned: tuple[float, float] = (0.0, 0.0)) -> Matrix:
        """Return the map from the layer's picture (of `extent` height, width) to the world.

        A picture that is `turned` (yaw, pitch in radians) looks narrower.
        """
        x, y, log_scale, turn = self.start
        away = self._away(t)
        x, y = x + self.x(t) + away * self.exit[0], y + self.y(t) + away * self.exit[1]
        scale = np.exp(np.clip(log_scale + self.log_scale(t), log_scale - 1.3, log_scale + 1.3))
        turn += self.turn(t)
        aspect = np.exp(np.clip(self.log_aspect(t), -0.4, 0.4))
        cosine, sine = np.cos(turn), np.sin(turn)
        place = np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])
        rotate = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1.0]])
        stretch = np.diag([scale * aspect * np.cos(turned[0]), scale / aspect * np.cos(turned[1]), 1.0])
        reach = max(extent) / 2
        tilt = np.eye(3)
        tilt[2, :2] = [np.clip(curve(t), -0.25, 0.25) / reach for curve in self.tilt]
        centre = np.array([[1, 0, -extent[1] / 2], [0, 1, -extent[0] / 2], [0, 0, 1.0]])
        return place @ rotate @ stretch @ tilt @ centre

    def _away(self, t: float) -> float:
        if self.absence is None:
            return 0.0
        leave, back = self.absence
        ramp = 0.08
        return float(np.clip((t - leave + ramp) / ramp, 0, 1) * np.clip((back + ramp - t) / ramp, 0, 1))


@dataclass(frozen=True)
class Layer:
    """A picture with an opacity, moving.

    `rgba` is `[h, w, 4] uint8`. In a background the fourth channel is the target's mask instead, for scenes whose
    target is part of the picture, and the picture goes on beyond its edges.
    """

    rgba: NDArray[np.uint8]
    motion: Motion
    fields: NDArray[np.float32]
    """Two smooth displacement fields in picture pixels, `[2, GRID, GRID, 2]`."""
    tint: tuple[Curve, Curve, Curve]
    """Change of each colour over time, as a factor less 1."""
    holds_target: bool = False
    """Of a background: the target is part of it."""
    film: tuple[NDArray[np.uint8], ...] = ()
    """Pictures like `rgba` that replace it one after the other, evenly from t = 0 to 1; empty for a still."""
    relief: Relief | None = None
    limbs: tuple[Limb, ...] = ()

    def draw(
        self, t: float, view: Matrix, size: tuple[int, int], *, background: bool = False
    ) -> tuple[NDArray[np.uint8], tuple[slice, slice]] | None:
        """Return the layer at time t as RGBA and where it lies in a picture of `size`; None where out of view."""
        rgba = self.film[min(int(t * len(self.film)), len(self.film) - 1)] if self.film else self.rgba
        height, width = rgba.shape[:2]
        matrix = view @ self._matrix(t)
        window = (slice(0, size[0]), slice(0, size[1])) if background else _window(matrix, (height, width), size)
        if window is None:
            return None
        rows, columns = window
        sources = _source_grid(np.asarray(np.linalg.inv(matrix), np.float64), rows, columns)
        places = sources * np.array([GRID / width, GRID / height], np.float32) - 0.5
        sources += cv2.remap(self.deformation(t), places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        border = cv2.BORDER_CONSTANT
        if background:
            # A mirrored target would be a second one that touches the first, so its picture ends in streaks instead.
            border = cv2.BORDER_REPLICATE if self.holds_target else cv2.BORDER_REFLECT_101
        drawn = cv2.remap(rgba, sources, None, cv2.INTER_LINEAR, borderMode=border)
        if background and self.holds_target:
            drawn[:, :, 3] = cv2.remap(rgba[:, :, 3], sources, None, cv2.INTER_LINEAR)
        factors = [float(np.clip(1 + curve(t), 0.4, 1.8)) for curve in self.tint]
        if any(abs(factor - 1) > 0.01 for factor in factors):
            drawn = cv2.multiply(drawn, (*factors, 1.0))
        return np.asarray(drawn, np.uint8), window

    def deformation(self, t: float) -> Displacement:
        """Return how far from its place each cell of a coarse grid is read at time t."""
        bend = sum(float(curve(t)) * field for curve, field in zip(self.motion.bend, self.fields, strict=True))
        for limb in self.limbs:
            bend = bend + limb.displacement(t)
        return np.asarray(bend if self.relief is None else bend + self.relief.displacement(t), np.float32)

    def _matrix(self, t: float) -> Matrix:
        height, width = self.rgba.shape[:2]
        return self.motion.matrix(t, (height, width), (0.0, 0.0) if self.relief is None else self.relief.angles(t))


@dataclass(frozen=True)
class Rendering:
    """One instant: picture `[H, W, 3] uint8`, visible target and other known objects, `[H, W] uint8` opacity 0…255."""

    image: NDArray[np.uint8]
    target: NDArray[np.uint8]
    others: NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """Layers from back to front; `target` is the index of the target's, 0 where it is part of the background."""

    layers: tuple[Layer, ...]
    target: int
    shake: tuple[Curve, Curve]
    light: Curve

    def render(self, t: float, view: Matrix, size: tuple[int, int]) -> Rendering:
        """Draw time `t` as seen through `view`, a map from the world to a picture of `size` (height, width)."""
        view = view @ np.array([[1, 0, self.shake[0](t)], [0, 1, self.shake[1](t)], [0, 0, 1.0]])
        drawn = self.layers[0].draw(t, view, size, background=True)
        assert drawn is not None, "a background fills every view"
        image = np.ascontiguousarray(drawn[0][:, :, :3])
        target = np.ascontiguousarray(drawn[0][:, :, 3])
        others = np.zeros(size, np.uint8)
        for index, layer in enumerate(self.layers[1:], start=1):
            front = layer.draw(t, view, size)
            if front is None:
                continue
            rgba, window = front
            alpha = rgba[:, :, 3:].astype(np.uint16)
            below = image[window].astype(np.uint16)
            image[window] = ((below * (255 - alpha) + rgba[:, :, :3] * alpha + 127) // 255).astype(np.uint8)
            for mask in (target, others):
                mask[window] = ((mask[window].astype(np.uint16) * (255 - alpha[:, :, 0]) + 127) // 255).astype(np.uint8)
            receiver = target if index == self.target else others
            receiver[window] = np.maximum(receiver[window], rgba[:, :, 3])
        gain = float(np.clip(1 + self.light(t), 0.5, 1.6))
        if abs(gain - 1) > 0.01:
            image = np.asarray(cv2.convertScaleAbs(image, alpha=gain), np.uint8)
        return Rendering(image, target, others)


def view_of(centre: tuple[float, float], scale: float, size: tuple[int, int]) -> Matrix:
    """Return the view that puts the world's point `centre` (x, y) in the middle of `size`, `scale` pixels a unit."""
    return np.array(
        [[scale, 0, size[1] / 2 - scale * centre[0]], [0, scale, size[0] / 2 - scale * centre[1]], [0, 0, 1.0]]
    )


def _corners(extent: tuple[int, int]) -> NDArray[np.float64]:
    height, width = extent
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)


def _transform(matrix: Matrix, points: NDArray[np.float64]) -> NDArray[np.float64]:
    homogeneous = np.c_[points, np.ones(len(points))] @ matrix.T
    return np.asarray(homogeneous[:, :2] / np.maximum(homogeneous[:, 2:], 1e-3))


def _window(matrix: Matrix, extent: tuple[int, int], size: tuple[int, int]) -> tuple[slice, slice] | None:
    """Return rows and columns of `size` that a picture of `extent` covers, with a margin for bending."""
    corners = _transform(matrix, _corners(extent))
    margin = 4 + 0.12 * np.ptp(corners, axis=0)
    low = np.maximum(np.floor(corners.min(0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(0) + margin), (size[1], size[0])).astype(int)
    if (high - low < 1).any():
        return None
    return slice(low[1], high[1]), slice(low[0], high[0])


def _source_grid(inverse: Matrix, rows: slice, columns: slice) -> NDArray[np.float32]:
    """Return the picture coordinates (x, y) of every pixel of a window, `[h, w, 2]`."""
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :]
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
    a = inverse.astype(np.float32)
    depth = 1 / np.maximum(a[2, 0] * x + a[2, 1] * y + a[2, 2], 1e-3)
    return np.dstack([(a[0, 0] * x + a[0, 1] * y + a[0, 2]) * depth, (a[1, 0] * x + a[1, 1] * y + a[1, 2]) * depth])
