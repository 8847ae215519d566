"""Emitter of `GridSpec`."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...builder import Buffer, Builder, Expr, cast, i64, intrin
from ...isa import Isa
from ..base import emitter
from ..grid import GridSpec
from .strided import emit_loops

_FAR = float(1 << 30)
"""Where coordinates end: far outside of every image, and within int64."""


@emitter(GridSpec)
def emit(spec: GridSpec, isa: Isa, symbol: str) -> Any:
    """One element at a time."""
    b = Builder(symbol)
    x, grid, out = (b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args)
    sampler = _Sampler(b, spec, x)

    def one(at: list[Expr], _: int) -> None:
        column = sampler.coordinate(grid[at[1]], spec.shape[3])
        row = sampler.coordinate(grid[at[1] + i64(spec.coordinate_step)], spec.shape[2])
        sample = sampler.linear if spec.mode == "linear" else sampler.nearest
        b.store(out, at[2], sample(at[0], row, column))

    emit_loops(b, spec.loops, 1, one)
    return b.finish(spec.noalias)


class _Sampler:
    """Samples of one image; every product and sum is rounded by itself."""

    def __init__(self, b: Builder, spec: GridSpec, x: Buffer) -> None:
        self.b, self.spec, self.x = b, spec, x

    def coordinate(self, value: Expr, size: int) -> Expr:
        """A coordinate in elements: unlike torch's, a multiple of nothing else than what its formula says."""
        b, spec = self.b, self.spec
        if spec.corners:
            place = _fenced((value + _f32(1.0)) * _f32(0.5)) * _f32(size - 1)
        else:
            place = (_fenced((value + _f32(1.0)) * _f32(size)) - _f32(1.0)) * _f32(0.5)
        place = b.let(_fenced(place))
        place = b.let(tirx.Select(place.equal(place), place, _f32(-1.0 if spec.padding == "zeros" else 0.0)))
        place = b.let(tirx.Max(tirx.Min(place, _f32(_FAR)), _f32(-_FAR)))
        if spec.padding == "reflection":
            place = self._mirrored(place, size)
        if spec.padding != "zeros":
            place = tirx.Max(tirx.Min(place, _f32(size - 1)), _f32(0.0))
        return b.let(place)

    def _mirrored(self, place: Expr, size: int) -> Expr:
        """Thrown back at the centers of the outer elements, or at their outer edges."""
        b = self.b
        low, span = (0.0, size - 1.0) if self.spec.corners else (-0.5, float(size))
        if span == 0:
            return _f32(0.0)
        distance = b.let(_rounded("fabs", b.let(place - _f32(low))))
        turns = b.let(_rounded("floor", distance / _f32(span)))
        rest = b.let(distance - _fenced(turns * _f32(span)))
        half = b.let(turns * _f32(0.5))
        even = _rounded("floor", half).equal(half)
        return b.let(tirx.Select(even, rest + _f32(low), _f32(span + low) - rest))

    def nearest(self, image: Expr, row: Expr, column: Expr) -> Expr:
        places = (self.b.let(_rounded("roundeven", value)) for value in (row, column))
        return self._element(image, *places)

    def linear(self, image: Expr, row: Expr, column: Expr) -> Expr:
        b = self.b
        top, left = (b.let(_rounded("floor", value)) for value in (row, column))
        below, right = b.let(row - top), b.let(column - left)
        total: Expr = None
        for down in (0, 1):
            for across in (0, 1):
                weight_row = below if down else _f32(1.0) - below
                weight_column = right if across else _f32(1.0) - right
                weight = b.let(weight_row * weight_column)
                value = self._element(image, b.let(top + _f32(down)), b.let(left + _f32(across)))
                term = b.let(_fenced(value * weight))
                total = term if total is None else b.let(total + term)
        return total

    def _element(self, image: Expr, row: Expr, column: Expr) -> Expr:
        """The element at whole coordinates; outside 0, or what is nearest, which then weighs nothing."""
        b, spec = self.b, self.spec
        place: Expr = image
        inside: Expr = None
        for value, size, step in zip((row, column), spec.shape[2:], spec.x_steps[2:], strict=True):
            index = b.let(cast("int64", value))
            within = tirx.And(index >= i64(0), index < i64(size))
            inside = within if inside is None else tirx.And(inside, within)
            near = tirx.Max(tirx.Min(index, i64(size - 1)), i64(0))
            place = b.let(place + near * i64(step))
        value = b.let(self.x[place])
        return b.let(tirx.Select(inside, value, _f32(0.0)))


def _f32(value: float) -> Expr:
    return tirx.const(float(value), "float32")


def _fenced(value: Expr) -> Expr:
    """A product that never fuses into a following addition."""
    return intrin("float32", "llvm.arithmetic.fence.f32", value)


def _rounded(name: str, value: Expr) -> Expr:
    return intrin("float32", f"llvm.{name}.f32", value)
