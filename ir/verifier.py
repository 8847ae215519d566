"""The rules every graph obeys, checked after each pass."""

from __future__ import annotations

from .errors import ModelError, VerifyError
from .graph import Graph, Node, Value
from .op import Stage, arity
from .text import format_type


def verify(graph: Graph, stage: Stage | None = None) -> None:
    """Check links, order, names, types and, when ``stage`` is given, which ops may stand in it.

    Raises:
        VerifyError: the first broken rule, naming the node by the user's name.
    """
    seen: dict[Value, None] = dict.fromkeys(graph.inputs)
    names = {v.name for v in graph.inputs}
    for node in graph.nodes:
        _verify_links(graph, node, seen)
        _verify_types(node)
        _verify_stage(node, stage)
        for value in node.outputs:
            if value.name in names:
                raise VerifyError(f"two values are named %{value.name}", where=node.where)
            names.add(value.name)
            seen[value] = None
    for name, value in zip(graph.output_names, graph.outputs, strict=True):
        if value not in seen:
            raise VerifyError(f"output {name} reads %{value.name}, which the graph does not make")


def _verify_links(graph: Graph, node: Node, seen: dict[Value, None]) -> None:
    if node.graph is not graph:
        raise VerifyError("a node belongs to another graph", where=node.where)
    if not arity(type(node.op)).admits(len(node.inputs)):
        raise VerifyError(
            f"{node.op.name} has {len(node.inputs)} operands",
            where=node.where,
            expected=str(arity(type(node.op))),
        )
    for position, value in enumerate(node.inputs):
        if value not in seen:
            raise VerifyError(f"{node.op.name} reads %{value.name} before it is made", where=node.where)
        if (node, position) not in value.uses:
            raise VerifyError(f"the use list of %{value.name} lacks operand {position}", where=node.where)


def _verify_types(node: Node) -> None:
    try:
        inferred = node.op.infer(*(v.type for v in node.inputs))
    except ModelError as error:
        raise VerifyError(f"{node.op.name}: {error.what}", where=node.where, expected=error.expected) from error
    actual = tuple(v.type for v in node.outputs)
    if inferred != actual:
        shown = ", ".join(format_type(t) for t in actual)
        expected = ", ".join(format_type(t) for t in inferred)
        raise VerifyError(f"{node.op.name} makes {shown}", where=node.where, expected=expected)


def _verify_stage(node: Node, stage: Stage | None) -> None:
    if stage is None or node.op.stage in (stage, Stage.ANY):
        return
    raise VerifyError(
        f"{node.op.name} may not stand in the {stage.value} stage",
        where=node.where,
        expected=f"an op of stage {stage.value} or any",
    )
