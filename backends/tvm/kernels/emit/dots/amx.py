"""tdpbusd. Imports tvm."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx

from ....builder import Builder, Expr, Index, const, i64, reinterpret
from ....isa.vector import VectorOps
from ...tiling import AMX_DEPTH, AMX_ROWS
from .base import Accumulators, Dots, Operands


class AmxDots(Dots):
    """tdpbusd on tiles of up to 16 pixels by 16 channels; results go through a small array on the stack.

    Tiles 0..3 accumulate, 4 and 5 hold pixels, 6 and 7 weights. The shapes are configured once for the kernel.
    Where the kernel's weights are few, they stay in tiles: 6, 7 and, as no second vector accumulates there, 1 and 3.
    """

    def __init__(self, b: Builder, ops: VectorOps, operands: Operands, rows: int, *, single: bool) -> None:
        super().__init__(b, ops, operands)
        self.rows = rows
        self.steps = operands.runs.count * (operands.runs.padded // operands.runs.chunk)
        few = single and operands.vectors == 1 and self.steps <= len(_RESIDENT)
        self.resident = _RESIDENT[: self.steps] if few else ()

    def begin(self) -> None:
        b, depth = self.b, self.operands.runs.chunk
        config = b.registers(64, "uint8", "tile_config")
        shapes = [(self.rows, 64)] * 4 + [(self.rows, depth)] * 2 + [(depth // 4, 64)] * 2
        for tile in self.resident:
            shapes[tile] = (depth // 4, 64)
        content = bytearray(64)
        content[0] = 1
        for tile, (rows, row_bytes) in enumerate(shapes):
            content[16 + 2 * tile], content[48 + tile] = row_bytes, rows
        for at, value in enumerate(content):
            b.store(config, at, const(value, "uint8"))
        b.call("llvm.x86.ldtilecfg", config.address(0))
        for step, tile in enumerate(self.resident):
            b.call("llvm.x86.tileloadd64", _tile(tile), self.operands.weight.address(step * depth * 16), i64(64))
        self.result = b.registers(2 * AMX_ROWS * self.width + 16, "int32", "result")
        address = reinterpret("int64", self.result.address(0))
        # Tiles are stored in half the time where their rows are cache lines, and stacks are aligned to less.
        self.first = b.let(tirx.bitwise_and(i64(0) - tirx.shift_right(address, i64(2)), i64(15)))

    def share(self, other: Dots) -> None:
        assert isinstance(other, AmxDots)
        self.result, self.first = other.result, other.first

    def end(self) -> None:
        self.b.call("llvm.x86.tilerelease")

    def accumulate(self, x: Expr, pixels: Sequence[int], weight: Expr, channel: Expr) -> Accumulators:
        self.multiply(x, pixels, weight, channel)
        self.spill(len(pixels))
        return self.sums(len(pixels))

    def multiply(
        self,
        x: Expr,
        pixels: Sequence[int],
        weight: Expr,
        channel: Expr,
        meanwhile: Sequence[Callable[[], None]] = (),
    ) -> None:
        """The part of `accumulate` that leaves sums in tile registers, for `spill`.

        `meanwhile` emits other work, whose parts go between the steps: a processor hardly starts what lies behind them
        before they are done.
        """
        self._begin_sums(len(pixels), channel)
        stride = pixels[1] - pixels[0] if self.rows > 1 and len(pixels) > 1 else AMX_DEPTH
        firsts = pixels[:: self.rows]
        if self.steps > _UNROLLED:
            self.walk(x, weight, lambda at, w, _: self._step(at, firsts, stride, w))
            for part in meanwhile:
                part()
            return
        for step, place in enumerate(self._places()):
            self._step(x + place, firsts, stride, weight + step * self.operands.runs.chunk * self.width, step)
            for part in meanwhile[step * len(meanwhile) // self.steps : (step + 1) * len(meanwhile) // self.steps]:
                part()

    def spill(self, pixels: int) -> None:
        """Copy the sums of `pixels` pixels to memory, where `sums` finds them until the next `spill`."""
        for number, tile in enumerate(self._accumulators(pixels)):
            row, v = divmod(number, self.operands.vectors)
            place = self.result.address(self.first + (row * self.rows * self.width + v * 16))
            self.b.call("llvm.x86.tilestored64", tile, place, i64(4 * self.width))

    def sums(self, pixels: int) -> Accumulators:
        """What `accumulate` returns."""
        vectors = range(self.operands.vectors)
        return [
            [self.result.load(self.first + (pixel * self.width + 16 * v), 16) for v in vectors]
            for pixel in range(pixels)
        ]

    def _begin_sums(self, pixels: int, channel: Expr) -> None:
        """Every row of an accumulator is the bias, read again and again: adding it later takes vector units' time."""
        bias = self.operands.bias
        for number, tile in enumerate(self._accumulators(pixels)):
            if bias is None:
                self.b.call("llvm.x86.tilezero", tile)
            else:
                place = bias.address(channel + number % self.operands.vectors * self.ops.lanes)
                self.b.call("llvm.x86.tileloadd64", tile, place, i64(0))

    def _accumulators(self, pixels: int) -> list[Expr]:
        """The tiles of `pixels` pixels, by rows of tiles and vectors."""
        rows = range(-(-pixels // self.rows))
        return [_tile(2 * row + v) for row in rows for v in range(self.operands.vectors)]

    def _places(self) -> list[int]:
        """Where each step reads the pixels."""
        operands, runs = self.operands, self.operands.runs
        return [
            row * operands.row_step + column * operands.column_step + at
            for row in range(runs.rows)
            for column in range(runs.columns)
            for at in range(0, runs.padded, runs.chunk)
        ]

    def _step(self, x: Index, firsts: Sequence[int], stride: int, weight: Index, step: int | None = None) -> None:
        """Products with the same weights follow each other: other weights cost 18 cycles, be pixels few or not."""
        b, vectors, depth = self.b, range(self.operands.vectors), self.operands.runs.chunk
        self.fetch_ahead()
        for tile, first in enumerate(firsts):
            b.call("llvm.x86.tileloadd64", _tile(4 + tile), self.operands.x.address(x + first), i64(stride))
        weights = [6 + v for v in vectors]
        if self.resident and step is not None:
            weights = [self.resident[step]]
        else:
            for v in vectors:
                place = self.operands.weight.address(weight + v * depth * 16)
                b.call("llvm.x86.tileloadd64", _tile(weights[v]), place, i64(64))
        for v in vectors:
            for tile in range(len(firsts)):
                b.call("llvm.x86.tdpbusd", _tile(2 * tile + v), _tile(4 + tile), _tile(weights[v]))


#: Tiles that may hold the weights of a kernel of one vector of channels for as long as it runs.
_RESIDENT = (6, 7, 1, 3)
#: Steps of K that are emitted one after the other, with other work between them.
_UNROLLED = 16


def _tile(number: int) -> Expr:
    return tirx.IntImm("int8", number)
