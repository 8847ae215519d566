"""Fuse what can be part of another op's epilogue or window: padding, residual additions, activations, in this order.

A residual joins the convolution or linear layer that makes the *later* of the two summands: its kernel runs last and
finds the other summand ready. The layer must have no activation of its own and no other use. An activation
(:class:`Relu`, :class:`Clamp`) then becomes the ``clamp`` of the op before it, residual included.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..ir.graph import Graph, Node, Value
from ..ir.ops.conv import Conv, ConvTranspose, Padding
from ..ir.ops.elementwise import Add, Clamp, HardSigmoid, Mul, Relu, Sigmoid
from ..ir.ops.matmul import Linear
from ..ir.ops.norm import LayerNorm, Softmax
from ..ir.ops.pool import AvgPool, MaxPool, Window
from ..ir.ops.shape import Pad
from .analysis import has_residual, used_once
from .base import Exactness, Pass, PassContext
from .registry import register_pass
from .rewriting import RewritePattern, Rewriter, pattern, rewrite

Bounds = tuple[float, float]
UNBOUNDED: Bounds = (-math.inf, math.inf)


@register_pass
@dataclass(frozen=True)
class Fuse(Pass):
    """Fuse padding, residual additions and activations into convolutions, linear layers, pools, add and mul."""

    padding: bool = True
    residual: bool = True
    activation: bool = True

    name: ClassVar[str] = "fuse"
    exactness: ClassVar[Exactness] = Exactness.CLOSE

    def apply(self, graph: Graph, context: PassContext) -> bool:
        changed = False
        if self.padding:
            changed |= rewrite(graph, (pad_into_conv, pad_into_avg_pool, pad_into_max_pool), context)
        if self.residual:
            changed |= rewrite(graph, (residual_pattern(graph),), context)
        if self.activation:
            changed |= rewrite(graph, (activation,), context)
        return changed


# Activation --------------------------------------------------------------------------------------------------------


@pattern(Relu, Clamp)
def activation(node: Node, rewriter: Rewriter) -> bool:
    """Relu or clamp -> the clamp of the op before it."""
    value = node.inputs[0]
    producer = value.producer
    if producer is None or not isinstance(producer.op, Conv | ConvTranspose | Linear | Add | Mul):
        return False
    if not value.type.dtype.is_float:
        return rewriter.note(node, f"{value.type.dtype.value} is no float type")
    if not used_once(value):
        return rewriter.note(node, f"the output of {producer.where} has other uses")
    clamp = compose(producer.op.clamp or UNBOUNDED, bounds_of(node.op))
    fused = dataclasses.replace(producer.op, clamp=clamp)
    return rewriter.replace(node, rewriter.insert(fused, *producer.inputs, origin=producer.origin))


def bounds_of(op: Relu | Clamp | object) -> Bounds:
    """The bounds of an activation that clamps."""
    match op:
        case Relu():
            return 0.0, math.inf
        case Clamp(low=low, high=high):
            return low, high
        case _:
            return UNBOUNDED


def compose(inner: Bounds, outer: Bounds) -> Bounds:
    """Bounds of clamping to ``inner`` and then to ``outer``: the outer clamp applied to the inner bounds."""
    low, high = (min(max(bound, outer[0]), outer[1]) for bound in inner)
    return low, high


# Residual ----------------------------------------------------------------------------------------------------------


def residual_pattern(graph: Graph) -> RewritePattern:
    """The pattern ``add of a layer's output -> its residual operand``, which knows the order of the layers."""
    order = {node: position for position, node in enumerate(graph.nodes)}

    @pattern(Add)
    def residual(node: Node, rewriter: Rewriter) -> bool:
        candidates = [(v, other) for v, other in (node.inputs, node.inputs[::-1]) if isinstance(v.op, Conv | Linear)]
        fitting = [pair for pair in candidates if _takes_residual(node, *pair, rewriter)]
        if not fitting:
            return False
        value, other = max(fitting, key=lambda pair: order.get(_layer(pair[0]), -1))
        layer = _layer(value)
        assert isinstance(layer.op, Conv | Linear)
        assert isinstance(node.op, Add)
        bias = layer.inputs[2] if len(layer.inputs) > 2 else _zero_bias(layer, rewriter)
        fused = dataclasses.replace(layer.op, clamp=node.op.clamp)
        inputs = (*layer.inputs[:2], bias, other)
        return rewriter.replace(node, rewriter.insert(fused, *inputs, origin=layer.origin))

    return residual


def _layer(value: Value) -> Node:
    assert value.producer is not None
    return value.producer


def _takes_residual(node: Node, value: Value, other: Value, rewriter: Rewriter) -> bool:
    """Whether the layer behind ``value`` can add ``other`` by itself."""
    layer = _layer(value)
    assert isinstance(layer.op, Conv | Linear)
    if layer.op.clamp is not None or has_residual(layer):
        return rewriter.note(node, f"{layer.where} has an activation or a residual already")
    if not used_once(value):
        return rewriter.note(node, f"the output of {layer.where} has other uses")
    if any(isinstance(user.op, LayerNorm) for user in node.output.users):
        return rewriter.note(node, "a layer_norm reads the sum, whose outliers need float")
    if not value.type == other.type == node.output.type:
        return rewriter.note(node, f"{other!r} broadcasts against the output of {layer.where}")
    return True


def _zero_bias(layer: Node, rewriter: Rewriter) -> Value:
    channels = layer.inputs[1].type.static_shape[0]
    dtype = layer.output.type.dtype.numpy
    return rewriter.constant(np.zeros(channels, dtype), "bias", origin=layer.origin)


# Padding -----------------------------------------------------------------------------------------------------------


@pattern(Conv)
def pad_into_conv(node: Node, rewriter: Rewriter) -> bool:
    """Zero padding before a convolution -> its own padding."""
    pad = _padding_before(node, rewriter)
    if pad is None or not isinstance(node.op, Conv):
        return False
    padding, value, source = pad
    if value != 0.0:
        return rewriter.note(node, f"the padding is {value}, not zero")
    return _repad(node, dataclasses.replace(node.op, padding=_sum(node.op.padding, padding)), source, rewriter)


@pattern(AvgPool)
def pad_into_avg_pool(node: Node, rewriter: Rewriter) -> bool:
    """Zero padding before an average pool -> its own padding, counted."""
    pad = _padding_before(node, rewriter)
    if pad is None or not isinstance(node.op, AvgPool):
        return False
    padding, value, source = pad
    pool = node.op
    overhang = pool.overhang or (0,) * len(pool.kernel)
    uncounted = any(before or after - extra for (before, after), extra in zip(pool.padding, overhang, strict=True))
    if value != 0.0:
        return rewriter.note(node, f"the padding is {value}, not zero")
    if uncounted and not pool.count_padding:
        return rewriter.note(node, "the pool's own padding does not count, the other does")
    fused = dataclasses.replace(pool, padding=_sum(pool.padding, padding), count_padding=True)
    return _repad(node, fused, source, rewriter)


@pattern(MaxPool)
def pad_into_max_pool(node: Node, rewriter: Rewriter) -> bool:
    """Padding that never wins before a max pool -> its own padding."""
    pad = _padding_before(node, rewriter)
    if pad is None or not isinstance(node.op, MaxPool):
        return False
    padding, value, source = pad
    total = _sum(node.op.padding, padding)
    if value != -math.inf:
        if not (value <= np.finfo(np.float32).min or (value <= 0.0 and _never_negative(source))):
            return rewriter.note(node, f"the padding {value} may win against elements of {source!r}")
        if any(d != 1 or max(pair) >= k for k, d, pair in zip(node.op.kernel, node.op.dilation, total, strict=True)):
            return rewriter.note(node, "a window may lie in the padding alone")
    return _repad(node, dataclasses.replace(node.op, padding=total), source, rewriter)


def _padding_before(node: Node, rewriter: Rewriter) -> tuple[Padding, float, Value] | None:
    """(spatial padding, fill, what is padded) of a pad before a window; None when it cannot be part of the window."""
    producer = node.inputs[0].producer
    if producer is None or not isinstance(producer.op, Pad):
        return None
    pad = producer.op
    if pad.mode != "constant":
        rewriter.note(node, f"the padding mode is {pad.mode}")
    elif any(map(any, pad.padding[:2])):
        rewriter.note(node, "batch or channels are padded")
    elif min(amount for pair in pad.padding for amount in pair) < 0:
        rewriter.note(node, "the padding crops")
    else:
        return pad.padding[2:], pad.value, producer.inputs[0]
    return None


def _repad(node: Node, op: Conv | Window, source: Value, rewriter: Rewriter) -> bool:
    return rewriter.replace(node, rewriter.insert(op, source, *node.inputs[1:]))


def _sum(a: Padding, b: Padding) -> Padding:
    return tuple((x[0] + y[0], x[1] + y[1]) for x, y in zip(a, b, strict=True))


def _never_negative(value: Value) -> bool:
    match value.op:
        case Relu() | Sigmoid() | HardSigmoid() | Softmax():
            return True
        case Clamp(low=low):
            return low >= 0.0
        case Conv(clamp=(low, _)) | ConvTranspose(clamp=(low, _)) | Linear(clamp=(low, _)):
            return low >= 0.0
        case Add(clamp=(low, _)) | Mul(clamp=(low, _)):
            return low >= 0.0
        case _:
            return False
