"""Kernels that cannot be compiled or linked, for the tests of what finds that out."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.backends.tvm.isa import Isa
from octavo.backends.tvm.kernels.base import Arg, KernelSpec


@dataclass(frozen=True)
class FaultySpec(KernelSpec):
    """`fault`: ``select`` uses an instruction no target has, ``foreign`` calls expf, ``raise`` fails in Python."""

    fault: str

    @property
    def args(self) -> tuple[Arg, ...]:
        return (Arg("out", "act", "out"),)

    def tasks(self, isa: Isa) -> int:
        return 1
