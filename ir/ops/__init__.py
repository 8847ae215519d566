"""Every op of octavo; importing this package registers them all."""

from __future__ import annotations

from . import (
    cast,
    constant,
    conv,
    elementwise,
    integer,
    logic,
    math,
    matmul,
    norm,
    pool,
    quantize,
    reduce,
    resize,
    shape,
)

__all__ = [
    "cast",
    "constant",
    "conv",
    "elementwise",
    "integer",
    "logic",
    "math",
    "matmul",
    "norm",
    "pool",
    "quantize",
    "reduce",
    "resize",
    "shape",
]
