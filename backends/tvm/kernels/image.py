"""Quantize a float32 image in NCHW order to NHWC bytes: the first kernel of most networks. No tvm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..isa import Isa
from .base import Arg, Array, KernelSpec, StridedView
from .epilogue import pack_params

#: Pixels of one block: sixteen bytes of every channel.
PIXELS = 16


@dataclass(frozen=True)
class QuantizeImageSpec(KernelSpec):
    """Contiguous float32[batch, channels, height, width] to stored bytes in the view `output`.

    ``y = int(rint(clamp(x / s, lo, hi))) + zp``; NaN gives the zero point. One task is one row of one image. `pack`
    takes scale (float32, 0-d), zero_point (stored domain) and optionally lo, hi relative to it. Up to four channels
    whose pixels are contiguous are quick.
    """

    batch: int
    channels: int
    height: int
    width: int
    output: StridedView

    @property
    def args(self) -> tuple[Arg, ...]:
        return (
            Arg("x", "float32", "in"),
            Arg("scale", "float32", "const"),
            Arg("params", "int32", "const"),
            Arg("out", "act", "out"),
        )

    @property
    def interleaved(self) -> bool:
        """Whether the bytes of neighbouring pixels are contiguous and few enough to be shuffled together."""
        return self.channels <= 4 and self.output.pixel == self.channels

    def tasks(self, isa: Isa) -> int:
        return self.batch * self.height

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        scale = np.full(1, arrays["scale"], "float32")
        return {"scale": scale, "params": pack_params(isa, arrays)}

    def over_read(self, isa: Isa) -> dict[str, int]:
        return {"x": 4 * PIXELS}
