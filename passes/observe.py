"""Mark the values whose ranges quantization needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..ir.graph import Decision, Graph, Node, Precision, Value
from ..ir.op import Stage
from ..ir.ops.quantize import Observer
from .base import Exactness, Pass, PassContext
from .calibration.methods import new_statistics
from .decide import ObserverSpec, activation_operands, decide, is_prequantized, is_quantized, plan_observers
from .names import check_patterns
from .registry import register_pass


@register_pass
@dataclass(frozen=True)
class Observe(Pass):
    """Decide for every node whether it becomes integer, and put observers on the values that need a range.

    ``method`` says how calibration finds ranges: ``minmax``, ``moving-average``, ``percentile``, ``mse`` or
    ``entropy``; two of them take a number, as in ``percentile:99.9``. Of alternatives, as in ``mse|minmax``, it takes
    the one that disturbs the network's outputs least. ``keep_float`` lists shell patterns over names of nodes, or
    over ``op:NAME``, that stay in float.
    """

    method: str = "minmax"
    keep_float: tuple[str, ...] = ()

    name: ClassVar[str] = "observe"
    exactness: ClassVar[Exactness] = Exactness.EXACT

    def __post_init__(self) -> None:
        new_statistics(self.method)

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Raises :class:`UsageError` for a pattern of ``keep_float`` that fits no node and no kind of op."""
        check_patterns(graph, self.keep_float, "observe: keep-float")
        if any(node.op.stage is Stage.INTEGER for node in graph.nodes):
            # It was decided before the freeze, and what was decided stands.
            context.report("the graph is frozen already, so nothing is observed")
            return False
        decisions = decide(graph, self.keep_float)
        for node, decision in decisions.items():
            node.decision = decision
        plan = [] if is_prequantized(graph) else plan_observers(graph, decisions)
        for value, spec in plan:
            self._observe(graph, value, spec, decisions)
        context.report(_summary(decisions, len(plan)))
        return bool(plan)

    def _observe(self, graph: Graph, value: Value, spec: ObserverSpec, decisions: dict[Node, Decision]) -> None:
        """Put an observer behind ``value``.

        Everybody reads the result of a quantized node through it, since only its int8 form will exist. A value made
        in float keeps its float readers.
        """
        uses = value.uses
        everybody = value.producer is not None and is_quantized(value.producer, decisions)
        observer = graph.insert(
            Observer(spec.key, self.method, spec.symmetric),
            [value],
            before=None if value.producer else next(graph.nodes, None),
            after=value.producer,
            origin=value.producer.origin if value.producer else "",
            names=[f"{value.name}.observed"],
        )
        if everybody:
            graph.replace(value, observer.output)
            observer.set_input(0, value)
            return
        for node, position in uses:
            if is_quantized(node, decisions) and position in activation_operands(node):
                node.set_input(position, observer.output)


def _summary(decisions: dict[Node, Decision], observed: int) -> str:
    integer = sum(d.precision is Precision.QUANTIZED for d in decisions.values())
    return f"{integer} nodes become integer, {len(decisions) - integer} stay in float; {observed} values are observed"
