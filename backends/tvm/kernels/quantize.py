"""Quantize float32 to bytes: ``y = int(rint(clamp(x / s, lo, hi))) + zp``; NaN gives the zero point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..isa import Isa
from .base import Arg, Array, KernelSpec
from .epilogue import pack_params

#: Elements of one task.
TASK = 4096


@dataclass(frozen=True)
class QuantizeSpec(KernelSpec):
    """`count` contiguous float32 values ``x`` to `count` stored bytes ``out``.

    `pack` takes scale (float32, 0-d), zero_point (stored domain) and optionally lo, hi relative to it.
    """

    count: int

    @property
    def args(self) -> tuple[Arg, ...]:
        return (
            Arg("x", "float32", "in"),
            Arg("out", "act", "out"),
            Arg("scale", "float32", "const"),
            Arg("params", "int32", "const"),
        )

    def tasks(self, isa: Isa) -> int:
        return -(-self.count // TASK)

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        scale = np.full(1, arrays["scale"], "float32")
        return {"scale": scale, "params": pack_params(isa, arrays)}

    def over_read(self, isa: Isa) -> dict[str, int]:
        return {"x": 4 * 4 * isa.lanes}
