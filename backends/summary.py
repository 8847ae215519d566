"""What a graph is made of, and which parts become integer: plain data for reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ..ir.graph import Decision, Graph, Node, Precision
from ..ir.ops.constant import Constant
from ..passes.decide import decide
from ..passes.pipeline import Pipeline


@dataclass(frozen=True)
class Row:
    """One node and what was decided for it."""

    where: str
    op: str
    type: str
    macs: int
    decision: Decision


@dataclass(frozen=True)
class GraphSummary:
    """Sizes of a graph: ``macs`` are multiply-accumulates of one run, ``parameter_bytes`` the constants' size."""

    name: str
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]
    nodes: int
    ops: tuple[tuple[str, int], ...]
    parameters: int
    parameter_bytes: int
    macs: int | None
    largest: tuple[str, int]
    """The value with the most bytes that a node makes."""


def summarize(graph: Graph) -> GraphSummary:
    """Sizes of a graph; ``macs`` is None while shapes are open."""
    constants = graph.constants().values()
    working = [node for node in graph.nodes if not isinstance(node.op, Constant)]
    macs = [macs_of(node) for node in working]
    values = [v for node in working for v in node.outputs if v.type.is_static]
    largest = max(values, key=lambda v: v.type.nbytes, default=None)
    return GraphSummary(
        name=graph.name,
        inputs=tuple((v.name, str(v.type)) for v in graph.inputs),
        outputs=tuple((n, str(v.type)) for n, v in zip(graph.output_names, graph.outputs, strict=True)),
        nodes=len(working),
        ops=tuple(Counter(node.op.name for node in working).most_common()),
        parameters=sum(t.size for t in constants),
        parameter_bytes=sum(t.type.nbytes for t in constants),
        macs=None if None in macs else sum(m or 0 for m in macs),
        largest=(largest.name, largest.type.nbytes) if largest else ("", 0),
    )


def macs_of(node: Node) -> int | None:
    """Multiply-accumulates of one run; None while shapes are open."""
    if not all(v.type.is_static for v in (*node.inputs, *node.outputs)):
        return None
    return node.op.cost([v.type for v in node.inputs], [v.type for v in node.outputs]).macs


def decision_rows(graph: Graph) -> list[Row]:
    """Every node but constants with its decision; a float graph is prepared and decided as the compiler would."""
    if not any(node.decision for node in graph.nodes):
        graph = graph.clone()
        Pipeline.parse("prepare").run(graph)
        for node, decision in decide(graph).items():
            node.decision = decision
    return [_row(node, node.decision) for node in graph.nodes if node.decision and not isinstance(node.op, Constant)]


def _row(node: Node, decision: Decision) -> Row:
    return Row(node.where, node.op.name, ", ".join(str(v.type) for v in node.outputs), macs_of(node) or 0, decision)


def float_islands(rows: list[Row]) -> Iterator[list[Row]]:
    """Runs of neighbouring float nodes between quantized ones, in the order of the rows."""
    island: list[Row] = []
    for row in rows:
        if row.decision.precision is Precision.FLOAT:
            island.append(row)
        elif island:
            yield island
            island = []
    if island:
        yield island
