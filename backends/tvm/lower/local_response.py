"""Local response normalization of AlexNet and its contemporaries."""

from __future__ import annotations

import math

import numpy as np

from ....ir.graph import Node
from ....ir.ops.norm import LocalResponseNorm
from ...plan.builder import PlanBuilder
from .chains import Chain, Term, run_chain
from .logic import scalar
from .registry import lowers


@lowers(LocalResponseNorm)
def lower_local_response_norm(site: PlanBuilder, node: Node) -> None:
    """Squares with zero channels around them; then one chain that sums a window of channels for every element."""
    op, x = node.op, site.view(node.inputs[0])
    assert isinstance(op, LocalResponseNorm)
    if x.dtype != "float32":
        site.refuse(node, f"no kernel for elements of {x.dtype}")
        return
    before, channels = (op.size - 1) // 2, x.shape[1]
    shape = (x.shape[0], channels + op.size - 1, *x.shape[2:])
    squares = site.scratch_view(shape, "float32", x.order())
    zero = scalar(site, 0, "float32")
    for start, count in ((0, before), (before + channels, op.size - 1 - before)):
        if count:
            border = squares.sliced((0, start, *(0,) * (x.rank - 2)), (shape[0], count, *shape[2:]))
            site.copy(zero.expanded(border.shape), border, node.where)
    windows = [squares.sliced((0, tap, *(0,) * (x.rank - 2)), x.shape) for tap in range(op.size)]
    run_chain(site, node.where, [x], windows[before], lambda c, a: c("mul", a, a))
    out = site.allocate(node.output, x.order())

    def normalize(c: Chain, a: Term, *taps: Term) -> Term:
        total = taps[0]
        for tap in taps[1:]:
            total = c("add", total, tap)
        base = c("add", c("mul", total, float(np.float32(op.alpha / op.size))), op.bias)
        return c("div", a, power(c, base, op.beta))

    run_chain(site, node.where, [x, *windows], out, normalize)


def power(c: Chain, base: Term, exponent: float) -> Term:
    """A positive number to a constant power: by square roots where quarters suffice, else by the logarithm."""
    quarters = exponent * 4
    if quarters != math.floor(quarters) or not 0 < quarters <= 4:
        return c("exp", c("mul", c("log", base), exponent))
    if quarters == 4:
        return base
    root = c("sqrt", base)
    if quarters == 2:
        return root
    return c("sqrt", root) if quarters == 1 else c("mul", root, c("sqrt", root))
