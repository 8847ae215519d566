"""Ops after the freeze: exact integer semantics in elementary numpy operations. Every kernel equals these to the bit.

Accumulators are int32: computed here in int64 and asserted to fit. Every product and sum in float32 is rounded by
itself (no fused multiply-add). See docs/numerics.md.
"""

from __future__ import annotations

from .average import QAvgPool, QReduceMean, QResize
from .elementwise import QAdd, QBinary, QMul, QSub, QTable, Requantize
from .image import QImage
from .normalize import QLayerNorm, QSoftmax
from .rounding import IntegerOp, multiplier, quant_of
from .weighted import QConv, QConvTranspose, QLinear, QMatMul, Weighted

__all__ = [
    "IntegerOp",
    "QAdd",
    "QAvgPool",
    "QBinary",
    "QConv",
    "QConvTranspose",
    "QImage",
    "QLayerNorm",
    "QLinear",
    "QMatMul",
    "QMul",
    "QReduceMean",
    "QResize",
    "QSoftmax",
    "QSub",
    "QTable",
    "Requantize",
    "Weighted",
    "multiplier",
    "quant_of",
]
