"""Which nodes become integer and which stay float, by which rule, and why; and which values need a range for that.

A node is quantized when its op has an integer form, its operands allow it, and it belongs to an island of such nodes
that does multiply-accumulate work: converting to int8 and back around a lone activation costs more than it saves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..ir.graph import Decision, Graph, Node, Precision, Value
from ..ir.op import Quantization, operand_index
from ..ir.ops.constant import Constant
from ..ir.ops.conv import Conv, ConvTranspose
from ..ir.ops.elementwise import Add, Binary
from ..ir.ops.image import NormalizeImage
from ..ir.ops.matmul import MatMul
from ..ir.ops.norm import LayerNorm, Softmax
from ..ir.ops.pool import AvgPool, MaxPool
from ..ir.ops.quantize import Dequantize, FakeQuantize, Observer, Quantize
from ..ir.ops.recurrent import Recurrence
from ..ir.ops.resize import Resize
from ..ir.ops.shape import Concat, Gather
from ..ir.types import DType
from .calibration.masks import MASK_MAGNITUDE
from .magnitudes import REASON as MAGNITUDE
from .magnitudes import magnitude_nodes
from .names import is_named

MAC_RULES = frozenset({Quantization.WEIGHTED, Quantization.MATMUL})
"""Rules whose nodes do the work that int8 makes cheaper."""

_BOOKKEEPING = (Constant, Observer, FakeQuantize)
"""Nodes that take the form their readers want."""

_BECAME_STATIC = "static int8: dynamic (or weight-only) quantization became static, the weights keep their grid"

MAX_SUMMED = 1 << 15
"""Elements an integer sum of int8 squares may run over without leaving int32."""


@dataclass(frozen=True)
class ObserverSpec:
    """How to observe one value: the name of its range, and whether its grid must be symmetric."""

    key: str
    symmetric: bool = False


def decide(graph: Graph, keep_float: Sequence[str] = ()) -> dict[Node, Decision]:
    """A decision for every node that computes.

    Args:
        graph: a float graph, best after ``canonicalize``, ``fold-batchnorm`` and ``fuse``.
        keep_float: shell patterns over names of nodes, or over ``op:NAME``, that stay in float by the user's wish.
    """
    candidates: dict[Node, str] = {}
    magnitudes = magnitude_nodes(graph)
    decisions: dict[Node, Decision] = {}
    for node in graph.nodes:
        obstacle = _obstacle(node, keep_float)
        if obstacle is None:
            candidates[node] = node.op.rule.value
        else:
            decisions[node] = Decision(Precision.FLOAT, node.op.rule.value, obstacle)
    for node in [n for n in candidates if _is_normalized_in_float(n, candidates)]:
        del candidates[node]
        reason = "a float layer_norm reads the sum: its outliers would take the whole grid"
        decisions[node] = Decision(Precision.FLOAT, node.op.rule.value, reason)
    for node in [n for n in candidates if n in magnitudes]:
        del candidates[node]
        decisions[node] = Decision(Precision.FLOAT, node.op.rule.value, MAGNITUDE)
    prequantized = is_prequantized(graph)
    for island in _islands(candidates):
        works = any(n.op.rule in MAC_RULES for n in island)
        for node in island:
            became = not prequantized and _keeps_its_weights(node)
            decisions[node] = _island_decision(node, works, _BECAME_STATIC if became else "static int8")
    return {node: decisions[node] for node in graph.nodes if not isinstance(node.op, _BOOKKEEPING)}


def plan_observers(graph: Graph, decisions: dict[Node, Decision]) -> list[tuple[Value, ObserverSpec]]:
    """The values whose ranges calibration must find, in graph order.

    A value needs a range when a quantized node reads it as an activation and it does not inherit the grid of another
    value through an op that only moves elements.
    """
    plan: list[tuple[Value, ObserverSpec]] = []
    for value in graph.values():
        readers = [(n, i) for n, i in value.uses if _reads_grid(n, i, decisions)]
        joined = isinstance(value.op, Concat) and value.producer is not None and is_quantized(value.producer, decisions)
        rounded = value.producer is not None and _rounds(value.producer, decisions)
        if not (readers or joined or rounded) or value.type.dtype is not DType.F32:
            continue
        if isinstance(value.op, Constant | Observer | FakeQuantize) or _on_grid(value):
            continue
        if inherits_grid(value, decisions):
            continue
        if (
            readers
            and not joined
            and all(isinstance(n.op, Concat) for n, _ in readers)
            and len(value.uses) == len(readers)
        ):
            # Read by concats alone: the value takes the grid of what they make.
            continue
        symmetric = any(isinstance(n.op, MatMul) and i == 1 for n, i in _final_readers(value, decisions))
        plan.append((value, ObserverSpec(_key(value), symmetric)))
    return plan


def is_prequantized(graph: Graph) -> bool:
    """Whether the model came with grids for its activations: what it leaves in float then stays float.

    Weights may come with grids alone, from weight-only or dynamic quantization: activations then need ranges still.
    """
    return any(
        isinstance(node.op, FakeQuantize) and not isinstance(node.inputs[0].op, Constant) for node in graph.nodes
    )


def inherits_grid(value: Value, decisions: dict[Node, Decision]) -> bool:
    """Whether a value lies on its producer's input grid because the producer only moves elements."""
    producer = value.producer
    return producer is not None and is_quantized(producer, decisions) and producer.op.rule is Quantization.PRESERVING


def is_quantized(node: Node, decisions: dict[Node, Decision]) -> bool:
    """Whether the decision for ``node`` is quantized."""
    decision = decisions.get(node)
    return decision is not None and decision.precision is Precision.QUANTIZED


def activation_operands(node: Node) -> tuple[int, ...]:
    """Positions of the operands that a quantized node reads as int8 activations."""
    match node.op.rule:
        case Quantization.WEIGHTED:
            names = type(node.op).operands
            residual = operand_index(type(node.op), "residual") if "residual?" in names else len(names)
            return (0, residual) if len(node.inputs) > residual else (0,)
        case Quantization.NORMALIZATION:
            return (0,)
        case Quantization.PRESERVING:
            return (0,)
        case _:
            return tuple(range(len(node.inputs)))


def _is_normalized_in_float(node: Node, candidates: Mapping[Node, str]) -> bool:
    """Whether a sum, of a residual stream usually, goes to a layer norm that stays in float."""
    return isinstance(node.op, Add) and any(
        isinstance(user.op, LayerNorm) and user not in candidates for user in node.output.users
    )


def _rounds(node: Node, decisions: dict[Node, Decision]) -> bool:
    """Whether a quantized node must store int8 even where only float reads it: its sum or clamp ends in rounding."""
    if not is_quantized(node, decisions):
        return False
    clamped = getattr(node.op, "clamp", None) is not None
    residual = node.op.rule is Quantization.WEIGHTED and len(activation_operands(node)) > 1
    return clamped or residual or node.op.rule is Quantization.ARITHMETIC


def _key(value: Value) -> str:
    """The name a user knows a value by: its own name is derived from the user's model at import.

    The numbers made of an image are what the model knew as its input, so ranges serve with and without `image-input`.
    """
    if isinstance(value.op, NormalizeImage) and value.producer is not None:
        return value.producer.inputs[0].name
    return value.name


def _reads_grid(node: Node, position: int, decisions: dict[Node, Decision]) -> bool:
    marks = isinstance(node.op, Observer | FakeQuantize)
    return not marks and is_quantized(node, decisions) and position in activation_operands(node)


def _on_grid(value: Value) -> bool:
    """Whether the value's grid is known or being observed: everybody reads it through that."""
    return bool(value.users) and all(isinstance(user.op, FakeQuantize | Observer) for user in value.users)


def _final_readers(value: Value, decisions: dict[Node, Decision]) -> Iterator[tuple[Node, int]]:
    """The readers of a value, looking through ops that only move elements."""
    for node, position in value.uses:
        yield node, position
        if is_quantized(node, decisions) and node.op.rule is Quantization.PRESERVING and position == 0:
            yield from _final_readers(node.output, decisions)


def _obstacle(node: Node, keep_float: Sequence[str]) -> str | None:
    """Why a node cannot become integer, or None."""
    rule = node.op.rule
    if is_named(node, keep_float):
        return "kept in float by request"
    if isinstance(node.op, Recurrence):
        return "an error in a state would be there in every later step"
    if isinstance(node.op, NormalizeImage):
        return "one kernel with the quantization of its result"
    if rule is Quantization.FLOAT or isinstance(node.op, Quantize | Dequantize):
        return f"{node.op.name} has no integer form"
    if isinstance(node.op, Constant):
        return "a constant takes the form its reader wants"
    if any(v.type.dtype is not DType.F32 for v in node.outputs) or node.inputs[0].type.dtype is not DType.F32:
        return "not a float32 activation"
    return _operand_obstacle(node)


def _operand_obstacle(node: Node) -> str | None:
    """Why the operands or attributes of an op that has an integer form do not fit it, or None."""
    match node.op:
        case Conv(stride=stride) | ConvTranspose(stride=stride) if len(stride) > 2:
            return f"{len(stride)}-d convolutions have no integer kernel"
        case LayerNorm():
            if not all(isinstance(v.op, Constant) for v in node.inputs[1:]):
                return "scale and bias are not constant"
            return _sum_obstacle(node, node.op.rank)
        case Softmax(axis=axis) if node.inputs[0].type.shape[axis] == 1:
            return "a softmax over one element"
        case Softmax(axis=axis) if not isinstance(node.inputs[0].type.shape[axis], int):
            return "the summed dimension is not fixed"
        case AvgPool() | MaxPool() if len(node.op.kernel) > 2:
            return f"{len(node.op.kernel)}-d pooling has no integer kernel"
        case Resize(mode="cubic"):
            return "cubic resampling overshoots the input's range"
        case Resize() if node.op.size[:2] != node.inputs[0].type.shape[:2]:
            return "resampling of batch or channels"
        case Gather() if not node.inputs[0].type.dtype.is_float:
            return "gathers integers"
        case Binary() if all(isinstance(v.op, Constant) for v in node.inputs):
            return "both operands are constant"
        case Binary() if any(map(_mixes_masks, node.inputs)):
            return "a constant holds a mask and other numbers, and int8 has no room for both"
        case _ if node.op.rule is Quantization.WEIGHTED:
            return _weight_obstacle(node)
        case _:
            return None


def _sum_obstacle(node: Node, trailing: int) -> str | None:
    count = 1
    for size in node.inputs[0].type.shape[-trailing:]:
        if not isinstance(size, int):
            return "the summed dimensions are not fixed"
        count *= size
    return "sums over too many elements for int32" if count > MAX_SUMMED else None


def _weight_obstacle(node: Node) -> str | None:
    parameters = node.inputs[1:3]
    if not isinstance(constant_source(parameters[0]).op, Constant):
        return "the weight is computed at run time"
    if len(parameters) > 1 and not isinstance(constant_source(parameters[1]).op, Constant):
        return "the bias is computed at run time"
    return None


def _mixes_masks(value: Value) -> bool:
    """Whether a constant is a mask, of minus infinity say, that holds finite numbers other than 0 as well."""
    if not isinstance(value.op, Constant):
        return False
    data = value.op.data.numpy()
    masks = np.abs(data) >= MASK_MAGNITUDE
    return bool(masks.any() and data[~masks].any())


def constant_source(value: Value) -> Value:
    """The value behind fake quantization or a dequantize."""
    while isinstance(value.op, FakeQuantize | Dequantize) and value.producer is not None:
        value = value.producer.inputs[0]
    return value


def _islands(candidates: dict[Node, str]) -> Iterable[list[Node]]:
    """Connected components of candidate nodes, linked by the values they pass on."""
    seen: set[Node] = set()
    for start in candidates:
        if start in seen:
            continue
        island, stack = [], [start]
        seen.add(start)
        while stack:
            node = stack.pop()
            island.append(node)
            for neighbour in _neighbours(node):
                if neighbour in candidates and neighbour not in seen:
                    seen.add(neighbour)
                    stack.append(neighbour)
        yield island


def _neighbours(node: Node) -> Iterator[Node]:
    for position in activation_operands(node):
        producer = node.inputs[position].producer
        if producer is not None:
            yield producer
    for value in node.outputs:
        for user, position in value.uses:
            if position in activation_operands(user):
                yield user


def _keeps_its_weights(node: Node) -> bool:
    """Whether a layer came with integer weights, from dynamic or weight-only quantization."""
    return node.op.rule is Quantization.WEIGHTED and isinstance(node.inputs[1].op, FakeQuantize)


def _island_decision(node: Node, works: bool, reason: str) -> Decision:
    rule = node.op.rule.value
    if works:
        return Decision(Precision.QUANTIZED, rule, reason)
    return Decision(Precision.FLOAT, rule, "no multiply-accumulate work beside it: converting would cost more")
