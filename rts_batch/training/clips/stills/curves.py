"""Smooth random motion over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Curve:
    """Smooth random motion that is zero at t = 0: a drift and waves."""

    drift: float
    waves: tuple[tuple[float, float, float], ...]
    """Amplitude, cycles, phase of each."""

    def __call__(self, t: float) -> float:
        return self.drift * t + sum(
            a * (np.sin(2 * np.pi * (n * t + p)) - np.sin(2 * np.pi * p)) for a, n, p in self.waves
        )

    @classmethod
    def random(cls, rng: np.random.Generator, scale: float) -> Curve:
        slow = (rng.normal() * scale * 0.3, rng.uniform(0.3, 1.5), rng.uniform())
        fast = (rng.normal() * scale * 0.06, rng.uniform(3, 8), rng.uniform())
        return cls(float(rng.normal() * scale), (slow, fast))

    @classmethod
    def swing(cls, rng: np.random.Generator, scale: float, pace: float) -> Curve:
        """Return motion to and fro, as of a leg: its extent does not depend on `pace`, how often it swings does."""
        return cls(0.0, ((float(rng.normal() * scale), float(rng.uniform(1, 5) * pace), float(rng.uniform())),))
