"""The course of a training run as a picture: loss and validation by epoch, in SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH, _HEIGHT = 640, 180
_LEFT, _TOP, _GAP = 70, 30, 50


def draw_curves(history: Sequence[Mapping[str, Any]]) -> str:
    """Two charts above each other from the entries of ``log.jsonl``: the loss in training, and the validation."""
    panels = (
        ("loss in training", [float(entry["train"]["loss"]) for entry in history], "#c44e52"),
        ("validation", [float(entry["validation"]) for entry in history], "#4c72b0"),
    )
    width = _LEFT + _WIDTH + 30
    height = _TOP + len(panels) * (_HEIGHT + _GAP)
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for index, (title, values, color) in enumerate(panels):
        parts += _panel(title, values, color, _TOP + index * (_HEIGHT + _GAP))
    return "\n".join([*parts, "</svg>", ""])


def _panel(title: str, values: Sequence[float], color: str, top: int) -> list[str]:
    low, high = min(values, default=0.0), max(values, default=0.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    steps = max(len(values) - 1, 1)

    def x(epoch: int) -> float:
        return _LEFT + _WIDTH * epoch / steps

    def y(value: float) -> float:
        return top + _HEIGHT * (high - value) / (high - low)

    parts = [f'<text x="{_LEFT}" y="{top - 10}" font-weight="bold">{title}</text>']
    for tick in (low, (low + high) / 2, high):
        parts.append(f'<path d="M{_LEFT} {y(tick):.1f}h{_WIDTH}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for epoch in sorted({0, steps // 2, len(values) - 1} if values else set()):
        label = f'<text x="{x(epoch):.1f}" y="{top + _HEIGHT + 18}" text-anchor="middle">{epoch + 1}</text>'
        parts.append(label)
    points = " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in enumerate(values))
    parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
    parts += [
        f'<circle cx="{x(epoch):.1f}" cy="{y(value):.1f}" r="2.5" fill="{color}"><title>epoch {epoch + 1}: '
        f"{value:.6g}</title></circle>"
        for epoch, value in enumerate(values)
    ]
    return parts
