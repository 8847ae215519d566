"""Chains of float32 functions over strided, broadcast tensors, with the same bits on every target. No tvm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..isa import Isa
from .base import Arg, Array, KernelSpec
from .strided import Loops, Strides, dense_strides, plan_loops

#: How many operands each function takes.
ARITY = {
    **dict.fromkeys(("add", "sub", "mul", "div", "min", "max", "less", "less_equal", "equal"), 2),
    **dict.fromkeys(
        ("neg", "abs", "sqrt", "floor", "ceil", "rint", "exp", "log", "tanh", "sigmoid", "erf", "sin", "cos"), 1
    ),
    **dict.fromkeys(("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh"), 1),
    "where": 3,
}

#: A function's name and where its operands are.
Step = tuple[str | int, ...]


@dataclass(frozen=True)
class ChainSpec(KernelSpec):
    """The last value of `steps` for every element of a tensor of `shape`.

    Values are numbered: first the inputs ``x0``, ``x1``... (as many as `strides`), then `parameters` scalars, then the
    results of the steps; a step is ``(name, value, ...)`` with a name of `ARITY`. Comparisons give 1 or 0; ``where``
    takes its second operand where the first is not 0, else the third; ``min`` and ``max`` pass NaN on. Every operation
    is rounded by itself, in the given order. Strides are in elements, 0 along a broadcast axis, contiguous when None.
    `pack` takes parameters: float32[parameters].
    """

    shape: tuple[int, ...]
    strides: tuple[Strides | None, ...]
    steps: tuple[Step, ...]
    parameters: int = 0
    out_strides: Strides | None = None

    @property
    def args(self) -> tuple[Arg, ...]:
        inputs = [Arg(f"x{number}", "float32", "in") for number in range(len(self.strides))]
        scalars = [Arg("parameters", "float32", "const")] if self.parameters else []
        return (*inputs, *scalars, Arg("out", "float32", "out"))

    @property
    def loops(self) -> Loops:
        dense = dense_strides(self.shape)
        return plan_loops(self.shape, *(strides or dense for strides in self.strides), self.out_strides or dense)

    def tasks(self, isa: Isa) -> int:
        return self.loops.tasks

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        if not self.parameters:
            return {}
        return {"parameters": np.ascontiguousarray(arrays["parameters"], "float32").reshape(-1)}

    def over_read(self, isa: Isa) -> dict[str, int]:
        if not self.loops.scalar and self.loops.inner >= 2 * isa.lanes:
            return {}
        return {f"x{number}": 8 * isa.lanes for number in range(len(self.strides))}
