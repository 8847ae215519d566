"""Single x86 instructions as kernels, for the tests of how they are imitated."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.backends.tvm.isa import Isa
from octavo.backends.tvm.kernels.base import Arg, KernelSpec


@dataclass(frozen=True)
class InstructionSpec(KernelSpec):
    """The intrinsic ``llvm.x86.NAME`` on each row of its operands, which hold a vector a row.

    `result` and `operands` are vector types such as ``int32x16``; `constants` are types and values of further operands.
    """

    name: str
    rows: int
    result: str
    operands: tuple[str, ...]
    constants: tuple[tuple[str, int], ...] = ()

    @property
    def args(self) -> tuple[Arg, ...]:
        inputs = (Arg(f"x{number}", scalar(kind), "in") for number, kind in enumerate(self.operands))
        return (*inputs, Arg("out", scalar(self.result), "out"))

    def tasks(self, isa: Isa) -> int:
        return self.rows


def scalar(kind: str) -> str:
    """The type of a vector's elements."""
    return kind.partition("x")[0]


def lanes(kind: str) -> int:
    """How many elements a vector has."""
    return int(kind.partition("x")[2])
