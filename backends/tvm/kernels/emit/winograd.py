"""Emitter of `WinogradSpec`: transformed patches, products point by point, results. Imports tvm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx

from ...builder import Builder, Expr, Index, cast, const, i64, reinterpret, vector
from ...isa import Isa, vector_ops
from ..base import StridedView, emitter
from ..tiling import Runs
from ..winograd import Matrix, WinogradSpec, plan_winograd
from .dots import Operands, word_dots
from .epilogue import EpilogueEmitter


@emitter(WinogradSpec)
def emit(spec: WinogradSpec, isa: Isa, symbol: str) -> Any:
    """The kernel of a convolution by Winograd's filtering on one ISA level."""
    return _WinogradEmitter(spec, isa, symbol).emit()


class _WinogradEmitter:
    def __init__(self, spec: WinogradSpec, isa: Isa, symbol: str) -> None:
        self.spec, self.conv, self.transform = spec, spec.conv, spec.transform
        self.plan, self.isa = plan_winograd(spec, isa), isa
        self.b, self.ops = Builder(symbol), vector_ops(isa)
        dtypes = {arg.name: arg.dtype_on(isa) for arg in spec.args} | {"weight": "int16"}
        self.buffers = {name: self.b.arg(name, dtype) for name, dtype in dtypes.items()}
        self.epilogue = EpilogueEmitter(self.b, self.ops, self.conv.epilogue, self.buffers)

    def emit(self) -> Any:
        """The PrimFunc."""
        b, plan = self.b, self.plan
        with b.tasks() as task:
            chunk, group = b.split(task, plan.groups)
            first = b.let(group * plan.group_tiles)
            count = b.let(tirx.Min(i64(plan.group_tiles), i64(self.spec.tiles) - first))
            with b.loop(0, count, "tile") as tile:
                self._patch(tile, b.let(first + tile))
            low = b.let(chunk * plan.chunk_blocks)
            high = b.let(tirx.Min(low + plan.chunk_blocks, i64(plan.blocks)))
            with b.loop(low, high, "block") as block:
                self._products(block, count)
                with b.loop(0, count, "tile") as tile:
                    self._results(tile, b.let(first + tile), block)
        return b.finish(self.spec.noalias)

    def _place(self, number: Expr) -> tuple[Expr, Expr, Expr]:
        """Image, row and column of a tile of results."""
        image, rest = self.b.split(number, self.spec.rows * self.spec.columns)
        return (image, *self.b.split(rest, self.spec.columns))

    # Patches ----------------------------------------------------------------------------------------------------------

    def _patch(self, tile: Expr, number: Expr) -> None:
        """Transform the patch of tile `number` of all, which is `tile` of the task, all channels of it."""
        b, conv, plan, size, patch = self.b, self.conv, self.plan, self.spec.size, self.transform.patch
        image, row, column = self._place(number)
        lanes = 2 * self.ops.lanes
        start = b.let(image * conv.input.batch + conv.input.offset)
        rows = [self._line(row * size + at, conv.out_h, conv.input.row) for at in range(patch)]
        columns = [self._line(column * size + at, conv.out_w, conv.input.pixel) for at in range(patch)]
        firsts = [b.let(start + place) for place in rows]
        target = b.let(tile * plan.depth)
        with b.loop(0, plan.depth // lanes, "channels") as vector_number:
            channel = b.let(vector_number * lanes)
            done = [
                self._transformed(
                    self.transform.input,
                    [self._words(firsts[i] + (columns[j] + channel), lanes) for i in range(patch)],
                )
                for j in range(patch)
            ]
            for i in range(patch):
                points = self._transformed(self.transform.input, [done[j][i] for j in range(patch)])
                for j, value in enumerate(points):
                    place = target + channel + (i * patch + j) * plan.group_tiles * plan.depth
                    b.store(self.buffers["patches"], place, value, lanes)

    def _line(self, number: Expr, count: int, stride: int) -> Expr:
        """The distance of an input row or column; what lies behind the last one changes no result that is kept."""
        inside = number if count % self.spec.size == 0 else tirx.Min(number, i64(count + 1))
        return self.b.let(inside * stride)

    def _words(self, place: Index, lanes: int) -> Expr:
        return self.b.let(cast(vector("int16", lanes), self.buffers["x"].load(place, lanes)))

    # Products ---------------------------------------------------------------------------------------------------------

    def _products(self, block: Expr, count: Expr) -> None:
        """Multiply the patches of the task and the filters of a block, point by point."""
        b, plan, buffers = self.b, self.plan, self.buffers
        runs = Runs(1, 1, plan.depth, plan.depth, plan.dot.step)
        operands = Operands(buffers["patches"], buffers["weight"], None, runs, 0, 0, plan.tile.vectors)
        dots = word_dots(plan.dot, b, self.ops, operands)
        units, lanes = plan.tile.units, self.ops.lanes
        used = b.let(tirx.floordiv(count + (units - 1), i64(units)))
        with b.loop(0, plan.points, "point") as point:
            weight = b.let((block * plan.points + point) * (plan.depth * plan.width))
            with b.loop(0, used, "unit") as unit:
                first = b.let(point * plan.group_tiles + unit * units)
                offsets = [at * plan.depth for at in range(units)]
                sums = dots.accumulate(b.let(first * plan.depth), offsets, weight, i64(0))
                for at, row in enumerate(sums):
                    for v, value in enumerate(row):
                        b.store(buffers["products"], (first + at) * plan.width + v * lanes, value, lanes)

    # Results ----------------------------------------------------------------------------------------------------------

    def _results(self, tile: Expr, number: Expr, block: Expr) -> None:
        """The results of one tile and channel block."""
        b, conv, plan, lanes = self.b, self.conv, self.plan, self.ops.lanes
        vectors = self.ops.vectors_of(conv.out_channels)
        image, row, column = self._place(number)
        first = b.let(block * plan.tile.vectors)
        last = b.let(tirx.Min(first + plan.tile.vectors, i64(vectors)))
        with b.loop(first, last, "vector") as place:
            channel = b.let(place * lanes)
            at = b.let(tile * plan.width + (place - first) * lanes)
            values = self._convolved(at, channel)
            rest = conv.out_channels - (vectors - 1) * lanes
            if rest != lanes and vectors > 1:
                with b.when(place < vectors - 1):
                    self._store(values, image, row, column, channel, lanes)
            with b.when(place >= (0 if rest == lanes else vectors - 1)):
                self._store(values, image, row, column, channel, rest)

    def _convolved(self, at: Expr, channel: Expr) -> list[list[Expr]]:
        """The accumulators of a tile, row by row, bias included."""
        b, plan, patch, transform = self.b, self.plan, self.transform.patch, self.transform
        step = plan.group_tiles * plan.width
        done = [
            self._combined(
                [
                    b.let(self.buffers["products"].load(at + (i * patch + j) * step, self.ops.lanes))
                    for i in range(patch)
                ]
            )
            for j in range(patch)
        ]
        bias = b.let(self.buffers["bias"].load(channel, self.ops.lanes))
        rows = [self._combined([done[j][i] for j in range(patch)]) for i in range(transform.size)]
        return [[b.let(self._divided(value) + bias) for value in row] for row in rows]

    def _divided(self, value: Expr) -> Expr:
        """What `total` times the accumulator is the multiple of."""
        if self.transform.inverse != 1:
            value = value * self.ops.const_i32(self.transform.inverse)
        return tirx.shift_right(self._fence(value), self.ops.const_i32(self.transform.shift))

    def _fence(self, value: Expr) -> Expr:
        """Keep LLVM from concluding that sums of int32, which it may think never wrap around, are small."""
        return reinterpret(self.ops.i32, self.ops.fence(reinterpret(self.ops.f32, value)))

    def _store(self, values: list[list[Expr]], image: Expr, row: Expr, column: Expr, channel: Expr, count: int) -> None:
        """Finish the pixels of a tile that lie within the image."""
        b, conv, size = self.b, self.conv, self.spec.size
        scale = self.epilogue.scale(channel, count)
        out = self._pixel(conv.output, image, row, column, channel)
        residual = self._pixel(conv.epilogue.residual or StridedView(0, 0, 0), image, row, column, channel)
        steps = conv.epilogue.residual or StridedView(0, 0, 0)

        def line(i: int) -> None:
            places = [
                (out + (i * conv.output.row + j * conv.output.pixel), residual + (i * steps.row + j * steps.pixel))
                for j in range(size)
            ]
            whole, tail = divmod(conv.out_w, size)
            if tail == 0 or whole:
                with b.when(column < whole):
                    self.epilogue.store_pixels([[v] for v in values[i]], scale, places, count)
            if tail:
                with b.when(column == whole):
                    self.epilogue.store_pixels([[v] for v in values[i][:tail]], scale, places[:tail], count)

        for i in range(size):
            if i == 0 or conv.out_h % size == 0:
                line(i)
            else:
                with b.when(row * size + i < conv.out_h):
                    line(i)

    def _pixel(self, view: StridedView, image: Expr, row: Expr, column: Expr, channel: Expr) -> Expr:
        size = self.spec.size
        place = image * view.batch + row * (size * view.row) + column * (size * view.pixel)
        return self.b.let(place + channel + view.offset)

    # Transforms -------------------------------------------------------------------------------------------------------

    def _transformed(self, matrix: Matrix, values: Sequence[Expr]) -> list[Expr]:
        """`matrix` times `values`; of rows 1 and 2, and 3 and 4, each is the other with every odd element negated."""
        b = self.b
        found: list[Expr] = []
        for number, row in enumerate(matrix):
            if number % 2 == 1 and number + 1 < len(matrix) - 1:
                factors = list(zip(row, matrix[number + 1], values, strict=True))
                even = b.let(self._sum([(factor, value) for factor, other, value in factors if factor == other]))
                odd = b.let(self._sum([(factor, value) for factor, other, value in factors if factor == -other]))
                found += [b.let(even + odd), b.let(even - odd)]
            elif len(found) == number:
                found.append(b.let(self._sum(list(zip(row, values, strict=True)))))
        return found

    def _combined(self, values: Sequence[Expr]) -> list[Expr]:
        """The transform of results, whose columns 1 and 2, and 3 and 4, are equal or opposite."""
        b, matrix = self.b, self.transform.output
        pairs = {
            at: (b.let(values[at] + values[at + 1]), b.let(values[at] - values[at + 1]))
            for at in range(1, len(values) - 2, 2)
        }
        found: list[Expr] = []
        for row in matrix:
            terms = [(row[0], values[0]), (row[-1], values[-1])]
            for at, (plus, minus) in pairs.items():
                terms.append((row[at], plus if row[at] == row[at + 1] else minus))
            found.append(b.let(self._sum(terms)))
        return found

    def _sum(self, terms: Sequence[tuple[int, Expr]]) -> Expr:
        """The sum of products with small constants."""
        ordered = sorted((term for term in terms if term[0]), key=lambda term: term[0] < 0)
        total = None
        for factor, value in ordered:
            product = self._times(abs(factor), value)
            if total is None:
                total = product if factor > 0 else -product
            else:
                total = total + product if factor > 0 else total - product
        return total

    def _times(self, factor: int, value: Expr) -> Expr:
        """A product with 1, 3 or 5 times a power of two, by shifts: they are faster than multiplications."""
        dtype = str(value.ty.dtype)
        shift = (factor & -factor).bit_length() - 1
        odd = factor >> shift
        if odd > 1:
            value = self.b.let(value + tirx.shift_left(value, const({3: 1, 5: 2}[odd], dtype)))
        return tirx.shift_left(value, const(shift, dtype)) if shift else value
