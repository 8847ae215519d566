"""Constant folding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..ir.constants import Tensor
from ..ir.errors import OctavoError, PassError
from ..ir.graph import Graph, Node
from ..ir.interpreter import run_node, to_numpy
from ..ir.ops.constant import Constant, trains_as
from ..ir.ops.quantize import Dequantize, FakeQuantize, Observer
from .base import Exactness, Pass, PassContext
from .registry import register_pass

_KEPT = (Constant, Dequantize, FakeQuantize, Observer)
"""Never folded: quantization lives in these, and a float constant would forget it."""


@register_pass
@dataclass(frozen=True)
class FoldConstants(Pass):
    """Evaluate nodes whose inputs are all constant.

    ``limit`` bounds the elements of a result that is larger than what it is made from (an expand, say).
    """

    limit: int = 65536

    name: ClassVar[str] = "fold-constants"
    exactness: ClassVar[Exactness] = Exactness.EXACT

    def apply(self, graph: Graph, context: PassContext) -> bool:
        changed = False
        for node in graph.nodes:
            if self._foldable(node):
                _fold(graph, node)
                changed = True
        return changed

    def _foldable(self, node: Node) -> bool:
        if isinstance(node.op, _KEPT) or not node.inputs:
            return False
        if not all(isinstance(v.op, Constant) for v in node.inputs):
            return False
        if not all(v.type.is_static for v in node.outputs):
            return False
        made, used = (sum(v.type.size for v in values) for values in (node.outputs, node.inputs))
        return made <= max(used, self.limit)


def _fold(graph: Graph, node: Node) -> None:
    """Put constants in the place of one node."""
    try:
        results = run_node(node, [v.op.run() for v in node.inputs if isinstance(v.op, Constant)])
    except (OctavoError, RuntimeError, ValueError, IndexError) as error:
        raise PassError(f"{node.op.name} of constants cannot be computed: {error}", where=node.where) from error
    producers = [v.producer for v in node.inputs]
    trains = trains_as(value.op for value in node.inputs)
    for old, tensor in zip(node.outputs, results, strict=True):
        data = Tensor.of(to_numpy(tensor))
        constant = graph.insert(Constant(data, old.type.quant, trains), (), before=node, origin=node.origin).output
        old.name, constant.name = constant.name, old.name
        graph.replace(old, constant)
    graph.erase(node)
    for producer in filter(None, dict.fromkeys(producers)):
        if not producer.output.uses and not graph.is_output(producer.output):
            graph.erase(producer)
