"""Common subexpression elimination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..ir.graph import Graph, Node, Value
from ..ir.op import Op
from ..ir.ops.constant import may_train
from .base import Exactness, Pass, PassContext
from .registry import register_pass


@register_pass
@dataclass(frozen=True)
class EliminateCommon(Pass):
    """Compute equal things once: merge nodes with equal ops and inputs, constants by content.

    Float32 constants that training may change stay apart, such as biases that are still all zero: merged, they would
    be one parameter. A tensor that the user shares is one constant already.
    """

    name: ClassVar[str] = "eliminate-common"
    exactness: ClassVar[Exactness] = Exactness.EXACT

    def apply(self, graph: Graph, context: PassContext) -> bool:
        first: dict[tuple[Op, tuple[Value, ...]], Node] = {}
        changed = False
        for node in graph.nodes:
            if may_train(node.op):
                continue
            twin = first.setdefault((node.op, node.inputs), node)
            if twin is node:
                continue
            for old, new in zip(node.outputs, twin.outputs, strict=True):
                graph.replace(old, new)
            graph.erase(node)
            changed = True
        return changed
