"""Emitter of `MatmulSpec`: pack the columns, sum columns and rows, then the register tiles of `dots`. Imports tvm."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...builder import Builder, Expr, const, i64, intrin
from ...isa import Isa, vector_ops
from ..base import StridedView, emitter
from ..matmul import GROUP, MatmulSpec, plan_matmul, scratch_sizes
from ..tiling import amx_rows
from .columns import ColumnPacker, Columns, Packed
from .dots import Operands, dots_for, weight_dtype
from .epilogue import EpilogueEmitter


@emitter(MatmulSpec)
def emit(spec: MatmulSpec, isa: Isa, symbol: str) -> Any:
    """The kernel of a product of two activations on one ISA level."""
    return _MatmulEmitter(spec, isa, symbol).emit()


class _MatmulEmitter:
    def __init__(self, spec: MatmulSpec, isa: Isa, symbol: str) -> None:
        self.spec, self.isa, self.plan = spec, isa, plan_matmul(spec, isa)
        self.b, self.ops = Builder(symbol), vector_ops(isa)
        dtypes = {arg.name: arg.dtype_on(isa) for arg in spec.args} | {"packed": weight_dtype(self.plan.dot)}
        self.buffers = {name: self.b.arg(name, dtype) for name, dtype in dtypes.items()}
        self.epilogue = EpilogueEmitter(self.b, self.ops, spec.epilogue, self.buffers)
        self.width = self.plan.tile.vectors * isa.lanes
        self.row_terms = self.plan.chunk_blocks * self.width
        step = spec.a.pixel
        buffers, runs, vectors = self.buffers, self.plan.runs, self.plan.tile.vectors
        tiles = Operands(buffers["a"], buffers["packed"], buffers["terms"], runs, step, step, vectors)
        sums = Operands(buffers["ones"], buffers["packed"], None, runs, step, step, vectors)
        dot, rows = self.plan.dot, amx_rows(self.plan.tile.units, 1)
        self.dots = dots_for(dot, self.b, self.ops, tiles, rows=rows, full_range=True)
        self.sums = dots_for(dot, self.b, self.ops, sums, rows=rows, full_range=True)
        columns = Columns(buffers["b"], spec.depth, spec.columns, spec.b.pixel, spec.transposed)
        self.packer = ColumnPacker(self.b, isa, columns, Packed(buffers["packed"], dot, runs, self.width))

    def emit(self) -> Any:
        b, plan = self.b, self.plan
        self.dots.begin()
        self.sums.share(self.dots)
        self._fill_ones()
        with b.tasks() as task:
            matrix = b.let(tirx.truncdiv(task, i64(plan.chunks)))
            first = b.let((task - matrix * plan.chunks) * plan.chunk_blocks)
            last = b.let(tirx.Min(first + plan.chunk_blocks, i64(plan.blocks)))
            groups = self.width // GROUP
            self.packer.emit(self._start(self.spec.b, matrix), b.let(first * groups), b.let(last * groups))
            self._sum_columns(b.let(last - first))
            left = self._start(self.spec.a, matrix)
            self._sum_rows(left)
            self._tiles(matrix, left, first, last)
        self.dots.end()
        return b.finish(self.spec.noalias)

    def _start(self, view: StridedView, matrix: Expr) -> Expr:
        outer = self.b.let(tirx.truncdiv(matrix, i64(self.spec.inner)))
        inner = matrix - outer * self.spec.inner
        return self.b.let(view.offset + outer * view.batch + inner * view.row)

    def _fill_ones(self) -> None:
        count = scratch_sizes(self.spec, self.isa)[1] // 16
        with self.b.loop(0, count) as index:
            self.b.store(self.buffers["ones"], index * 16, const(1, f"{self.isa.act_dtype}x16"), 16)

    def _sum_columns(self, blocks: Expr) -> None:
        """The terms of the columns: K za zb - za sum_k(b)."""
        b, zero_points = self.b, self.buffers["zero_points"]
        left, both = (b.let(self.ops.splat(zero_points[at])) for at in (0, 2))
        with b.loop(0, blocks, "block") as block:
            weight = b.let(block * (self.plan.runs.padded * self.width))
            (sums,) = self.sums.accumulate(i64(0), [0], weight, i64(0))
            values = [b.let(both - left * value) for value in sums]
            self.ops.store_words(b, self.buffers["terms"], block * self.width, values, self.width)

    def _sum_rows(self, left: Expr) -> None:
        """The terms of the rows, after those of the columns: zb sum_k(a)."""
        b, ops, source, terms = self.b, self.ops, self.buffers["a"], self.buffers["terms"]
        right = b.let(self.buffers["zero_points"][1])
        step = 16
        whole, tail = divmod(self.spec.depth, step)
        with b.loop(0, self.spec.rows, "row") as row:
            start = b.let(left + row * self.spec.a.pixel)
            total = b.registers(1, ops.i32, "total")
            b.store(total, 0, ops.const_i32(0))
            with b.loop(0, whole) as k:
                for value in ops.load_bytes(b, source, start + k * step, step):
                    b.store(total, 0, total[0] + value)
            result = intrin("int32", f"llvm.vector.reduce.add.v{ops.lanes}i32", total[0])
            for at in range(tail):
                result = result + tirx.Cast("int32", source[start + whole * step + at])
            b.store(terms, row + self.row_terms, b.let(result * right))

    def _tiles(self, matrix: Expr, left: Expr, first: Expr, last: Expr) -> None:
        b, spec, units = self.b, self.spec, self.plan.tile.units
        out = self._start(spec.output, matrix)
        residual = self._start(spec.epilogue.residual, matrix) if spec.epilogue.residual else i64(0)
        whole, tail = divmod(spec.rows, units)
        with b.loop(first, last, "block") as block:
            weight = b.let((block - first) * (self.plan.runs.padded * self.width))
            term = b.let((block - first) * self.width)
            if whole:
                with b.loop(0, whole, "tile") as tile:
                    self._tile(b.let(tile * units), units, (left, out, residual), (block, weight, term))
            if tail:
                self._tile(i64(whole * units), tail, (left, out, residual), (block, weight, term))

    def _tile(self, row: Expr, units: int, places: tuple[Expr, ...], at: tuple[Expr, Expr, Expr]) -> None:
        b, spec = self.b, self.spec
        (left, out, residual), (block, weight, term) = places, at
        offsets = [unit * spec.a.pixel for unit in range(units)]
        acc = self.dots.accumulate(b.let(left + row * spec.a.pixel), offsets, weight, term)
        terms = [self.ops.splat(self.buffers["terms"][row + unit + self.row_terms]) for unit in range(units)]
        values = [[b.let(value - less) for value in pixel] for pixel, less in zip(acc, terms, strict=True)]
        column = b.let(block * self.width)
        stride = spec.epilogue.residual.pixel if spec.epilogue.residual else 0
        last = spec.columns - (self.plan.blocks - 1) * self.width

        def store(count: int) -> None:
            scale = self.epilogue.scale(column, count)
            rows = [row + unit for unit in range(units)]
            places = [(out + at * spec.output.pixel + column, residual + at * stride + column) for at in rows]
            self.epilogue.store_pixels(values, scale, places, count)

        if self.plan.blocks == 1 or last == self.width:
            store(last)
            return
        with b.when(block < self.plan.blocks - 1):
            store(self.width)
        with b.when(block == self.plan.blocks - 1):
            store(last)
