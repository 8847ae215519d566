"""Dead code elimination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..ir.graph import Graph
from .analysis import users_first
from .base import Exactness, Pass, PassContext
from .registry import register_pass


@register_pass
@dataclass(frozen=True)
class EliminateDead(Pass):
    """Remove nodes whose results nobody uses."""

    name: ClassVar[str] = "eliminate-dead"
    exactness: ClassVar[Exactness] = Exactness.EXACT

    def apply(self, graph: Graph, context: PassContext) -> bool:
        returned = set(graph.outputs)
        changed = False
        for node in users_first(graph):
            if not any(v.uses or v in returned for v in node.outputs):
                graph.erase(node)
                changed = True
        return changed
