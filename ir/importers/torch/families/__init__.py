"""Translations of ATen overloads by family; importing this package registers them all."""

from __future__ import annotations

from . import convolution, elementwise, matmul, normalization, pooling, python, reduce, shape

__all__ = ["convolution", "elementwise", "matmul", "normalization", "pooling", "python", "reduce", "shape"]
