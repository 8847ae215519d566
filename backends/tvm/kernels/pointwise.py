"""Functions of single elements of any number type: comparisons, logic, choices and integer arithmetic. No tvm.

Booleans are bytes that hold 0 or 1. Integers wrap around; a division by 0 gives 0, and so does its remainder. A shift
by less than 0 or by the width or more leaves nothing of a number but, to the right, its sign. What `chain` offers for
float32 alone is not repeated here.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..isa import Isa
from .base import Arg, KernelSpec
from .strided import Loops, Strides, dense_strides, plan_loops

PREDICATES = {"isnan": 1, "isinf": 1, "positive_inf": 1, "negative_inf": 1}
COMPARISONS = dict.fromkeys(("equal", "greater", "greater_equal", "less", "less_equal"), 2)
#: On numbers of one type; `mod` has the sign of its second operand, `fmod` that of its first.
ARITHMETIC = {
    **dict.fromkeys(("not", "neg", "abs", "sign"), 1),
    **dict.fromkeys(("and", "or", "xor", "shift_left", "shift_right", "mod", "fmod"), 2),
    **dict.fromkeys(("add", "sub", "mul", "div", "min", "max"), 2),
}
#: How many operands each function takes; ``where`` is its second operand where the first, a bool, is 1, else the third.
OPERANDS = {**PREDICATES, **COMPARISONS, **ARITHMETIC, "where": 3}


@dataclass(frozen=True)
class PointwiseSpec(KernelSpec):
    """``op`` of operands of type `dtype`, for every element of a tensor of `shape`.

    Predicates and comparisons give bool. Strides are in elements, one row for each operand, 0 along a broadcast axis,
    contiguous when None.
    """

    op: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[Strides | None, ...]
    out_strides: Strides | None = None

    @property
    def args(self) -> tuple[Arg, ...]:
        kind = stored_dtype(self.dtype)
        kinds = ["uint8" if self.op == "where" and not number else kind for number in range(len(self.strides))]
        result = "uint8" if self.op in PREDICATES or self.op in COMPARISONS else kind
        return (*(Arg(f"x{number}", kind, "in") for number, kind in enumerate(kinds)), Arg("out", result, "out"))

    @property
    def loops(self) -> Loops:
        dense = dense_strides(self.shape)
        return plan_loops(self.shape, *(strides or dense for strides in self.strides), self.out_strides or dense)

    def tasks(self, isa: Isa) -> int:
        return self.loops.tasks


def stored_dtype(dtype: str) -> str:
    """The type of a buffer's elements: a bool is a byte."""
    return "uint8" if dtype == "bool" else dtype
