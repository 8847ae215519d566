"""The normal forms of ``canonicalize``, by family."""

from __future__ import annotations

from ..rewriting import RewritePattern
from . import activations, arithmetic, einsum, functions, layers, movement, normalization, pooling

FAMILIES: tuple[tuple[RewritePattern, ...], ...] = (
    movement.PATTERNS,
    einsum.PATTERNS,
    arithmetic.PATTERNS,
    activations.PATTERNS,
    # Norms before functions: a softmax is no function of one element, but its pieces are.
    normalization.PATTERNS,
    functions.PATTERNS,
    layers.PATTERNS,
    pooling.PATTERNS,
)
