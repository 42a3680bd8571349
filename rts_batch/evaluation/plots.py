"""Success, precision and overlap plots as SVG, written by hand: a line and its axes need no library."""

from __future__ import annotations

from html import escape
from typing import Final

from rts_batch.evaluation.scoring import BenchmarkScores, PlotLine

_WIDTH: Final = 480
_HEIGHT: Final = 360
_LEFT, _TOP, _RIGHT, _BOTTOM = 56, 36, 16, 48
_STEPS: Final = 5

_AXES: Final = {
    "success": ("Success", "overlap threshold", "part of the frames above"),
    "precision": ("Precision", "centre error threshold in pixels", "part of the frames within"),
    "normalised_precision": (
        "Normalised precision",
        "centre error threshold, parts of the box",
        "part of the frames within",
    ),
    "eao": ("Expected average overlap", "frames tracked", "expected overlap"),
}


def to_svg(report: BenchmarkScores, name: str) -> str:
    """One curve of a report (a key of `report.curves`) as an SVG image, with the measure of that name in its title."""
    title, x_title, y_title = _AXES[name]
    curve = report.curves[name]
    heading = f"{title} on {report.title}: {100 * report.measures[name]:.1f}"
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f"<title>{escape(heading)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="22" font-size="14" font-weight="600" fill="#222">{escape(heading)}</text>',
    ]
    highest = curve.thresholds[-1]
    for step in range(_STEPS + 1):
        x, y = _point(step / _STEPS, step / _STEPS)
        parts += [
            f'<path d="M{x:.1f} {_TOP}V{bottom}M{_LEFT} {y:.1f}H{right}" stroke="#ddd" fill="none"/>',
            f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" fill="#444">{highest * step / _STEPS:g}</text>',
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#444">{step / _STEPS:g}</text>',
        ]
    middle = f"translate(14 {(_TOP + bottom) / 2}) rotate(-90)"
    parts += [
        f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 10}" text-anchor="middle" fill="#222">{escape(x_title)}</text>',
        f'<text transform="{middle}" text-anchor="middle" fill="#222">{escape(y_title)}</text>',
        f'<polyline points="{_line(curve)}" fill="none" stroke="#0b63c5" stroke-width="2"/>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _line(curve: PlotLine) -> str:
    points = (
        _point(threshold / curve.thresholds[-1], part)
        for threshold, part in zip(curve.thresholds, curve.parts, strict=True)
    )
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _point(across: float, up: float) -> tuple[float, float]:
    """Where a point of the unit square lies in the image."""
    return (
        _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
        _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
    )
