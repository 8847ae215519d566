"""Points with error bars, in SVG: what a network gets right against what it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from octavo.backends.bench.svg import COLORS, Axis

WIDTH, HEIGHT, LEFT, TOP, LINE = 560, 300, 50, 20, 18


@dataclass(frozen=True)
class Point:
    """A mean in percent with its standard deviation, at a cost."""

    name: str
    x: float
    y: float
    spread: float


def scatter(points: Sequence[Point], label: str, *, logarithmic: bool) -> str:
    """A picture of points; the names stand at its right, in the order of the points.

    Args:
        points: at least one; costs are positive.
        label: what the horizontal axis counts.
        logarithmic: whether it does so by powers.
    """
    across = _axis([p.x for p in points], WIDTH, logarithmic=logarithmic)
    up = _axis([p.y + side * p.spread for p in points for side in (-1, 1)], HEIGHT, logarithmic=False)
    width, height = LEFT + WIDTH + 190, TOP + max(HEIGHT, LINE * len(points)) + 45
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 38}" text-anchor="middle">{escape(label)}</text>',
        f'<text x="{LEFT - 6}" y="{TOP - 6}" text-anchor="end">right, %</text>',
    ]
    for tick in up.ticks():
        y = TOP + HEIGHT - up.at(tick)
        parts.append(f'<path d="M{LEFT} {y:.1f}h{WIDTH}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for tick in across.ticks():
        x = LEFT + across.at(tick)
        parts.append(f'<path d="M{x:.1f} {TOP}v{HEIGHT}" stroke="#eeeeee"/>')
        parts.append(f'<text x="{x:.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{tick:.4g}</text>')
    for index, point in enumerate(points):
        parts += _draw(point, index, across, up)
    return "\n".join([*parts, "</svg>", ""])


def _axis(values: Sequence[float], length: float, *, logarithmic: bool) -> Axis:
    """Some room on both sides."""
    low, high = min(values), max(values)
    if logarithmic:
        return Axis(low / 1.3, high * 1.3, length, logarithmic)
    room = 0.08 * (high - low) or 0.5
    return Axis(low - room, high + room, length)


def _draw(point: Point, index: int, across: Axis, up: Axis) -> list[str]:
    color = COLORS[index % len(COLORS)]
    x, y = LEFT + across.at(point.x), TOP + HEIGHT - up.at(point.y)
    spread = up.at(point.y + point.spread) - up.at(point.y)
    row = TOP + 10 + LINE * index
    said = f"{point.name}: {point.y:.2f} ± {point.spread:.2f} at {point.x:.4g}"
    return [
        f'<path d="M{x:.1f} {y - spread:.1f}V{y + spread:.1f}" stroke="{color}" stroke-width="1.5"/>',
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"><title>{escape(said)}</title></circle>',
        f'<circle cx="{LEFT + WIDTH + 16}" cy="{row - 4}" r="4" fill="{color}"/>',
        f'<text x="{LEFT + WIDTH + 26}" y="{row}">{escape(point.name)}</text>',
    ]
