"""Fold batch normalization, and any per-channel scale and shift, into the weights of a neighbour.

After a convolution, transposed convolution or linear layer ``y = a * (W x + b) + c`` becomes ``(a W) x + (a b + c)``.
Before one, ``W (a x + c) + b`` becomes ``(W a) x + (W c + b)``, unless the layer pads: the border is zero after the
shift, not before it. All folding is done in float64 and rounded once.

A batch norm behind an activation that scales with its input (relu, leaky relu, pooling) first hands the magnitudes of
its factors to the layer before the activation: ``a * relu(W x + b) = sign(a) * relu(|a| W x + |a| b)``. Otherwise the
channels between them would share one int8 grid although their ranges differ as much as the factors do (as in
cross-layer equalization, Nagel et al., 2019).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..ir.errors import PassError
from ..ir.graph import Graph, Node, Value
from ..ir.ops.conv import Conv, ConvTranspose
from ..ir.ops.elementwise import Add, Div, LeakyRelu, Mul, Relu, Sub
from ..ir.ops.matmul import Linear
from ..ir.ops.norm import BatchNorm
from ..ir.ops.pool import AvgPool, MaxPool
from .analysis import array_of, has_residual, per_channel_array, used_once
from .base import Exactness, Pass, PassContext
from .registry import register_pass
from .rewriting import Rewriter, pattern, rewrite

Layer = Conv | ConvTranspose | Linear
_HOMOGENEOUS = (Relu, LeakyRelu, MaxPool, AvgPool)


@dataclass(frozen=True)
class _Affine:
    """``factor * x + shift`` per channel, in float64, computed ``of`` constants that training might change."""

    factor: np.ndarray
    shift: np.ndarray
    of: tuple[Value, ...] = ()


@register_pass
@dataclass(frozen=True)
class FoldBatchnorm(Pass):
    """Fold batch norms and per-channel scales and shifts into the weights beside them.

    A batch norm with no layer to take it becomes a depthwise 1x1 convolution, which takes the scales and shifts behind
    it, or a multiply and an add where there are no spatial dimensions.
    """

    name: ClassVar[str] = "fold-batchnorm"
    exactness: ClassVar[Exactness] = Exactness.CLOSE

    def apply(self, graph: Graph, context: PassContext) -> bool:
        folded = rewrite(graph, (scale_through_activation, after_layer, before_layer), context)
        # What scales a batch norm that became a layer itself is folded like that of any layer.
        return rewrite(graph, (standalone, after_layer), context) or folded


@pattern(BatchNorm, Mul, Add, Sub, Div)
def after_layer(node: Node, rewriter: Rewriter) -> bool:
    """Scale and shift of a layer's output -> the layer."""
    source = _layer_operand(node)
    if source is None:
        return False
    producer, value = source
    affine = _affine_of(node, value, -1 if isinstance(producer.op, Linear) else 1)
    if affine is None:
        return False
    if not used_once(value):
        return rewriter.note(node, f"the output of {producer.where} has other uses")
    layer = producer.op
    assert isinstance(layer, Layer)
    if layer.clamp is not None or has_residual(producer):
        return rewriter.note(node, f"{producer.where} has a fused activation or residual already")
    scaled = _scaled_layer(rewriter, producer, affine, getattr(node.op, "clamp", None))
    if scaled is None:
        return rewriter.note(node, f"the weights of {producer.where} are not constant")
    return rewriter.replace(node, scaled)


@pattern(BatchNorm)
def scale_through_activation(node: Node, rewriter: Rewriter) -> bool:
    """Factors of a batch norm behind a relu or pooling -> the layer before that; their signs stay."""
    chain = _homogeneous_chain(node.inputs[0])
    producer = (chain[-1].inputs[0] if chain else node.inputs[0]).producer
    if not chain or producer is None or not isinstance(producer.op, Layer) or not used_once(producer.output):
        return False
    affine = _affine_of(node, node.inputs[0], 1)
    if affine is None or producer.output.type.rank != node.output.type.rank:
        return False
    if producer.op.clamp is not None or has_residual(producer):
        return rewriter.note(node, f"{producer.where} has a fused activation or residual already")
    magnitude = np.where(affine.factor == 0.0, 1.0, np.abs(affine.factor))
    if np.all(magnitude == 1.0):
        return False
    scaled = _scaled_layer(rewriter, producer, _Affine(magnitude, np.zeros_like(magnitude), affine.of))
    if scaled is None:
        return rewriter.note(node, f"the weights of {producer.where} are not constant")
    rewriter.inherit(scaled, producer.output)
    for link in reversed(chain):
        scaled = rewriter.inherit(rewriter.insert(link.op, scaled, origin=link.origin), link.output)
    dtype, ones = node.output.type.dtype.numpy, np.ones_like(magnitude)
    parameters = [
        rewriter.constant(part.astype(dtype), instead=former)
        for part, former in zip((np.sign(affine.factor), affine.shift, 0 * ones, ones), node.inputs[1:], strict=True)
    ]
    return rewriter.replace(node, rewriter.insert(BatchNorm(0.0), scaled, *parameters))


@pattern(Conv, Linear)
def before_layer(node: Node, rewriter: Rewriter) -> bool:
    """Batch norm -> the layer that reads it."""
    normalized = node.inputs[0]
    norm = normalized.producer
    if norm is None or not isinstance(norm.op, BatchNorm):
        return False
    layer, weight = node.op, array_of(node.inputs[1])
    bias = None if weight is None else _bias_of(node, len(weight))
    affine = _affine_of(norm, norm.inputs[0], 1)
    if affine is None or weight is None or bias is None:
        return rewriter.note(node, "weights or normalization parameters are not constant")
    if not used_once(normalized):
        return rewriter.note(node, f"the output of {norm.where} has other uses")
    if isinstance(layer, Linear) and node.inputs[0].type.rank != 2:
        return rewriter.note(node, "the batch norm is along another axis than the linear layer")
    if isinstance(layer, Conv) and np.any(affine.shift) and any(map(any, layer.padding)):
        return rewriter.note(node, "the convolution pads with zeros, which the batch norm would shift")
    groups = layer.groups if isinstance(layer, Conv) else 1
    taps = (1,) * (weight.ndim - 2)
    # Output channel o of group g reads the input channels of group g only.
    outputs = weight.shape[0] // groups
    factor, shift = (np.repeat(part.reshape(groups, -1), outputs, axis=0) for part in (affine.factor, affine.shift))
    wide = weight.astype(np.float64)
    moved = (wide * shift.reshape(*shift.shape, *taps)).reshape(len(wide), -1).sum(1)
    scaled = wide * factor.reshape(*factor.shape, *taps)
    parameters = _parameters(rewriter, node, scaled, bias + moved, affine.of)
    return rewriter.replace(node, rewriter.insert(layer, norm.inputs[0], *parameters, *node.inputs[3:]))


@pattern(BatchNorm)
def standalone(node: Node, rewriter: Rewriter) -> bool:
    """A batch norm alone -> a depthwise 1x1 convolution, or mul and add."""
    x = node.inputs[0]
    affine = _affine_of(node, x, 1)
    if affine is None:
        return rewriter.note(node, "its parameters are not constant")
    spatial = x.type.rank - 2
    if spatial in (1, 2, 3):
        depthwise = Conv((1,) * spatial, ((0, 0),) * spatial, (1,) * spatial, groups=len(affine.factor))
        weight = affine.factor.reshape(-1, 1, *[1] * spatial)
        parameters = _parameters(rewriter, node, weight, affine.shift, affine.of)
        return rewriter.replace(node, rewriter.insert(depthwise, x, *parameters))
    shape = (-1, *[1] * spatial)
    factor, shift = _parameters(rewriter, node, affine.factor.reshape(shape), affine.shift.reshape(shape), affine.of)
    return rewriter.replace(node, rewriter.insert(Add(), rewriter.insert(Mul(), x, factor), shift))


def _layer_operand(node: Node) -> tuple[Node, Value] | None:
    """The layer whose output ``node`` scales or shifts, and that output."""
    # A commutative op may have its constant on either side; sub and div only on the right.
    candidates = node.inputs if isinstance(node.op, Mul | Add) else node.inputs[:1]
    for value in candidates:
        if value.producer and isinstance(value.op, Layer):
            return value.producer, value
    return None


def _affine_of(node: Node, x: Value, axis: int) -> _Affine | None:
    """``node`` as a scale and shift per channel of its operand ``x``; None when it is something else."""
    axis %= x.type.rank
    channels = x.type.shape[axis]
    if not isinstance(channels, int) or node.output.type != x.type:
        return None
    if isinstance(node.op, BatchNorm):
        return _affine_of_batch_norm(node) if axis == 1 else None
    other = node.inputs[1] if node.inputs[0] is x else node.inputs[0]
    array = per_channel_array(other, channels, axis, x.type.rank)
    if array is None:
        return None
    c = array.astype(np.float64)
    one, zero = np.ones(channels), np.zeros(channels)
    match node.op:
        case Mul():
            return _Affine(c, zero, (other,))
        case Add():
            return _Affine(one, c, (other,))
        case Sub():
            return _Affine(one, -c, (other,))
        case Div() if c.all():
            return _Affine(1.0 / c, zero, (other,))
        case _:
            return None


def _affine_of_batch_norm(node: Node) -> _Affine | None:
    assert isinstance(node.op, BatchNorm)
    arrays = [array_of(v) for v in node.inputs[1:]]
    scale, bias, mean, variance = (None if a is None else a.astype(np.float64) for a in arrays)
    if scale is None or bias is None or mean is None or variance is None:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = scale / np.sqrt(variance + node.op.epsilon)
        shift = bias - mean * factor
    if not (np.isfinite(factor).all() and np.isfinite(shift).all()):
        raise PassError(
            "the parameters of a batch norm are not finite",
            where=node.where,
            expected="finite scale, bias and mean, and a variance above -epsilon",
        )
    return _Affine(factor, shift, node.inputs[1:3])


def _homogeneous_chain(value: Value) -> list[Node]:
    """The nodes above ``value``, last first, that commute with scaling a channel by a positive number."""
    chain: list[Node] = []
    while (node := value.producer) and isinstance(node.op, _HOMOGENEOUS) and used_once(value):
        chain.append(node)
        value = node.inputs[0]
    return chain


def _scaled_layer(
    rewriter: Rewriter, producer: Node, affine: _Affine, clamp: tuple[float, float] | None = None
) -> Value | None:
    """The output of a copy of a layer whose output is scaled and shifted; None if its weights are not constant."""
    layer, weight, bias = producer.op, array_of(producer.inputs[1]), _bias_of(producer, len(affine.factor))
    assert isinstance(layer, Layer)
    if weight is None or bias is None:
        return None
    scaled = weight.astype(np.float64) * _along_outputs(layer, weight, affine.factor)
    parameters = _parameters(rewriter, producer, scaled, bias * affine.factor + affine.shift, affine.of)
    op = dataclasses.replace(layer, clamp=clamp)
    return rewriter.insert(op, producer.inputs[0], *parameters, origin=producer.origin)


def _along_outputs(layer: Layer, weight: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """One factor per output channel, shaped to multiply the weight of ``layer``."""
    if not isinstance(layer, ConvTranspose):
        return factor.reshape(-1, *[1] * (weight.ndim - 1))
    # The weight is (C, O / groups, *kernel), and input channel c belongs to group c // (C / groups).
    per_group = np.repeat(factor.reshape(layer.groups, -1), weight.shape[0] // layer.groups, axis=0)
    return per_group.reshape(*per_group.shape, *[1] * (weight.ndim - 2))


def _bias_of(node: Node, channels: int) -> np.ndarray | None:
    if len(node.inputs) < 3:
        return np.zeros(channels)
    array = array_of(node.inputs[2])
    return None if array is None else array.astype(np.float64)


def _parameters(
    rewriter: Rewriter, owner: Node, weight: np.ndarray, bias: np.ndarray, of: tuple[Value, ...]
) -> tuple[Value, Value]:
    """Constants for a weight and a bias, of the element type of the owner, computed from its own and ``of`` others."""
    dtype = owner.output.type.dtype.numpy
    former: list[Value | None] = list(owner.inputs[1:3]) if isinstance(owner.op, Layer) else []
    old_weight, old_bias = [*former, None, None][:2]
    return (
        rewriter.constant(weight.astype(dtype), "weight", origin=owner.origin, instead=old_weight, of=of),
        rewriter.constant(bias.astype(dtype), "bias", origin=owner.origin, instead=old_bias, of=of),
    )
