"""Emitter of `ImageSpec`."""

from __future__ import annotations

from typing import Any

from ...builder import Buffer, Builder, Expr, intrin
from ...isa import Isa, vector_ops
from ...isa.vector import VectorOps
from ..base import emitter
from ..epilogue import Epilogue
from ..image import BY_CHANNEL, GRID_HIGH, GRID_LOW, SCALE_HIGH, SCALE_LOW, ImageSpec
from .epilogue import EpilogueEmitter
from .strided import emit_loops


@emitter(ImageSpec)
def emit(spec: ImageSpec, isa: Isa, symbol: str) -> Any:
    """Vectors whose lanes are the channels in turn, in blocks of whole pixels."""
    b, ops = Builder(symbol), vector_ops(isa)
    buffers = {arg.name: b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args}
    arithmetic = _Line(b, ops, spec, buffers) if spec.by == "line" else _Steps(b, ops, spec, buffers)
    epilogue = EpilogueEmitter(b, ops, Epilogue(whole=True), buffers)

    def block(at: list[Expr], count: int) -> None:
        pixels = [ops.to_f32(value) for value in ops.load_bytes(b, buffers["x"], at[0], count)]
        epilogue.store_quantized([b.let(arithmetic(value, at)) for at, value in enumerate(pixels)], at[1], count)

    emit_loops(b, spec.loops, spec.step(isa), block)
    return b.finish(spec.noalias)


class _Arithmetic:
    """What becomes of the pixels in vector number `at` of a block, whose channels repeat."""

    def __init__(self, b: Builder, ops: VectorOps, spec: ImageSpec, buffers: dict[str, Buffer]) -> None:
        self.b, self.ops = b, ops
        count = spec.patterns(ops.isa) * ops.lanes
        self.by_channel = [ops.load_words(b, buffers[name], 0, count) for name in BY_CHANNEL[spec.by]]

    def of_channels(self, at: int) -> list[Expr]:
        return [vectors[at % len(vectors)] for vectors in self.by_channel]

    def fma(self, x: Expr, factor: Expr, addend: Expr) -> Expr:
        return intrin(self.ops.f32, f"llvm.fma.v{self.ops.lanes}f32", x, factor, addend)


class _Line(_Arithmetic):
    def __call__(self, x: Expr, at: int) -> Expr:
        factor, shift = self.of_channels(at)
        return self.fma(x, factor, shift)


class _Steps(_Arithmetic):
    def __init__(self, b: Builder, ops: VectorOps, spec: ImageSpec, buffers: dict[str, Buffer]) -> None:
        super().__init__(b, ops, spec, buffers)
        self.common = [b.let(ops.splat(buffers["common"][word])) for word in range(4)]

    def __call__(self, x: Expr, at: int) -> Expr:
        mean, *std = self.of_channels(at)
        scaled = self._divided(x, self.common[SCALE_HIGH], self.common[SCALE_LOW])
        normalized = self._divided(scaled - mean, *std)
        return self._divided(normalized, self.common[GRID_HIGH], self.common[GRID_LOW])

    def _divided(self, x: Expr, high: Expr, low: Expr | None = None) -> Expr:
        x = self.b.let(x)
        return self.ops.mul(x, high) if low is None else self.fma(x, high, self.ops.mul(x, low))
