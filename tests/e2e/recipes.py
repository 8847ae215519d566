"""Layers that random graphs are made of: each recipe reads values that are there and adds one or a few nodes.

A recipe returns None where nothing fits it. Those that multiply and accumulate stand here, the rest in ``moves.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from e2e.growing import CHANNELS, MATRIX_RANK, Grower, dims
from octavo.ir import Value
from octavo.ir.ops.conv import Conv, ConvTranspose
from octavo.ir.ops.elementwise import (
    Abs,
    Add,
    Clamp,
    Elu,
    Erf,
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Mul,
    Neg,
    Relu,
    Sigmoid,
    Silu,
    Sub,
    Tanh,
    Unary,
)
from octavo.ir.ops.matmul import Linear, MatMul
from octavo.ir.ops.norm import LayerNorm, Softmax
from octavo.ir.ops.reduce import ReduceMean
from octavo.ir.ops.shape import Reshape, Transpose

Recipe = Callable[[Grower], Value | None]

TABLES: tuple[Unary, ...] = (
    Sigmoid(),
    Tanh(),
    Silu(),
    HardSwish(),
    HardSigmoid(),
    Gelu(),
    Gelu(tanh=True),
    Elu(),
    LeakyRelu(0.1),
    Abs(),
    Neg(),
    Erf(),
)
CLAMPS: tuple[Unary, ...] = (Relu(), Relu(), Clamp(0.0, 6.0), Clamp(-0.5, 1.5), Clamp(-1.0, float("inf")))


def activated(g: Grower, value: Value | None, probability: float = 0.6) -> Value | None:
    """``value``, most likely behind an activation."""
    if value is None or not g.chance(probability):
        return value
    return g.add(g.choose(CLAMPS if g.chance(0.5) else TABLES), value)


# Convolutions ------------------------------------------------------------------------------------------------------


def convolution(g: Grower, x: Value, groups: int, outputs: int, *, strange: bool = False) -> Value | None:
    """A convolution over the trailing axes of ``x``; a strange one has dilation, uneven strides and padding."""
    spatial = dims(x)[2:]
    kernel = tuple(g.choose([1, 2, 3, 3, 4, 5] if strange else [1, 3]) for _ in spatial)
    stride = tuple(g.choose([1, 1, 2, 3] if strange else [1, 1, 2]) for _ in spatial)
    dilation = tuple(g.choose([1, 2, 3]) if strange else 1 for _ in spatial)
    half = [d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True)]
    even = tuple((n, n) for n in half)
    uneven = tuple((g.upto(0, k), g.upto(0, k)) for k in kernel)
    padding = uneven if strange and g.chance(0.7) else even
    depth = dims(x)[1] // groups
    weight = g.weights(outputs, depth, *kernel, inputs=depth * int(np.prod(kernel)))
    inputs = [x, weight, g.constant(0.3 * g.rng.normal(size=outputs))][: 3 if g.chance(0.8) else 2]
    return activated(g, g.add(Conv(stride, padding, dilation, groups), *inputs))


def dense(g: Grower) -> Value | None:
    x = g.image()
    return x and convolution(g, x, 1, g.choose(CHANNELS))


def strange(g: Grower) -> Value | None:
    """Dilation, uneven strides, uneven padding, even kernels."""
    x = g.image()
    return x and convolution(g, x, 1, g.choose(CHANNELS), strange=True)


def grouped(g: Grower) -> Value | None:
    x = g.pick(lambda v: v.type.rank == 4 and dims(v)[1] > 1)
    if x is None:
        return None
    groups = g.factor(dims(x)[1])
    return convolution(g, x, groups, groups * g.choose([1, 2, 3, 5, 8, 16]), strange=g.chance(0.3))


def depthwise(g: Grower) -> Value | None:
    x = g.pick(lambda v: v.type.rank == 4 and dims(v)[1] > 1)
    return x and convolution(g, x, dims(x)[1], dims(x)[1], strange=g.chance(0.4))


def line(g: Grower) -> Value | None:
    """A 1-d convolution."""
    x = g.pick(lambda v: v.type.rank == 3 and dims(v)[2] > 1)
    if x is None:
        image = g.image()
        x = image and g.add(Reshape((*dims(image)[:2], dims(image)[2] * dims(image)[3])), image)
    if x is None:
        return None
    groups = g.choose([1, 1, 1, dims(x)[1]])
    outputs = g.choose(CHANNELS) if groups == 1 else groups
    return convolution(g, x, groups, outputs, strange=g.chance(0.6))


def transposed(g: Grower) -> Value | None:
    """A transposed convolution, now and then grouped, 1-d, dilated or cropped."""
    x = g.pick(lambda v: v.type.rank in (3, 4))
    if x is None:
        return None
    spatial = dims(x)[2:]
    groups = g.choose([1, 1, 1, g.factor(dims(x)[1])])
    outputs = g.choose([1, 2, 3, 4, 8, 16, 17])
    kernel = tuple(g.choose([1, 2, 3, 4]) for _ in spatial)
    stride = tuple(g.choose([1, 2, 2, 3]) for _ in spatial)
    dilation = tuple(g.choose([1, 1, 1, 2]) for _ in spatial)
    padding = tuple((g.upto(0, k // 2), g.upto(0, k // 2)) for k in kernel)
    extra = tuple(g.choose([0, s - 1]) for s in stride)
    depth = dims(x)[1]
    weight = g.weights(depth, outputs, *kernel, inputs=max(1, depth // groups * int(np.prod(kernel)) // 2))
    inputs = [x, weight, g.constant(0.3 * g.rng.normal(size=outputs * groups))][: 3 if g.chance(0.7) else 2]
    return activated(g, g.add(ConvTranspose(stride, padding, extra, dilation, groups), *inputs))


def residual(g: Grower) -> Value | None:
    """A convolution whose result is added to its input or to another value of the shape."""
    x = g.image()
    if x is None:
        return None
    channels = dims(x)[1]
    groups = g.choose([1, 1, channels])
    kernel = g.choose([1, 3])
    weight = g.weights(channels, channels // groups, kernel, kernel, inputs=channels // groups * kernel**2)
    pad = ((kernel // 2, kernel // 2),) * 2
    inputs = [x, weight, g.constant(0.3 * g.rng.normal(size=channels))][: 3 if g.chance(0.7) else 2]
    y = g.add(Conv((1, 1), pad, (1, 1), groups), *inputs)
    other = g.pick(lambda v: dims(v) == dims(x) and v is not y)
    if y is None or other is None:
        return y
    return activated(g, g.add(Add(), *((y, other) if g.chance(0.5) else (other, y))))


# Matrices ----------------------------------------------------------------------------------------------------------


def linear(g: Grower) -> Value | None:
    x = g.pick(lambda v: v.type.rank >= MATRIX_RANK, inputs=True)
    if x is None:
        return None
    depth, outputs = dims(x)[-1], g.choose(CHANNELS)
    weight = g.weights(outputs, depth, inputs=depth)
    inputs = [x, weight, g.constant(0.3 * g.rng.normal(size=outputs))][: 3 if g.chance(0.8) else 2]
    y = g.add(Linear(), *inputs)
    other = g.pick(lambda v: y is not None and dims(v) == dims(y) and v is not y)
    if y is not None and other is not None and g.chance(0.6):
        y = g.add(Add(), y, other)
    return activated(g, y)


def product(g: Grower) -> Value | None:
    """A value times another, or times itself transposed."""
    a = g.pick(lambda v: v.type.rank >= MATRIX_RANK)
    if a is None:
        return None
    depth = dims(a)[-1]
    b = g.pick(lambda v: v is not a and v.type.rank >= MATRIX_RANK and dims(v)[-2] == depth)
    if b is None or g.chance(0.4):
        axes = (*range(a.type.rank - 2), a.type.rank - 1, a.type.rank - 2)
        b = g.add(Transpose(axes), a)
    return b and g.add(MatMul(), a, b)


def attention(g: Grower) -> Value | None:
    """softmax(q k') v over the last two axes, with or without heads."""
    x = g.pick(lambda v: v.type.rank == 3 and dims(v)[1] > 1 and 2 <= dims(v)[2] <= 64)
    if x is None:
        image = g.pick(lambda v: v.type.rank == 4 and dims(v)[1] > 1 and dims(v)[2] * dims(v)[3] > 1)
        flat = image and g.add(Reshape((*dims(image)[:2], dims(image)[2] * dims(image)[3])), image)
        x = flat and g.add(Transpose((0, 2, 1)), flat)
    if x is None:
        return None
    (batch, length, depth), heads, width = dims(x), g.choose([1, 2, 3]), g.choose([4, 5, 8])
    if length * length * heads * batch > 6000:
        return None
    parts = []
    for axes in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)):
        weight = g.weights(heads * width, depth, inputs=depth)
        part = g.add(Linear(), x, weight, g.constant(np.zeros(heads * width)))
        part = part and g.add(Reshape((batch, length, heads, width)), part)
        part = part and g.add(Transpose(axes), part)
        if part is None:
            return None
        parts.append(part)
    scores = g.add(MatMul(), parts[0], parts[1])
    scores = scores and g.add(Mul(), scores, g.constant(1.0 / np.sqrt(width)))
    scores = scores and g.add(Softmax(-1), scores)
    mixed = scores and g.add(MatMul(), scores, parts[2])
    mixed = mixed and g.add(Transpose((0, 2, 1, 3)), mixed)
    return mixed and g.add(Reshape((batch, length, heads * width)), mixed)


# Elementwise -------------------------------------------------------------------------------------------------------


def _broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(1 in (m, n) or m == n for m, n in zip(reversed(a), reversed(b), strict=False))


def binary(g: Grower) -> Value | None:
    """add, sub or mul of values that broadcast, of a value and a constant, or of a value and a new input."""
    a = g.pick(lambda v: v.type.rank > 0)
    if a is None:
        return None
    other = g.pick(lambda v: v is not a and _broadcasts(dims(a), dims(v)))
    match g.choose(["value", "value", "constant", "input", "mean"]):
        case "constant":
            shape = tuple(n if g.chance(0.5) else 1 for n in dims(a)[g.upto(0, a.type.rank) :])
            other = g.constant(g.rng.normal(size=shape))
        case "input" if len(g.graph.inputs) < 3:
            other = g.input(tuple(n if g.chance(0.7) else 1 for n in dims(a)))
        case "mean":
            axes = tuple(axis for axis in range(a.type.rank) if g.chance(0.5))
            other = g.add(ReduceMean(axes, True), a) if axes else other
        case _:
            pass
    if other is None:
        return None
    op = g.choose([Add(), Sub(), Mul()])
    return activated(g, g.add(op, *((a, other) if g.chance(0.5) else (other, a))), 0.3)


def difference(g: Grower) -> Value | None:
    """A value minus its mean over some axes, or that mean minus the value."""
    x = g.pick(lambda v: v.type.rank > 1 and max(dims(v)) > 2)
    if x is None:
        return None
    axes = tuple(sorted({int(np.argmax(dims(x))), g.upto(0, x.type.rank - 1)}))
    mean = g.add(ReduceMean(axes, True), x)
    return mean and g.add(Sub(), *((x, mean) if g.chance(0.7) else (mean, x)))


def table(g: Grower) -> Value | None:
    x = g.pick(lambda v: v.type.rank > 0)
    return x and g.add(g.choose(TABLES), x)


def clamp(g: Grower) -> Value | None:
    x = g.pick(lambda v: v.type.rank > 0)
    return x and g.add(g.choose(CLAMPS), x)


def squeeze(g: Grower) -> Value | None:
    """Squeeze and excite: channels times a gate made from their means."""
    x = g.image()
    if x is None:
        return None
    channels = dims(x)[1]
    gate = g.add(ReduceMean((2, 3), True), x)
    gate = gate and g.add(
        Conv((1, 1), ((0, 0),) * 2, (1, 1)), gate, g.weights(channels, channels, 1, 1, inputs=channels)
    )
    gate = gate and g.add(g.choose(TABLES[:5]), gate)
    return gate and g.add(Mul(), x, gate)


def softmax(g: Grower) -> Value | None:
    x = g.pick(lambda v: max(dims(v), default=0) > 1)
    if x is None:
        return None
    axis = g.choose([axis for axis, n in enumerate(dims(x)) if n > 1])
    scaled = g.add(Mul(), x, g.constant(g.choose([0.5, 1.0, 3.0])))
    return scaled and g.add(Softmax(axis - x.type.rank if g.chance(0.5) else axis), scaled)


def layer_norm(g: Grower) -> Value | None:
    x = g.pick(lambda v: v.type.rank > 1 and dims(v)[-1] > 2)
    if x is None:
        return None
    rank = g.choose([1, 1, 2])
    shape = dims(x)[-rank:]
    affine = [g.constant(1.0 + 0.3 * g.rng.normal(size=shape)), g.constant(0.3 * g.rng.normal(size=shape))]
    return g.add(LayerNorm(rank, g.choose([1e-5, 1e-3])), x, *affine[: g.choose([0, 1, 2, 2])])
