"""Quantized models as they are imported become fake-quantized float graphs, the form that the freeze reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..ir.constants import Tensor
from ..ir.graph import Graph, Node, Value
from ..ir.op import Quantization
from ..ir.ops.constant import Constant
from ..ir.ops.dynamic import AsQuantized
from ..ir.ops.elementwise import Add
from ..ir.ops.quantize import Dequantize, Quantize, dequantize_array
from ..ir.ops.shape import Gather
from ..ir.types import QuantParams, per_tensor
from .base import Exactness, Pass, PassContext
from .grids import SHIFT, fake_quantized, weight_on_grid
from .registry import register_pass
from .rewriting import Rewriter, pattern, rewrite


@register_pass
@dataclass(frozen=True)
class FoldQdq(Pass):
    """Turn quantize / dequantize pairs and integer weights of an imported model into fake quantization.

    Unsigned bytes become signed ones with the zero point moved by 128; real numbers stay what they are. Integer biases
    stay as they are: the freeze takes them over exactly.
    """

    name: ClassVar[str] = "fold-qdq"
    exactness: ClassVar[Exactness] = Exactness.CLOSE

    def apply(self, graph: Graph, context: PassContext) -> bool:
        return rewrite(graph, (sink_quantize, sink_dequantize, pair_to_fake, weight_to_fake, rows_of_bytes), context)


@pattern(Dequantize)
def pair_to_fake(node: Node, rewriter: Rewriter) -> bool:
    """dequantize(quantize(x)) rounds x to a grid."""
    match node.inputs[0].op:
        case Quantize(dtype=dtype, quant=quant) if dtype in SHIFT and quant.axis is None:
            source = node.inputs[0].producer
            assert source is not None
            return rewriter.replace(node, fake_quantized(rewriter, source.inputs[0], dtype, quant))
        case Quantize():
            return rewriter.note(node, "only per-tensor int8 and uint8 activations have integer kernels")
        case _:
            return False


@pattern(Dequantize)
def weight_to_fake(node: Node, rewriter: Rewriter) -> bool:
    """Bytes of a constant become the real numbers they mean, behind the grid they lie on."""
    stored = node.inputs[0]
    if not isinstance(stored.op, Constant) or stored.type.quant is None:
        return False
    array, quant = stored.op.data.numpy(), stored.type.quant
    if all(_is_parameter(user, position) for user, position in node.output.uses):
        return rewriter.replace(node, rewriter.constant(dequantize_array(array, quant), stored.name))
    if stored.type.dtype not in SHIFT and any(map(_may_be_bias, node.output.users)):
        return False
    if any(user.op.rule is Quantization.WEIGHTED and position == 1 for user, position in node.output.uses):
        return rewriter.replace(node, weight_on_grid(rewriter, array, quant, stored.name))
    constant = rewriter.constant(dequantize_array(array, quant), stored.name)
    if not _has_a_grid(stored):
        return rewriter.replace(node, constant)
    return rewriter.replace(node, fake_quantized(rewriter, constant, stored.type.dtype, quant))


def _is_parameter(user: Node, position: int) -> bool:
    """Whether an operand is read as real numbers: a norm's scale, say, or what an op without integer form reads."""
    rule = user.op.rule
    return rule is Quantization.FLOAT or (rule is Quantization.NORMALIZATION and position > 0)


def _has_a_grid(stored: Value) -> bool:
    """Whether a constant is bytes on one grid, which an integer op may read."""
    quant = stored.type.quant
    return stored.type.dtype in SHIFT and quant is not None and quant.axis is None


def _may_be_bias(user: Node) -> bool:
    return user.op.rule is Quantization.WEIGHTED or isinstance(user.op, Add)


@pattern(Dequantize)
def rows_of_bytes(node: Node, rewriter: Rewriter) -> bool:
    """Rows of an integer table, an embedding mostly, have the grid of the table: signed bytes, which kernels read."""
    named = node.inputs[0].producer
    if named is None or not isinstance(named.op, AsQuantized) or named.op.quant.axis is not None:
        return False
    rows = named.inputs[0].producer
    if rows is None or not isinstance(rows.op, Gather) or not isinstance(rows.inputs[0].op, Constant):
        return False
    data, shift = rows.inputs[0].op.data.numpy(), SHIFT.get(rows.inputs[0].type.dtype)
    if shift is None:
        return rewriter.note(node, "a table of neither int8 nor uint8")
    quant = named.op.quant
    signed = Constant(Tensor.of((data.astype(np.int16) - shift).astype(np.int8)), _shifted(quant, shift))
    table = rewriter.insert(signed, origin=rows.origin, name=rows.inputs[0].name)
    picked = rewriter.insert(rows.op, table, rows.inputs[1], origin=rows.origin)
    return rewriter.replace(node, rewriter.insert(node.op, picked))


def _shifted(quant: QuantParams, shift: int) -> QuantParams:
    return per_tensor(quant.scale[0], quant.zero_point[0] - shift)


@pattern()
def sink_quantize(node: Node, rewriter: Rewriter) -> bool:
    """An op that moves bytes moves real numbers, and quantizes them afterwards."""
    if node.op.rule is not Quantization.PRESERVING or not node.inputs or len(node.outputs) != 1:
        return False
    producer = node.inputs[0].producer
    if producer is None or not isinstance(producer.op, Quantize) or producer.op.quant.axis is not None:
        return False
    if getattr(node.op, "value", 0.0) != 0.0:
        return rewriter.note(node, "pads with a stored value")
    moved = rewriter.insert(node.op, producer.inputs[0], *node.inputs[1:])
    return rewriter.replace(node, rewriter.insert(producer.op, moved))


@pattern()
def sink_dequantize(node: Node, rewriter: Rewriter) -> bool:
    """A concat of bytes on one grid is a concat of real numbers."""
    if node.op.rule is not Quantization.JOINING or not node.inputs:
        return False
    producers = [v.producer for v in node.inputs]
    ops = {p.op if p else None for p in producers}
    first = next(iter(ops))
    if len(ops) != 1 or not isinstance(first, Quantize):
        return False
    joined = rewriter.insert(node.op, *(p.inputs[0] for p in producers if p))
    return rewriter.replace(node, rewriter.insert(first, joined))
