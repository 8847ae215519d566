"""Translations of ATen overloads by family; importing this package registers them all."""

from __future__ import annotations

from . import (
    arithmetic,
    attention,
    complexes,
    convolution,
    creation,
    elementwise,
    indexing,
    matmul,
    normalization,
    pooling,
    python,
    recurrent,
    reduce,
    resize,
    shape,
)

__all__ = [
    "arithmetic",
    "attention",
    "complexes",
    "convolution",
    "creation",
    "elementwise",
    "indexing",
    "matmul",
    "normalization",
    "pooling",
    "python",
    "recurrent",
    "reduce",
    "resize",
    "shape",
]
