"""Recipes for layers that pool, resample or only move elements."""

from __future__ import annotations

import math

from e2e.growing import Grower, dims
from octavo.ir import Value
from octavo.ir.ops.elementwise import Mul
from octavo.ir.ops.pool import AvgPool, MaxPool
from octavo.ir.ops.reduce import ReduceMean
from octavo.ir.ops.resize import Resize
from octavo.ir.ops.shape import Concat, Expand, Gather, Pad, Reshape, Slice, Transpose

# Windows -----------------------------------------------------------------------------------------------------------


def max_pool(g: Grower) -> Value | None:
    x = g.pick(lambda v: v.type.rank in (3, 4))
    if x is None:
        return None
    spatial = dims(x)[2:]
    kernel = tuple(g.choose([1, 2, 2, 3, 3, 5]) for _ in spatial)
    stride = tuple(g.choose([1, 2, k]) for k in kernel)
    padding = tuple((g.upto(0, k // 2), g.upto(0, k // 2)) for k in kernel)
    dilation = tuple(g.choose([1, 1, 1, 2]) for _ in spatial)
    return g.add(MaxPool(kernel, stride, padding, dilation), x)


def avg_pool(g: Grower) -> Value | None:
    """Counted or uncounted padding, and windows that hang over the end."""
    x = g.pick(lambda v: v.type.rank in (3, 4))
    if x is None:
        return None
    spatial = dims(x)[2:]
    kernel = tuple(g.choose([1, 2, 2, 3, 3, 5]) for _ in spatial)
    stride = tuple(g.choose([1, 2, k]) for k in kernel)
    around = tuple(g.upto(0, k // 2) for k in kernel)
    over = tuple(
        -(n + 2 * p - k) % s if n + 2 * p >= k else 0
        for n, p, k, s in zip(spatial, around, kernel, stride, strict=True)
    )
    if g.chance(0.6) or any(o >= k - p for o, k, p in zip(over, kernel, around, strict=True)):
        over = (0,) * len(spatial)
    padding = tuple((p, p + o) for p, o in zip(around, over, strict=True))
    ones = (1,) * len(spatial)
    return g.add(AvgPool(kernel, stride, padding, ones, g.chance(0.5), over if any(over) else ()), x)


def mean(g: Grower) -> Value | None:
    x = g.pick(lambda v: v.type.rank > 1)
    if x is None:
        return None
    axes = tuple(sorted(g.rng.permutation(x.type.rank)[: g.upto(1, x.type.rank - 1)].tolist()))
    return g.add(ReduceMean(axes, g.chance(0.5)), x)


def resize(g: Grower) -> Value | None:
    """Nearest or linear, up or down, half-pixel, aligned corners or plain coordinates."""
    x = g.pick(lambda v: v.type.rank in (3, 4))
    if x is None:
        return None
    sizes = [g.choose([2 * n, 2 * n, n, n + 1, 3 * n, max(1, n // 2)]) for n in dims(x)[2:]]
    convention = g.choose(["half", "corners", "plain"])
    scales, offsets = [1.0, 1.0], [0.0, 0.0]
    for old, new in zip(dims(x)[2:], sizes, strict=True):
        scale = (old - 1) / max(new - 1, 1) if convention == "corners" else old / new
        scales.append(scale)
        offsets.append(0.5 * scale - 0.5 if convention == "half" else 0.0)
    mode = g.choose(["nearest", "linear"])
    rounding = g.choose(["floor", "round_prefer_floor", "ceil", "round_prefer_ceil"])
    return g.add(Resize((*dims(x)[:2], *sizes), tuple(scales), tuple(offsets), mode, rounding), x)


# Moves -------------------------------------------------------------------------------------------------------------


def concat(g: Grower) -> Value | None:
    """Parts that are there already: read elsewhere too, concatenated twice, themselves concats."""
    first = g.pick(lambda v: v.type.rank > 0)
    if first is None:
        return None
    rank = first.type.rank
    axis = 1 if rank > 1 and g.chance(0.7) else g.upto(0, rank - 1)
    parts = [first]
    for _ in range(g.upto(1, 3)):
        other = g.pick(lambda v: _joins(dims(first), dims(v), axis))
        if other is not None:
            parts.append(other)
    g.rng.shuffle(parts)
    return g.add(Concat(axis - rank if g.chance(0.3) else axis), *parts)


def fork(g: Grower) -> Value | None:
    """Two concats that share a part: their results have different ranges, so one part is requantized."""
    shared = g.pick(lambda v: v.type.rank > 1)
    if shared is None:
        return None
    near = g.add(Mul(), shared, g.constant(g.choose([0.3, 2.0])))
    far = near and g.add(Mul(), near, g.constant(g.choose([0.2, 3.0])))
    first = near and g.add(Concat(1), shared, near)
    return g.add(Concat(1), far, shared) if far is not None and first is not None else None


def _joins(a: tuple[int, ...], b: tuple[int, ...], axis: int) -> bool:
    return len(a) == len(b) and all(m == n for i, (m, n) in enumerate(zip(a, b, strict=True)) if i != axis)


def reshape(g: Grower) -> Value | None:
    """Flattened, as tokens, or cut at divisors of the size."""
    x = g.pick(lambda v: v.type.rank > 0)
    if x is None:
        return None
    size = math.prod(dims(x))
    match g.choose(["flat", "tokens", "cut", "split"]):
        case "flat":
            shape: tuple[int, ...] = (dims(x)[0], size // dims(x)[0])
        case "tokens" if x.type.rank == 4:
            shape = (*dims(x)[:2], dims(x)[2] * dims(x)[3])
        case "split":
            divisor = g.factor(dims(x)[-1])
            shape = (*dims(x)[:-1], divisor, dims(x)[-1] // divisor)
        case _:
            outer = g.factor(size)
            inner = g.factor(size // outer)
            shape = (outer, inner, size // outer // inner)
    return g.add(Reshape(shape), x) if len(shape) <= 5 else None


def transpose(g: Grower) -> Value | None:
    x = g.pick(lambda v: v.type.rank > 1)
    return x and g.add(Transpose(tuple(g.rng.permutation(x.type.rank).tolist())), x)


def part(g: Grower) -> Value | None:
    """A slice, with steps, now and then backwards."""
    x = g.pick(lambda v: max(dims(v), default=0) > 1)
    if x is None:
        return None
    bounds = []
    for n in dims(x):
        start = g.upto(0, n // 2) if g.chance(0.5) else 0
        stop = g.upto(start + 1, n) if g.chance(0.5) else n
        step = g.choose([1, 1, 1, 2, 3])
        bounds.append((n - 1, -1, -1) if g.chance(0.06) else (start, stop, step))
    starts, stops, steps = zip(*bounds, strict=True)
    return g.add(Slice(starts, stops, steps), x)


def pad(g: Grower) -> Value | None:
    """Around any axes constants, in which negative amounts crop, or what lies at the edge."""
    x = g.pick(lambda v: v.type.rank > 0)
    if x is None:
        return None
    pairs = []
    mode = g.choose(["constant", "constant", "reflect", "edge", "wrap"])
    for n in dims(x):
        low = -1 if n > 3 and mode == "constant" and g.chance(0.2) else 0
        pairs.append((g.upto(low, 2), g.upto(low, 2)) if g.chance(0.5) else (0, 0))
    return g.add(Pad(tuple(pairs), g.choose([0.0, 0.0, 0.5, -1.0]) if mode == "constant" else 0.0, mode), x)


def gather(g: Grower) -> Value | None:
    x = g.pick(lambda v: v.type.rank > 0)
    if x is None:
        return None
    axis = g.upto(0, x.type.rank - 1)
    size = dims(x)[axis]
    shape = g.choose([(1,), (3,), (size,), (2, 2)])
    index = g.indices(g.rng.integers(-size, size, shape))
    return g.add(Gather(axis), x, index) if x.type.rank + len(shape) <= 6 else None


def expand(g: Grower) -> Value | None:
    x = g.pick(lambda v: 1 in dims(v))
    if x is None:
        whole = g.pick(lambda v: v.type.rank > 1)
        x = whole and g.add(ReduceMean((whole.type.rank - 1,), True), whole)
    if x is None:
        return None
    shape = tuple(g.choose([1, 2, 3, 5]) if n == 1 else n for n in dims(x))
    return g.add(Expand((2, *shape) if len(shape) < 4 and g.chance(0.2) else shape), x)
