"""Emitter of `WinogradSpec`: the products of transformed patches and filters. Imports tvm."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from ...builder import Buffer, Expr, Index, const, i64, intrin, reinterpret, vector
from ...isa import Isa
from ..base import CACHE_LINE, emitter
from ..tiling import Runs
from ..winograd import Filters, WinogradSpec
from ..winograd_tiles import Band
from .dots import Operands, add_pairs, spread_pair, word_dots
from .winograd_tiles import TilesEmitter

#: How many bytes of filters are asked for before they are staged.
AHEAD = 4096


@emitter(WinogradSpec)
def emit(spec: WinogradSpec, isa: Isa, symbol: str) -> Any:
    """The kernel of a convolution by Winograd's filtering on one ISA level."""
    emitters: dict[Filters, Callable[[WinogradSpec, Isa, str], TilesEmitter]] = {
        "stored": _StoredEmitter,
        "staged": _StagedEmitter,
        "fused": _FusedEmitter,
    }
    return emitters[spec.filters](spec, isa, symbol).emit()


class _PointwiseEmitter(TilesEmitter):
    """Transformed filters lie in memory: a register tile multiplies at one point."""

    def multiply(self, block: Expr, first: Expr) -> None:
        bands = zip(self.spec.bands, self.plan.units, strict=True)
        for rows, banded in itertools.groupby(bands, key=lambda item: item[0].rows):
            filters, start = self._filters(block, rows)
            for band, units in banded:
                self._products(band, units, filters, start, first)

    @abstractmethod
    def _filters(self, block: Expr, rows: range) -> tuple[Buffer, Expr]:
        """Where the filters of a block for the points of `rows` are."""

    def _products(self, band: Band, units: int, filters: Buffer, start: Expr, first: Expr) -> None:
        """Multiply patches of the task and filters at the points of a band, whose rows begin at element `start`."""
        b, plan, buffers, patch = self.b, self.plan, self.buffers, self.transform.patch
        runs = Runs(1, 1, plan.depth, plan.depth, plan.dot.step)
        operands = Operands(buffers["patches"], filters, None, runs, 0, 0, plan.vectors)
        dots = word_dots(plan.dot, b, self.ops, operands)
        lanes = self.ops.lanes
        low, count = self.reach(first, band, units)
        with b.loop(0, band.points, "point") as point:
            row, column = b.split(point, len(band.columns))
            number = b.let(row * patch + column + band.columns.start)
            weight = b.let(start + number * plan.filter_step)
            number = b.let(number + band.rows.start * patch)
            with b.loop(0, count, "unit") as unit:
                tile = b.let(low + unit * units)
                offsets = [at * plan.depth for at in range(units)]
                sums = dots.accumulate(b.let(number * plan.patch_step + tile * plan.depth), offsets, weight, i64(0))
                target = b.let(number * plan.product_step + tile * plan.width)
                for at, values in enumerate(sums):
                    for v, value in enumerate(values):
                        b.store(buffers["products"], target + (at * plan.width + v * lanes), value, lanes)


class _StoredEmitter(_PointwiseEmitter):
    def _filters(self, block: Expr, rows: range) -> tuple[Buffer, Expr]:
        plan = self.plan
        start = self.b.let((block * plan.points + rows.start * self.transform.patch) * plan.filter_step)
        return self.buffers["weight"], start


class _StagedEmitter(_PointwiseEmitter):
    def _filters(self, block: Expr, rows: range) -> tuple[Buffer, Expr]:
        b, plan, patch, matrix = self.b, self.plan, self.transform.patch, self.transform.filter
        lanes, count = 2 * self.ops.lanes, plan.depth * plan.width
        start = b.let(block * (9 * count))
        with b.loop(0, count // lanes, "filters") as at:
            taps, target = b.let(start + at * (9 * lanes)), b.let(at * lanes)
            if rows.start == 0:
                self._fetch(taps, 9 * lanes)
            columns = [
                self.pair(matrix, rows.start, [self.tap(taps + (i * 3 + j) * lanes) for i in range(3)])
                for j in range(3)
            ]
            for i in range(2):
                for j, value in enumerate(self.transformed(matrix, [column[i] for column in columns])):
                    b.store(self.buffers["filters"], target + (i * patch + j) * plan.filter_step, value, lanes)
        return self.buffers["filters"], i64(0)

    def _fetch(self, taps: Expr, count: int) -> None:
        """Ask for `count` bytes of filters, some way behind element `taps`."""
        for line in range(0, count, CACHE_LINE):
            self.b.prefetch(self.buffers["weight"], taps + AHEAD + line)


class _FusedEmitter(TilesEmitter):
    """A register tile multiplies some tiles at a row of points, by filters that it transforms in each step of K.

    Where words are multiplied by a part of the vector units, the others transform filters meanwhile.
    """

    def multiply(self, block: Expr, first: Expr) -> None:
        start = self.b.let(block * (9 * self.plan.depth * self.plan.width))
        for band, units in zip(self.spec.bands, self.plan.units, strict=True):
            low, count = self.reach(first, band, units)
            with self.b.loop(0, count, "unit") as unit:
                self._register_tile(band, self.b.let(low + unit * units), units, start)

    def _register_tile(self, band: Band, tile: Expr, units: int, start: Expr) -> None:
        """Multiply `units` tiles from `tile` on at the points of a band, by filters from byte `start` on."""
        b, plan, patch, row = self.b, self.plan, self.transform.patch, band.rows.start
        results = [(row * patch + column, at) for column in band.columns for at in range(units)]
        acc = b.registers(len(results), self.ops.i32, "acc")
        for number in range(len(results)):
            b.store(acc, number, self.ops.const_i32(0))
        steps, taps = plan.depth // plan.dot.step, 9 * plan.dot.step * plan.width
        # Each row of points asks for its share of the filters of the next block.
        share = taps // patch
        coming = b.let(start + steps * (taps + row * share))
        words = b.let(tile * plan.depth)
        with b.loop(0, b.opaque(steps), "step") as step:
            b.prefetch(self.buffers["weight"], coming + step * share)
            filters = self._row(row, len(band.columns), b.let(start + step * taps))
            pair = b.let(words + step * plan.dot.step)
            for number, (point, at) in enumerate(results):
                place = pair + (point * plan.patch_step + at * plan.depth)
                spread = spread_pair(b, self.ops, self.buffers["patches"], place)
                b.store(acc, number, add_pairs(self.ops, acc[number], spread, filters[number // units]))
        target = b.let(tile * plan.width)
        for number, (point, at) in enumerate(results):
            place = target + (point * plan.product_step + at * plan.width)
            b.store(self.buffers["products"], place, acc[number], self.ops.lanes)

    def _row(self, row: int, columns: int, taps: Expr) -> list[Expr]:
        """Filters at the first points of a row, from the bytes of both channels from element `taps` on."""
        b, lanes, matrix = self.b, 2 * self.ops.lanes, self.transform.filter
        top, middle, bottom = matrix[row]
        found = [self._pairs(taps + 2 * lanes * column, top, bottom) for column in range(3)]
        if middle:
            inner, last = taps + 6 * lanes, self.tap(taps + 8 * lanes)
            times = abs(middle)
            odd = [self._pairs(inner, times, 0), self._pairs(inner, 0, times), self.times(times, last)]
            found = [b.let(even + side if middle > 0 else even - side) for even, side in zip(found, odd, strict=True)]
        return self.transformed(matrix[:columns], found)

    def _pairs(self, place: Index, low: int, high: int) -> Expr:
        """Words: `low` times the first and `high` times the second byte of each pair, neither factor below 0."""
        lanes = 2 * self.ops.lanes
        factors = reinterpret(vector("uint8", 2 * lanes), const(low + 256 * high, vector("int16", lanes)))
        weights = self.buffers["weight"].load(place, 2 * lanes)
        return self.b.let(intrin(vector("int16", lanes), "llvm.x86.avx512.pmaddubs.w.512", factors, weights))
