"""Bring every network to one spelling, so that later passes need to know only that one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..ir.graph import Graph
from .base import Exactness, Pass, PassContext
from .canonicalization import FAMILIES
from .registry import register_pass
from .rewriting import RewritePattern, rewrite


@register_pass
@dataclass(frozen=True)
class Canonicalize(Pass):
    """Bring ops to one normal form: no no-ops, merged chains, whole activations, norms and layers for their pieces.

    A constant stands right of a commutative op; subtraction and division of floats by one are addition and
    multiplication; ``relu`` stands for the bounds (0, inf) and ``clamp`` for all others; a matrix product with
    constant weights is ``linear``; an einsum is matrix products; pooling over everything is ``reduce_mean``.
    """

    name: ClassVar[str] = "canonicalize"
    exactness: ClassVar[Exactness] = Exactness.CLOSE

    def apply(self, graph: Graph, context: PassContext) -> bool:
        patterns: list[RewritePattern] = [pattern for family in FAMILIES for pattern in family]
        changed = False
        # A pattern may need what another one makes several nodes above it.
        while rewrite(graph, patterns):
            changed = True
        return changed | rewrite(graph, patterns, context)
