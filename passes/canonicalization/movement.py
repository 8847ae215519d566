"""Ops that move elements: what changes nothing goes, and chains become one."""

from __future__ import annotations

import itertools
import operator

from ...ir.graph import Node, Value
from ...ir.ops.cast import Cast, Identity, Where
from ...ir.ops.elementwise import Add, Mul, Sub
from ...ir.ops.shape import Concat, Expand, Pad, Reshape, Slice, Transpose
from ...ir.types import Dim, Shape
from ..analysis import scalar_of, used_once
from ..rewriting import Rewriter, pattern


@pattern(Identity)
def identity(node: Node, rewriter: Rewriter) -> bool:
    """Identity -> nothing. Dropout is an identity in a network that is not trained."""
    return rewriter.replace(node, node.inputs[0])


@pattern(Cast, Reshape, Transpose, Slice, Pad, Expand, Concat)
def no_op(node: Node, rewriter: Rewriter) -> bool:
    """A movement or cast that changes nothing -> nothing."""
    if len(node.inputs) != 1 or node.output.type != node.inputs[0].type:
        return False
    match node.op:
        case Transpose(permutation=permutation) if list(permutation) != sorted(permutation):
            return False
        case Slice(steps=steps) if min(steps, default=1) < 0:
            return False
        case Pad(padding=padding) if any(map(any, padding)):
            # It crops on one side what it adds on the other.
            return False
        case _:
            return rewriter.replace(node, node.inputs[0])


@pattern(Reshape)
def reshape_of_reshape(node: Node, rewriter: Rewriter) -> bool:
    """Reshape of a reshape -> the last one."""
    producer = node.inputs[0].producer
    if producer is None or not isinstance(producer.op, Reshape):
        return False
    return rewriter.replace(node, rewriter.insert(node.op, producer.inputs[0]))


@pattern(Transpose)
def transpose_of_transpose(node: Node, rewriter: Rewriter) -> bool:
    """Transpose of a transpose -> one."""
    producer = node.inputs[0].producer
    if producer is None or not isinstance(producer.op, Transpose) or not isinstance(node.op, Transpose):
        return False
    inner, outer = producer.op.permutation, node.op.permutation
    merged = Transpose(tuple(inner[axis] for axis in outer))
    return rewriter.replace(node, rewriter.insert(merged, producer.inputs[0]))


@pattern(Transpose)
def transpose_around_reshape(node: Node, rewriter: Rewriter) -> bool:
    """Transpose of a reshape of a transpose -> one transpose of smaller axes between two reshapes.

    So windows and patches are cut out of images, and put together again, by moving elements once.
    """
    reshape = node.inputs[0].producer
    first = reshape.inputs[0].producer if reshape is not None and isinstance(reshape.op, Reshape) else None
    if first is None or not isinstance(first.op, Transpose) or not isinstance(node.op, Transpose):
        return False
    if not (used_once(node.inputs[0]) and used_once(first.output)):
        return False
    sizes, *numbers = common_parts(first.output.type.shape, node.inputs[0].type.shape)
    if not sizes:
        return rewriter.note(
            node, "the axes on both sides of the reshape between two transposes have no parts in common"
        )
    before, after = numbers
    source: list[list[int]] = [[] for _ in before]
    for axis, parts in zip(first.op.permutation, before, strict=True):
        source[axis] = parts
    given = [part for parts in source for part in parts]
    wanted = [part for axis in node.op.permutation for part in after[axis]]
    split = rewriter.insert(Reshape(tuple(sizes[part] for part in given)), first.inputs[0])
    moved = rewriter.insert(Transpose(tuple(given.index(part) for part in wanted)), split)
    return rewriter.replace(node, rewriter.insert(Reshape(node.output.type.shape), moved))


def common_parts(one: Shape, other: Shape) -> tuple[list[int], list[list[int]], list[list[int]]]:
    """The largest axes that both shapes of the same elements consist of.

    Their sizes, and which of them make up each axis of either shape: none for an axis of size 1. No sizes when there
    are no such axes, or a size is not fixed.
    """
    ends: list[list[int]] = []
    for shape in (one, other):
        known = [size for size in shape if isinstance(size, int) and size > 0]
        if len(known) != len(shape):
            return [], [], []
        ends.append(list(itertools.accumulate(known, operator.mul)))
    cuts = sorted({1, *ends[0], *ends[1]})
    if any(high % low for low, high in itertools.pairwise(cuts)):
        return [], [], []
    parts = [
        [list(range(cuts.index(low), cuts.index(high))) for low, high in itertools.pairwise([1, *places])]
        for places in ends
    ]
    return [high // low for low, high in itertools.pairwise(cuts)], parts[0], parts[1]


@pattern(Transpose)
def transpose_of_ones(node: Node, rewriter: Rewriter) -> bool:
    """Transpose that moves only axes of size 1 -> reshape."""
    assert isinstance(node.op, Transpose)
    shape = node.inputs[0].type.shape
    moved = [axis for axis in node.op.permutation if shape[axis] != 1]
    if moved != sorted(moved) or sum(isinstance(d, Dim) for d in shape) > 1:
        return False
    return rewriter.replace(node, rewriter.insert(Reshape(node.output.type.shape), node.inputs[0]))


@pattern(Pad)
def pad_of_pad(node: Node, rewriter: Rewriter) -> bool:
    """Consecutive constant pads of one value -> one."""
    producer = node.inputs[0].producer
    match node.op, producer and producer.op:
        case Pad(outer, value, "constant"), Pad(inner, other, "constant") if value == other:
            if min(amount for pair in (*outer, *inner) for amount in pair) < 0:
                return rewriter.note(node, "a pad crops")
            assert producer is not None
            total = tuple((a[0] + b[0], a[1] + b[1]) for a, b in zip(inner, outer, strict=True))
            return rewriter.replace(node, rewriter.insert(Pad(total, value), producer.inputs[0]))
        case _:
            return False


@pattern(Concat)
def concat_of_one(node: Node, rewriter: Rewriter) -> bool:
    """Concat of a single part -> the part."""
    return len(node.inputs) == 1 and rewriter.replace(node, node.inputs[0])


@pattern(Concat)
def concat_of_concat(node: Node, rewriter: Rewriter) -> bool:
    """Concat of a concat along the same axis that has no other use -> one concat."""
    parts: list[Value] = []
    for value in node.inputs:
        inner = value.producer
        flat = inner is not None and inner.op == node.op and used_once(value)
        parts += inner.inputs if flat and inner else [value]
    if len(parts) == len(node.inputs):
        return False
    return rewriter.replace(node, rewriter.insert(node.op, *parts))


@pattern(Add, Mul, Sub)
def expanded_operand(node: Node, rewriter: Rewriter) -> bool:
    """Elementwise op of an expanded operand -> of the operand itself, which broadcasts."""
    for position, value in enumerate(node.inputs):
        producer = value.producer
        if producer is None or not isinstance(producer.op, Expand):
            continue
        operands = [producer.inputs[0] if i == position else v for i, v in enumerate(node.inputs)]
        if node.op.infer(*(v.type for v in operands)) == (node.output.type,):
            return rewriter.set_input(node, position, producer.inputs[0])
    return False


@pattern(Where)
def where_of_constant(node: Node, rewriter: Rewriter) -> bool:
    """Where with a condition that is all true or all false -> one branch, if it has the whole shape."""
    condition = scalar_of(node.inputs[0])
    if condition is None:
        return False
    chosen = node.inputs[1 if condition else 2]
    return chosen.type == node.output.type and rewriter.replace(node, chosen)


PATTERNS = (
    identity,
    no_op,
    reshape_of_reshape,
    transpose_of_transpose,
    transpose_around_reshape,
    transpose_of_ones,
    pad_of_pad,
    concat_of_one,
    concat_of_concat,
    expanded_operand,
    where_of_constant,
)
