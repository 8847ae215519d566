"""Quantized models as they are imported become fake-quantized float graphs, the form that the freeze reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..ir.graph import Graph, Node, Value
from ..ir.op import Quantization
from ..ir.ops.constant import Constant
from ..ir.ops.quantize import Dequantize, FakeQuantize, Quantize, dequantize_array, integer_range
from ..ir.types import DType, QuantParams
from .base import Exactness, Pass, PassContext
from .registry import register_pass
from .rewriting import Rewriter, pattern, rewrite

SHIFT = {DType.I8: 0, DType.U8: 128}
"""What to subtract from stored values to get them as signed bytes."""


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
        return rewrite(graph, (sink_quantize, sink_dequantize, pair_to_fake, weight_to_fake), context)


@pattern(Dequantize)
def pair_to_fake(node: Node, rewriter: Rewriter) -> bool:
    """dequantize(quantize(x)) rounds x to a grid."""
    match node.inputs[0].op:
        case Quantize(dtype=dtype, quant=quant) if dtype in SHIFT and quant.axis is None:
            source = node.inputs[0].producer
            assert source is not None
            return rewriter.replace(node, _fake(rewriter, source.inputs[0], dtype, quant))
        case Quantize():
            return rewriter.note(node, "only per-tensor int8 and uint8 activations have integer kernels")
        case _:
            return False


@pattern(Dequantize)
def weight_to_fake(node: Node, rewriter: Rewriter) -> bool:
    """Bytes of a constant become the real numbers they mean, behind the grid they lie on."""
    stored = node.inputs[0]
    if not isinstance(stored.op, Constant) or stored.type.dtype not in SHIFT or stored.type.quant is None:
        return False
    real = dequantize_array(stored.op.data.numpy(), stored.type.quant)
    constant = rewriter.constant(real, stored.name)
    return rewriter.replace(node, _fake(rewriter, constant, stored.type.dtype, stored.type.quant))


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


def _fake(rewriter: Rewriter, value: Value, dtype: DType, quant: QuantParams) -> Value:
    """``value`` on the grid of stored ``dtype`` with ``quant``, as signed bytes."""
    low, high = (bound - SHIFT[dtype] for bound in integer_range(dtype))
    zero = quant.zero_point_array().astype(np.float32) - SHIFT[dtype]
    scale = quant.scale_array()
    if quant.axis is None:
        scale, zero = scale.reshape(()), zero.reshape(())
    parameters = (rewriter.constant(scale, f"{value.name}.scale"), rewriter.constant(zero, f"{value.name}.zero_point"))
    return rewriter.insert(FakeQuantize(low, high, quant.axis), value, *parameters)
