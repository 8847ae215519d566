"""Small pictures in SVG: axes, and the roofline of a network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from .profile import KernelProfile, NetworkProfile

COLORS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#8c8c8c", "#ccb974", "#64b5cd")
WIDTH, HEIGHT, LEFT, TOP, LINE = 620, 360, 60, 30, 18
ACROSS = "multiply-accumulates per byte moved"
_SMALL, _LARGE = 256 * 1024, 64 * 1024 * 1024
"""Buffers whose bandwidths are drawn: what a second-level cache holds, and what none does."""


@dataclass(frozen=True)
class Axis:
    """Values from ``low`` to ``high`` along ``length`` pixels."""

    low: float
    high: float
    length: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Pixels from the beginning."""
        low, high, value = (math.log(x) if self.logarithmic else x for x in (self.low, self.high, value))
        return self.length * (value - low) / (high - low)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values inside, equally far apart; of a logarithmic axis 1, 2 and 5 times powers of ten."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        else:
            rough = (self.high - self.low) / count
            step = next(s for d in (1, 2, 5, 10) if (s := d * 10.0 ** math.floor(math.log10(rough))) >= rough)
            found = [step * index for index in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        return [value for value in found if self.low <= value <= self.high]


def roofline(profile: NetworkProfile, title: str) -> str:
    """The kernels that multiply, as areas of their share of the time, under the limits of the machine.

    Raises:
        ValueError: no kernel multiplies.
    """
    kernels = [kernel for kernel in profile.kernels if kernel.work.macs]
    if not kernels:
        raise ValueError("no kernel multiplies")
    across, up = _axes(profile, kernels)
    kinds = list(dict.fromkeys(_kind(kernel) for kernel in kernels))
    width, height = LEFT + WIDTH + 190, TOP + HEIGHT + 45
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="{TOP - 12}" font-weight="bold">{escape(title)}</text>',
        f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 38}" text-anchor="middle">{ACROSS}</text>',
        f'<text x="{LEFT + WIDTH}" y="{TOP - 12}" text-anchor="end">GMAC/s</text>',
        *_grid(across, up),
        *_roofs(profile, across, up),
    ]
    for kernel in sorted(kernels, key=lambda kernel: -kernel.nanoseconds):
        parts += _point(profile, kernel, COLORS[kinds.index(_kind(kernel)) % len(COLORS)], across, up)
    for row, kind in enumerate(kinds):
        y = TOP + HEIGHT - LINE * (len(kinds) - 1 - row)
        parts.append(f'<circle cx="{LEFT + WIDTH + 16}" cy="{y - 4}" r="5" fill="{COLORS[row % len(COLORS)]}"/>')
        parts.append(f'<text x="{LEFT + WIDTH + 26}" y="{y}">{escape(kind)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _kind(kernel: KernelProfile) -> str:
    return f"{kernel.work.kernel} ({kernel.work.instruction})"


def _axes(profile: NetworkProfile, kernels: Sequence[KernelProfile]) -> tuple[Axis, Axis]:
    intensities = [kernel.intensity for kernel in kernels]
    rates = [*(kernel.gmacs for kernel in kernels), *profile.machine.peaks.values()]
    return (
        Axis(min(intensities) / 2, max(intensities) * 2, WIDTH, logarithmic=True),
        Axis(min(rates) / 2, max(rates) * 1.6, HEIGHT, logarithmic=True),
    )


def _grid(across: Axis, up: Axis) -> Iterator[str]:
    for tick in up.ticks():
        y = TOP + HEIGHT - up.at(tick)
        yield f'<path d="M{LEFT} {y:.1f}h{WIDTH}" stroke="#eeeeee"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>'
    for tick in across.ticks():
        x = LEFT + across.at(tick)
        yield f'<path d="M{x:.1f} {TOP}v{HEIGHT}" stroke="#eeeeee"/>'
        yield f'<text x="{x:.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{tick:.4g}</text>'


def _roofs(profile: NetworkProfile, across: Axis, up: Axis) -> Iterator[str]:
    """Bandwidths rise until they meet the peak; every instruction has its own."""
    machine = profile.machine
    for size, name in ((_SMALL, "256 KB"), (_LARGE, "64 MB")):
        rate = machine.bytes_per_nanosecond(size)
        start, end = max(across.low, up.low / rate), min(across.high, machine.peak / rate)
        if start < end:
            x, y = LEFT + across.at(start), TOP + HEIGHT - up.at(start * rate)
            to_x, to_y = LEFT + across.at(end), TOP + HEIGHT - up.at(end * rate)
            yield f'<path d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}" stroke="#555555" stroke-dasharray="4 3"/>'
            yield f'<text x="{x + 16:.1f}" y="{y + 4:.1f}" fill="#555555">{name} at {rate:.0f} GB/s</text>'
    for instruction, peak in machine.peaks.items():
        y = TOP + HEIGHT - up.at(peak)
        yield f'<path d="M{LEFT} {y:.1f}h{WIDTH}" stroke="#555555"/>'
        yield f'<text x="{LEFT + WIDTH + 6}" y="{y + 4:.1f}" fill="#555555">{instruction}: {peak:.0f}</text>'


def _point(profile: NetworkProfile, kernel: KernelProfile, color: str, across: Axis, up: Axis) -> Iterator[str]:
    x, y = LEFT + across.at(kernel.intensity), TOP + HEIGHT - up.at(kernel.gmacs)
    share = kernel.nanoseconds / profile.nanoseconds
    said = f"{kernel.label}: {kernel.nanoseconds / 1e3:.1f} us, {share:.1%}, {kernel.gmacs:.0f} GMAC/s, "
    said += f"bound by {kernel.limits.bound}"
    yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{2 + 30 * math.sqrt(share):.1f}" fill="{color}" fill-opacity="0.6">'
    yield f"<title>{escape(said)}</title></circle>"
