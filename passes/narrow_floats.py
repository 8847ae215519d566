"""One float type: what a model computes in double, half or bfloat16 is computed in float32."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from ..ir.constants import Tensor
from ..ir.graph import Graph, Node, Value
from ..ir.op import Op
from ..ir.ops.cast import Cast
from ..ir.ops.constant import Constant
from ..ir.types import DType
from .base import Exactness, Pass, PassContext
from .registry import register_pass

OTHERS = (DType.F64, DType.F16, DType.BF16)
"""Float types without kernels."""


@register_pass
@dataclass(frozen=True)
class NarrowFloats(Pass):
    """Compute in float32 what the model computes in another float type; casts keep the types of inputs and outputs."""

    name: ClassVar[str] = "narrow-floats"
    exactness: ClassVar[Exactness] = Exactness.CLOSE

    def apply(self, graph: Graph, context: PassContext) -> bool:
        others = [node for node in graph.nodes if _is_other(node)]
        types = [value.type.dtype for value in graph.outputs]
        for value in graph.inputs:
            if value.type.dtype in OTHERS and others:
                _cast_input(graph, value)
        for node in others:
            _narrow(graph, node)
        outputs = [_cast(graph, v, dtype) for v, dtype in zip(graph.outputs, types, strict=True)]
        graph.set_outputs(outputs, graph.output_names)
        return bool(others)


def narrow_interface(graph: Graph) -> None:
    """Let inputs and outputs of other float types be float32, too, as bundles have them."""
    if not any(value.type.dtype in OTHERS for value in (*graph.inputs, *graph.outputs)):
        return
    for value in graph.inputs:
        if value.type.dtype in OTHERS:
            value.type = value.type.with_dtype(DType.F32)
    for node in list(graph.nodes):
        _narrow(graph, node)


def _is_other(node: Node) -> bool:
    """Whether a node computes in another float type; a cast that only an output reads does not."""
    if not any(value.type.dtype in OTHERS for value in node.outputs):
        return False
    return not isinstance(node.op, Cast) or bool(node.output.uses)


def _cast_input(graph: Graph, value: Value) -> None:
    users = value.uses
    first = next(iter(graph.nodes))
    cast = graph.insert(Cast(DType.F32), [value], before=first, names=[f"{value.name}.f32"]).output
    for node, position in users:
        node.set_input(position, cast)


def _cast(graph: Graph, value: Value, dtype: DType) -> Value:
    return value if value.type.dtype is dtype else graph.insert(Cast(dtype), [value]).output


def _narrow(graph: Graph, node: Node) -> None:
    """The node again, on inputs that are float32 by now."""
    match node.op:
        case Constant(data=data) if node.output.type.dtype in OTHERS:
            op: Op = dataclasses.replace(node.op, data=Tensor.of(data.numpy().astype(DType.F32.numpy)))
        case _:
            op = _in_float32(node.op)
    names = [value.name for value in node.outputs]
    if isinstance(op, Cast) and node.inputs[0].type.dtype is op.dtype:
        made: tuple[Value, ...] = node.inputs
    else:
        again = graph.insert(op, node.inputs, before=node, origin=node.origin, names=names)
        again.decision = node.decision
        made = again.outputs
    for old, new in zip(node.outputs, made, strict=True):
        if old is not new and new.producer is not None and new not in node.inputs:
            old.name, new.name = new.name, old.name
        graph.replace(old, new)
    graph.erase(node)


def _in_float32(op: Op) -> Op:
    changes = {field.name: DType.F32 for field in dataclasses.fields(op) if getattr(op, field.name) in OTHERS}
    return dataclasses.replace(op, **changes) if changes else op
