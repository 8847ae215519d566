"""Conversions of single values, over strided tensors: between float32 and bytes, and between grids of bytes. No tvm.

- ``quantize``: ``y = int(rint(clamp(x / s, lo, hi))) + zp``; NaN gives the zero point
- ``dequantize``: ``y = f32(x - zx) * s``
- ``requantize``: ``y = int(rint(clamp(f32(x - zx) * m, lo, hi))) + zp``
- ``clamp``: a byte between two stored bounds
- ``flip``: the sign bit toggled, which turns stored uint8 into int8 and back
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..isa import Isa
from .base import Arg, Array, KernelSpec
from .epilogue import PARAM_WORDS, pack_params
from .strided import Loops, Strides, dense_strides, plan_loops

UnaryOp = Literal["quantize", "dequantize", "requantize", "clamp", "flip"]

#: Words of `params` after those of the epilogue: the input's zero point and the float32 factor (or divisor).
X_ZERO_POINT, FACTOR = PARAM_WORDS, PARAM_WORDS + 1
UNARY_WORDS = PARAM_WORDS + 16
#: Pixels of one block and of one task where planes become interleaved pixels.
PIXELS, RUN_PIXELS = 16, 1024


@dataclass(frozen=True)
class UnarySpec(KernelSpec):
    """One conversion of every element of a tensor of `shape`; strides are in elements, contiguous when None.

    `pack` takes: scale (quantize, dequantize) or multiplier (requantize), float32 0-d; x_zero_point (dequantize,
    requantize) and zero_point (quantize, requantize) in the stored domain; lo and hi, relative to the zero point
    (optional) or, for clamp, stored bytes.
    """

    op: UnaryOp
    shape: tuple[int, ...]
    x_strides: Strides | None = None
    out_strides: Strides | None = None

    @property
    def args(self) -> tuple[Arg, ...]:
        x = Arg("x", "float32" if self.op == "quantize" else "act", "in")
        out = Arg("out", "float32" if self.op == "dequantize" else "act", "out")
        return (x, out) if self.op == "flip" else (x, Arg("params", "int32", "const"), out)

    @property
    def loops(self) -> Loops:
        dense = dense_strides(self.shape)
        return plan_loops(self.shape, self.x_strides or dense, self.out_strides or dense)

    @property
    def interleaved(self) -> bool:
        """Whether planes of float32 become contiguous pixels of few channels: a network's NCHW input."""
        loops = self.loops
        if self.op != "quantize" or len(loops.shape) == 1 or not 2 <= loops.inner <= 4:
            return False
        return loops.inner_strides[1] == 1 and (loops.strides[0][-2], loops.strides[1][-2]) == (1, loops.inner)

    def tasks(self, isa: Isa) -> int:
        if self.interleaved:
            *others, pixels, _ = self.loops.shape
            return math.prod(others) * -(-pixels // RUN_PIXELS)
        return self.loops.tasks

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        if self.op == "flip":
            return {}
        zero = np.array(0)
        bounds = {"zero_point": zero} if self.op in ("clamp", "dequantize") else {}
        words = np.zeros(UNARY_WORDS, "int32")
        words[:PARAM_WORDS] = pack_params(isa, {**arrays, **bounds})
        words[X_ZERO_POINT] = arrays.get("x_zero_point", zero)
        words.view("float32")[FACTOR] = arrays.get("scale", arrays.get("multiplier", np.float32(0)))
        return {"params": words}

    def over_read(self, isa: Isa) -> dict[str, int]:
        """Nothing where it matters: a network's input is a user's memory, and would have to be copied first."""
        pixels = self.loops.shape[-2] if self.interleaved else 0
        if pixels >= PIXELS or self.loops.whole_blocks(4 * isa.lanes):
            return {}
        return {"x": 4 * isa.lanes * (4 if self.op == "quantize" else 1)}
