"""Every op of octavo; importing this package registers them all."""

from __future__ import annotations

from . import (
    cast,
    constant,
    conv,
    dynamic,
    einsum,
    elementwise,
    index,
    integer,
    logic,
    math,
    matmul,
    norm,
    pool,
    quantize,
    recurrent,
    reduce,
    resize,
    scan,
    shape,
)

__all__ = [
    "cast",
    "constant",
    "conv",
    "dynamic",
    "einsum",
    "elementwise",
    "index",
    "integer",
    "logic",
    "math",
    "matmul",
    "norm",
    "pool",
    "quantize",
    "recurrent",
    "reduce",
    "resize",
    "scan",
    "shape",
]
