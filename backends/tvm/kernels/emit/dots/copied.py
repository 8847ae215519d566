"""Pixels that a tile copies before it multiplies them. Imports tvm."""

from __future__ import annotations

from collections.abc import Sequence

from ....builder import Buffer, Builder, Expr, Index, cast, i64, vector
from ....isa.vector import VectorOps
from ...conv_plan import COPIED
from .base import Accumulators, Dots, Operands, loop


class Copy:
    """The runs of K of up to `pixels` pixels one behind the other, in a small array of `dtype` on the stack."""

    def __init__(self, b: Builder, ops: VectorOps, operands: Operands, pixels: int, dtype: str) -> None:
        assert operands.lying is not None
        self.b, self.source, self.lying, self.pixels, self.dtype = b, operands, operands.lying, pixels, dtype
        native = (2 if dtype == "int16" else 4) * ops.lanes
        self.part = min(native, 2 * COPIED) if operands.lying.length > COPIED else COPIED
        # Whole vectors are stored: what is too much is the next run's place, and of the last run not the next pixel's.
        self.pitch = operands.runs.padded + self.part

    def begin(self) -> Buffer:
        """The array."""
        self.array = self.b.registers(self.pixels * self.pitch, self.dtype, "copy")
        return self.array

    def places(self, pixels: int) -> list[int]:
        """Where each pixel begins."""
        return [at * self.pitch for at in range(pixels)]

    def gather(self, x: Expr, pixels: Sequence[Index]) -> None:
        """Copy the pixels at offsets `pixels` from element `x`."""
        b, source, runs = self.b, self.source, self.lying
        with loop(b, runs.rows) as row, loop(b, runs.columns) as column:
            first = b.let(x + row * source.row_step + column * source.column_step)
            target = b.let((row * runs.columns + column) * runs.length)
            with loop(b, -(-runs.length // self.part)) as number:
                part = number * self.part
                for offset, place in zip(pixels, self.places(len(pixels)), strict=True):
                    loaded = source.x.load(first + part + offset, self.part)
                    value = cast(vector(self.dtype, self.part), loaded) if self.dtype != source.x.dtype else loaded
                    b.store(self.array, target + part + place, value, self.part)


class JoinedDots(Dots):
    """Bytes that `gather` copied run by run, so that `inner` multiplies all of K as one run."""

    def __init__(self, inner: Dots, pixels: int) -> None:
        super().__init__(inner.b, inner.ops, inner.operands)
        self.inner = inner
        self.copy = Copy(inner.b, inner.ops, inner.operands, pixels, inner.operands.x.dtype)

    def aim(self, weight: Expr) -> None:
        self.inner.aim(weight)

    def begin(self) -> None:
        self.inner.read(self.copy.begin())
        self.inner.begin()

    def gather(self, x: Expr, pixels: Sequence[Index]) -> None:
        self.copy.gather(x, pixels)
        self.inner.gather(i64(0), self.copy.places(len(pixels)))

    def accumulate(self, x: Expr, pixels: Sequence[int], weight: Expr, channel: Expr) -> Accumulators:
        return self.inner.accumulate(i64(0), self.copy.places(len(pixels)), weight, channel)
