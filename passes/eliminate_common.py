"""Common subexpression elimination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..ir.graph import Graph, Node, Value
from ..ir.op import Op
from .base import Exactness, Pass, PassContext
from .registry import register_pass
from .training.parameters import is_buffer, is_grid, is_parameter


@register_pass
@dataclass(frozen=True)
class EliminateCommon(Pass):
    """Compute equal things once: merge nodes with equal ops and inputs, constants by content.

    Parameters and buffers of training stay apart, such as biases that are still all zero: merged, they would be one
    parameter. A tensor that the user shares is one constant already.
    """

    name: ClassVar[str] = "eliminate-common"
    exactness: ClassVar[Exactness] = Exactness.EXACT

    def apply(self, graph: Graph, context: PassContext) -> bool:
        first: dict[tuple[Op, tuple[Value, ...]], Node] = {}
        changed = False
        for node in graph.nodes:
            if _is_state(node):
                continue
            twin = first.setdefault((node.op, node.inputs), node)
            if twin is node:
                continue
            for old, new in zip(node.outputs, twin.outputs, strict=True):
                graph.replace(old, new)
            graph.erase(node)
            changed = True
        return changed


def _is_state(node: Node) -> bool:
    """Whether a node holds a constant that training may change; grids are chosen anew before they learn."""
    return any((is_parameter(value) or is_buffer(value)) and not is_grid(value) for value in node.outputs)
