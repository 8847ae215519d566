"""Sums, differences and products of two byte tensors with broadcasting. No tvm.

- ``add``, ``sub``: ``t = f32(a - za) * ma ± f32(b - zb) * mb``, both products rounded by themselves
- ``mul``: ``t = f32((a - za) * (b - zb)) * m``

Then ``y = int(rint(clamp(t, lo, hi))) + zp``, or float32 ``clamp(t, lo, hi)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..isa import Isa
from .base import Arg, Array, KernelSpec
from .epilogue import PARAM_WORDS, Epilogue, pack_params
from .strided import Loops, Strides, dense_strides, plan_loops

BinaryOp = Literal["add", "sub", "mul"]

#: Words of `params` after those of the epilogue: zero points, then float32 factors, then float32 bounds of f32 output.
A_ZERO_POINT, B_ZERO_POINT, A_FACTOR, B_FACTOR, F32_LO, F32_HI = range(PARAM_WORDS, PARAM_WORDS + 6)
BINARY_WORDS = PARAM_WORDS + 16


@dataclass(frozen=True)
class BinarySpec(KernelSpec):
    """`a` and `b` broadcast to `shape`; strides are in elements, 0 along a broadcast axis, contiguous when None.

    `pack` takes: a_zero_point and b_zero_point (stored domain); a_multiplier, b_multiplier (add, sub) or multiplier
    (mul), float32 0-d; for byte output zero_point and optionally lo, hi relative to it; for float32 optionally lo and
    hi as real numbers.
    """

    op: BinaryOp
    shape: tuple[int, ...]
    a_strides: Strides | None = None
    b_strides: Strides | None = None
    out_strides: Strides | None = None
    epilogue: Epilogue = field(default_factory=Epilogue)

    def fitted(self, isa: Isa, arrays: Mapping[str, npt.ArrayLike]) -> BinarySpec:
        """The kernel that leaves out what the constants `arrays`, as `pack` takes them, do not need."""
        terms = [abs(float(np.asarray(arrays.get(name, 0.0)))) for name in ("a_multiplier", "b_multiplier")]
        known = {"multiplier": np.float32(0), **arrays, "residual_multiplier": max(terms)}
        return replace(self, epilogue=self.epilogue.fitted(isa, known))

    @property
    def args(self) -> tuple[Arg, ...]:
        return (
            Arg("a", "act", "in"),
            Arg("b", "act", "in"),
            Arg("params", "int32", "const"),
            Arg("out", self.epilogue.out_dtype, "out"),
        )

    @property
    def loops(self) -> Loops:
        dense = dense_strides(self.shape)
        return plan_loops(self.shape, self.a_strides or dense, self.b_strides or dense, self.out_strides or dense)

    def tasks(self, isa: Isa) -> int:
        return self.loops.tasks

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        words = np.zeros(BINARY_WORDS, "int32")
        if self.epilogue.out == "byte":
            words[:PARAM_WORDS] = pack_params(isa, arrays)
        words[[A_ZERO_POINT, B_ZERO_POINT]] = int(arrays["a_zero_point"]), int(arrays["b_zero_point"])
        floats = words.view("float32")
        floats[A_FACTOR] = arrays["multiplier" if self.op == "mul" else "a_multiplier"]
        floats[B_FACTOR] = arrays.get("b_multiplier", np.float32(0))
        floats[F32_LO] = arrays.get("lo", np.float32(-np.inf))
        floats[F32_HI] = arrays.get("hi", np.float32(np.inf))
        return {"params": words}

    def over_read(self, isa: Isa) -> dict[str, int]:
        return {"a": 4 * isa.lanes, "b": 4 * isa.lanes}
