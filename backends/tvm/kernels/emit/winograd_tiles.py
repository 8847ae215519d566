"""What kernels of Winograd's filtering do around the products: transforms of patches and of results. Imports tvm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tvm import tirx

from ...builder import Builder, Expr, Index, cast, const, i64, reinterpret, vector
from ...isa import Isa, vector_ops
from ..base import StridedView
from ..winograd import WinogradSpec, plan_winograd
from ..winograd_tiles import Band, Extent, Matrix, Region, power_of_two
from .epilogue import EpilogueEmitter


class TilesEmitter(ABC):
    """A kernel of Winograd's filtering but for the products of patches and filters."""

    def __init__(self, spec: WinogradSpec, isa: Isa, symbol: str) -> None:
        self.spec, self.conv, self.transform = spec, spec.conv, spec.transform
        self.plan, self.isa = plan_winograd(spec, isa), isa
        self.b, self.ops = Builder(symbol), vector_ops(isa)
        dtypes = {arg.name: arg.dtype_on(isa) for arg in spec.args}
        if spec.filters == "stored":
            dtypes["weight"] = "int16"
        self.buffers = {name: self.b.arg(name, dtype) for name, dtype in dtypes.items()}
        self.epilogue = EpilogueEmitter(self.b, self.ops, self.conv.epilogue, self.buffers)

    def emit(self) -> Any:
        """The PrimFunc."""
        b, plan = self.b, self.plan
        with b.tasks() as task:
            group, chunk = b.split(task, plan.chunks)
            first = b.let(group * plan.group_tiles)
            # The patches of a group stay for all chunks of channels that a thread takes.
            with b.when(tirx.Or(chunk.equal(i64(0)), task.equal(cast("int64", b.begin)))):
                for region in self.spec.regions:
                    with self._tiles(first, region) as tile:
                        self._patch(region, tile, b.let(first + tile - region.first))
            low = b.let(chunk * plan.chunk_blocks)
            high = b.let(tirx.Min(low + plan.chunk_blocks, i64(plan.blocks)))
            with b.loop(low, high, "block") as block:
                self.multiply(block, first)
                for region in self.spec.regions:
                    with self._tiles(first, region) as tile:
                        self._results(region, tile, b.let(first + tile - region.first), block)
        return b.finish(self.spec.noalias)

    @abstractmethod
    def multiply(self, block: Expr, first: Expr) -> None:
        """Products of a block of channels and the tiles of the group that begins with tile `first`."""

    def reach(self, first: Expr, band: Band, units: int) -> tuple[Expr, Expr]:
        """The first tile of a band in the group, and how many register tiles of `units` tiles reach its last one."""
        low, high = self._within(first, band)
        return low, self.b.let(tirx.truncdiv(high - low + (units - 1), i64(units)))

    def _within(self, first: Expr, tiles: Region | Band) -> tuple[Expr, Expr]:
        """Where those of `tiles` begin and end, in the group of tile `first`, that belong to it: maybe none."""
        b = self.b
        low = b.let(tirx.Max(i64(tiles.first) - first, i64(0))) if tiles.first else i64(0)
        high = b.let(tirx.Min(i64(tiles.end) - first, i64(self.plan.group_tiles)))
        return low, high if tiles.end == self.spec.tiles and not tiles.first else b.let(tirx.Max(low, high))

    def _tiles(self, first: Expr, region: Region) -> AbstractContextManager[Expr]:
        """A loop over the tiles of a region that belong to the group."""
        return self.b.loop(*self._within(first, region), "tile")

    def _place(self, region: Region, number: Expr) -> tuple[Expr, Expr, Expr]:
        """Image, row and column of a tile of results, which is `number` of its region."""
        image, rest = self.b.split(number, region.rows.count * region.columns.count)
        return (image, *self.b.split(rest, region.columns.count))

    # Patches ----------------------------------------------------------------------------------------------------------

    def _patch(self, region: Region, tile: Expr, number: Expr) -> None:
        """Transform a patch, all channels of it: tile `number` of a region, which is `tile` of the task."""
        b, conv, plan = self.b, self.conv, self.plan
        image, row, column = self._place(region, number)
        lanes = 2 * self.ops.lanes
        start = b.let(image * conv.input.batch + conv.input.offset)
        rows = self._lines(region.rows, row, conv.out_h, conv.input.row)
        columns = self._lines(region.columns, column, conv.out_w, conv.input.pixel)
        firsts = [b.let(start + place) for place in rows]
        target = b.let(tile * plan.depth)
        with b.loop(0, plan.depth // lanes, "channels") as vector_number:
            channel = b.let(vector_number * lanes)
            done = [
                self.transformed(
                    region.rows.transform.input, [self._words(first + (place + channel), lanes) for first in firsts]
                )
                for place in columns
            ]
            for i in range(len(rows)):
                points = self.transformed(region.columns.transform.input, [column[i] for column in done])
                for j, value in enumerate(points):
                    place = target + channel + (i * self.transform.patch + j) * plan.patch_step
                    b.store(self.buffers["patches"], place, value, lanes)

    def _lines(self, extent: Extent, tile: Expr, length: int, stride: int) -> list[Expr]:
        """Where the rows or columns of a patch are; what lies behind the last one changes no result that is kept."""
        size, places = extent.transform.size, range(extent.start, extent.start + extent.transform.patch)
        lines = [tile * size + place for place in places]
        if extent.start + extent.count * size > length:
            lines = [tirx.Min(line, i64(length + 1)) for line in lines]
        return [self.b.let(line * stride) for line in lines]

    def _words(self, place: Index, lanes: int) -> Expr:
        return self.b.let(cast(vector("int16", lanes), self.buffers["x"].load(place, lanes)))

    def tap(self, place: Index) -> Expr:
        """A vector of bytes of filters, as words."""
        lanes = 2 * self.ops.lanes
        return self.b.let(cast(vector("int16", lanes), self.buffers["weight"].load(place, lanes)))

    # Results ----------------------------------------------------------------------------------------------------------

    def _results(self, region: Region, tile: Expr, number: Expr, block: Expr) -> None:
        """The results of one tile and channel block."""
        b, conv, plan, lanes = self.b, self.conv, self.plan, self.ops.lanes
        vectors = self.ops.vectors_of(conv.out_channels)
        place = self._place(region, number)
        first = b.let(block * plan.vectors)
        last = b.let(tirx.Min(first + plan.vectors, i64(vectors)))
        with b.loop(first, last, "vector") as at:
            channel = b.let(at * lanes)
            values = self._convolved(region, b.let(tile * plan.width + (at - first) * lanes), channel)
            rest = conv.out_channels - (vectors - 1) * lanes
            if rest != lanes and vectors > 1:
                with b.when(at < vectors - 1):
                    self._store(region, values, place, channel, lanes)
            with b.when(at >= (0 if rest == lanes else vectors - 1)):
                self._store(region, values, place, channel, rest)

    def _convolved(self, region: Region, at: Expr, channel: Expr) -> list[list[Expr]]:
        """The accumulators of a tile, row by row, bias included."""
        b, step, products, lanes = self.b, self.plan.product_step, self.buffers["products"], self.ops.lanes
        rows, columns = region.rows.transform, region.columns.transform
        done = [
            self._combined(
                rows.output,
                [b.let(products.load(at + (i * self.transform.patch + j) * step, lanes)) for i in range(rows.patch)],
            )
            for j in range(columns.patch)
        ]
        bias = b.let(self.buffers["bias"].load(channel, lanes))
        lines = [self._combined(columns.output, [column[i] for column in done]) for i in range(rows.size)]
        return [[b.let(self._divided(value, region.total) + bias) for value in line] for line in lines]

    def _divided(self, value: Expr, total: int) -> Expr:
        """The quotient of a multiple of `total`: what is odd in it is divided by modulo 2**32."""
        shift = power_of_two(total)
        if total >> shift != 1:
            inverse = pow(total >> shift, -1, 2**32)
            value = value * self.ops.const_i32(inverse - (inverse >> 31 << 32))
        return tirx.shift_right(self._fence(value), self.ops.const_i32(shift))

    def _fence(self, value: Expr) -> Expr:
        """Keep LLVM from concluding that sums of int32, which it may think never wrap around, are small."""
        return reinterpret(self.ops.i32, self.ops.fence(reinterpret(self.ops.f32, value)))

    def _store(
        self, region: Region, values: list[list[Expr]], place: tuple[Expr, Expr, Expr], channel: Expr, count: int
    ) -> None:
        """Finish the pixels of a tile that lie within the image."""
        b, conv = self.b, self.conv
        steps = conv.epilogue.residual or StridedView(0, 0, 0)
        scale = self.epilogue.scale(channel, count)
        out, residual = (self._pixel(region, view, place, channel) for view in (conv.output, steps))
        width, height = region.columns.transform.size, region.rows.transform.size
        tail = region.columns.start + region.columns.count * width - conv.out_w
        _, row, column = place

        def line(i: int, pixels: int) -> None:
            places = [
                (out + (i * conv.output.row + j * conv.output.pixel), residual + (i * steps.row + j * steps.pixel))
                for j in range(pixels)
            ]
            self.epilogue.store_pixels([[value] for value in values[i][:pixels]], scale, places, count)

        for i in range(height):
            last = region.rows.start + (region.rows.count - 1) * height + i
            with nullcontext() if last < conv.out_h else b.when(row < region.rows.count - 1):
                if tail <= 0:
                    line(i, width)
                    continue
                if region.columns.count > 1:
                    with b.when(column < region.columns.count - 1):
                        line(i, width)
                with b.when(column.equal(i64(region.columns.count - 1))):
                    line(i, width - tail)

    def _pixel(self, region: Region, view: StridedView, place: tuple[Expr, Expr, Expr], channel: Expr) -> Expr:
        image, row, column = place
        rows, columns = region.rows, region.columns
        top, left = row * rows.transform.size + rows.start, column * columns.transform.size + columns.start
        return self.b.let(image * view.batch + top * view.row + left * view.pixel + channel + view.offset)

    # Transforms -------------------------------------------------------------------------------------------------------

    def transformed(self, matrix: Matrix, values: Sequence[Expr]) -> list[Expr]:
        """`matrix` times `values`."""
        return [found for pair in range(0, len(matrix), 2) for found in self.pair(matrix, pair, values)]

    def pair(self, matrix: Matrix, number: int, values: Sequence[Expr]) -> list[Expr]:
        """Rows `number` and the next of `matrix` times `values`: their sums of equal and of opposite elements."""
        b = self.b
        rows = matrix[number : number + 2]
        if number == 0:
            return [b.let(self._sum(list(zip(row, values, strict=True)))) for row in rows]
        factors = list(zip(*rows, values, strict=True))
        even = b.let(self._sum([(factor, value) for factor, other, value in factors if factor == other]))
        odd = b.let(self._sum([(factor, value) for factor, other, value in factors if factor == -other]))
        return [b.let(even + odd), b.let(even - odd)]

    def _combined(self, matrix: Matrix, values: Sequence[Expr]) -> list[Expr]:
        """The transform of results."""
        b = self.b
        pairs = {
            at: (b.let(values[at] + values[at + 1]), b.let(values[at] - values[at + 1]))
            for at in range(2, len(values), 2)
        }
        found: list[Expr] = []
        for row in matrix:
            terms = list(zip(row[:2], values[:2], strict=True))
            for at, (plus, minus) in pairs.items():
                terms.append((row[at], plus if row[at] == row[at + 1] else minus))
            found.append(b.let(self._sum(terms)))
        return found

    def _sum(self, terms: Sequence[tuple[int, Expr]]) -> Expr:
        """The sum of products with small constants."""
        ordered = sorted((term for term in terms if term[0]), key=lambda term: term[0] < 0)
        total = None
        for factor, value in ordered:
            product = self.times(abs(factor), value)
            if total is None:
                total = product if factor > 0 else -product
            else:
                total = total + product if factor > 0 else total - product
        return total

    def times(self, factor: int, value: Expr) -> Expr:
        """A product with 1, 3 or 5 times a power of two, by shifts: they are faster than multiplications."""
        dtype = str(value.ty.dtype)
        shift = (factor & -factor).bit_length() - 1
        odd = factor >> shift
        if odd > 1:
            value = self.b.let(value + tirx.shift_left(value, const({3: 1, 5: 2}[odd], dtype)))
        return tirx.shift_left(value, const(shift, dtype)) if shift else value
