"""Resize and Upsample: every coordinate convention becomes a scale and an offset for each axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import ModelError
from ...ops.resize import Resize
from ...types import normalize_axis
from .context import Context
from .errors import Refusal
from .operand import Operand
from .registry import translate


@dataclass(frozen=True)
class _Target:
    """Output sizes, and how many output steps make one input step, for every axis."""

    sizes: tuple[int, ...]
    scales: tuple[float, ...]


@translate("Upsample")
def upsample(c: Context) -> Operand:
    """The ancestor of Resize: asymmetric coordinates."""
    dims = c.static_shape(0)
    scales = c.reals("scales") if c.version < 9 else tuple(float(s) for s in c.constant(1, "the scales").reshape(-1))
    target = _by_scales(dims, scales)
    mode = {"bilinear": "linear"}.get(c.text("mode", "nearest"), c.text("mode", "nearest"))
    return c.emit(_plan(c, dims, target, "asymmetric", mode, "floor"), c.value(0))


@translate("Resize", since=11)
def resize(c: Context) -> Operand:
    """Sizes or scales must be known; regions of interest and anti-aliasing are data of the op."""
    dims = c.static_shape(0)
    rank = len(dims)
    axes = [normalize_axis(a, rank) for a in c.ints("axes", range(rank))]
    target = _target(c, dims, axes)
    convention = c.text("coordinate_transformation_mode", "half_pixel")
    mode = c.text("mode", "nearest")
    rounding = c.text("nearest_mode", "round_prefer_floor")
    return c.emit(_plan(c, dims, target, convention, mode, rounding, _roi(c, axes, rank)), c.value(0))


@translate("Resize", since=10)
def resize_10(c: Context) -> Operand:
    """Asymmetric coordinates, rounded down."""
    dims = c.static_shape(0)
    target = _by_scales(dims, [float(s) for s in c.constant(1, "the scales").reshape(-1)])
    return c.emit(_plan(c, dims, target, "asymmetric", c.text("mode", "nearest"), "floor"), c.value(0))


def _by_scales(dims: Sequence[int], scales: Sequence[float]) -> _Target:
    # The scales are float32; products that are whole numbers must not fall below them.
    sizes = tuple(int(np.floor(np.float32(d) * np.float32(s))) for d, s in zip(dims, scales, strict=True))
    return _Target(sizes, tuple(scales))


def _target(c: Context, dims: tuple[int, ...], axes: list[int]) -> _Target:
    scales = c.constant(2, "the scales").reshape(-1) if c.has(2) else np.empty(0, np.float32)
    if scales.size:
        full = np.ones(len(dims), np.float32)
        full[axes] = scales
        return _by_scales(dims, [float(s) for s in full])
    sizes = list(dims)
    wanted = c.integers(3)
    if len(wanted) != len(axes):
        raise ModelError(f"{len(wanted)} sizes for {len(axes)} axes", where=c.origin)
    policy = c.text("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        for size, axis in zip(wanted, axes, strict=True):
            sizes[axis] = size
        return _Target(tuple(sizes), tuple(n / d if d else 1.0 for n, d in zip(sizes, dims, strict=True)))
    ratios = [w / dims[a] for w, a in zip(wanted, axes, strict=True)]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    for axis in axes:
        sizes[axis] = int(np.floor(scale * dims[axis] + 0.5))  # the specification rounds half up
    return _Target(tuple(sizes), tuple(scale if a in axes else 1.0 for a in range(len(dims))))


def _roi(c: Context, axes: list[int], rank: int) -> tuple[tuple[float, float], ...] | None:
    if c.text("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize":
        return None
    given = c.constant(1, "the region of interest").reshape(-1)
    region = [(0.0, 1.0)] * rank
    for i, axis in enumerate(axes):
        region[axis] = (float(given[i]), float(given[i + len(axes)]))
    return tuple(region)


def _plan(
    c: Context,
    dims: tuple[int, ...],
    target: _Target,
    convention: str,
    mode: str,
    rounding: str,
    roi: tuple[tuple[float, float], ...] | None = None,
) -> Resize:
    maps = [
        _coordinates(c, convention, length, size, scale, roi[axis] if roi else (0.0, 1.0))
        for axis, (length, size, scale) in enumerate(zip(dims, target.sizes, target.scales, strict=True))
    ]
    if mode not in ("nearest", "linear", "cubic"):
        raise ModelError(f"interpolation mode {mode!r}", where=c.origin, expected="nearest, linear or cubic")
    return Resize(
        target.sizes,
        tuple(scale for scale, _ in maps),
        tuple(offset for _, offset in maps),
        mode,
        rounding,
        c.real("cubic_coeff_a", -0.75),
        antialias=bool(c.integer("antialias", 0)),
        exclude_outside=bool(c.integer("exclude_outside", 0)),
        extrapolation=c.real("extrapolation_value", 0.0) if convention == "tf_crop_and_resize" else None,
    )


def _coordinates(
    c: Context, convention: str, length: int, size: int, scale: float, roi: tuple[float, float]
) -> tuple[float, float]:
    """(step, offset): output index i reads input coordinate ``step * i + offset``."""
    if scale == 1.0 and size == length and convention != "tf_crop_and_resize":
        return 1.0, 0.0
    match convention:
        case "asymmetric":
            return 1.0 / scale, 0.0
        case "half_pixel":
            return 1.0 / scale, 0.5 / scale - 0.5
        case "pytorch_half_pixel":
            return (1.0 / scale, 0.5 / scale - 0.5) if size > 1 else (1.0, 0.0)
        case "half_pixel_symmetric":
            # The resized image stays centered where its size was rounded down.
            exact = scale * length
            return 1.0 / scale, 0.5 / scale - 0.5 + length / 2 * (1.0 - size / exact)
        case "align_corners":
            # The specification measures the resized image before its size is rounded down.
            return ((length - 1) / (scale * length - 1), 0.0) if size > 1 else (0.0, 0.0)
        case "tf_crop_and_resize":
            start, end = roi
            if size == 1:
                return 0.0, 0.5 * (start + end) * (length - 1)
            return (end - start) * (length - 1) / (size - 1), start * (length - 1)
        case _:
            raise Refusal(f"coordinate_transformation_mode {convention}")
