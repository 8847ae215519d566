"""Activation functions spelled in pieces: found by what they compute, not by how they are spelled.

Exporters write GELU, SiLU, hard-swish and their like in many ways: factors in any order, a division or a product, a
square or a power. So a candidate is any small cone of elementwise ops whose only variable is one value; it is computed
at probe points in float64 and compared with every known function. What agrees everywhere within the rounding of
float32 constants *is* that function.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ...ir.graph import Node, Value
from ...ir.op import Op
from ...ir.ops.constant import Constant
from ...ir.ops.elementwise import (
    Add,
    Binary,
    Clamp,
    Div,
    Erf,
    Exp,
    Gelu,
    HardSigmoid,
    HardSwish,
    Log,
    Mul,
    Relu,
    Sigmoid,
    Silu,
    Sub,
    Tanh,
    Unary,
)
from ...ir.ops.logic import Maximum, Minimum, Pow
from ...ir.ops.math import Mish, Reciprocal, Softplus
from ..analysis import scalar_of
from ..rewriting import Rewriter, pattern

KNOWN: tuple[Op, ...] = (
    Silu(),
    Gelu(),
    Gelu(tanh=True),
    HardSwish(),
    HardSigmoid(),
    Mish(),
    Sigmoid(),
    Softplus(),
)
"""Functions that are looked for."""

_TELLING = (Erf, Tanh, Sigmoid, Exp, Clamp, HardSigmoid, Relu, Softplus, Maximum, Minimum)
"""A cone without any of these is mere arithmetic and is not probed."""

_MOST_NODES = 12
_TOLERANCE = 2e-6


@pattern(Mul, Add, Sub, Div, Clamp, Reciprocal, Log)
def known_function(node: Node, rewriter: Rewriter) -> bool:
    """Elementwise pieces of a known activation -> the activation."""
    if getattr(node.op, "clamp", None) is not None or not node.output.type.dtype.is_float:
        return False
    cone = _cone(node)
    if not any(isinstance(n.op, _TELLING) for n in cone):
        return False
    # The nearest variable comes first: the smallest match is tried before larger ones.
    for variable in _variables(cone):
        if variable.type != node.output.type:
            continue
        steps = _steps(node, variable, cone)
        if steps is None or len(steps) < 2:
            continue
        found = _recognize(steps, variable)
        if found is not None:
            return rewriter.replace(node, rewriter.insert(found, variable))
    return False


def _cone(root: Node) -> list[Node]:
    """The elementwise nodes nearest above ``root``, itself first."""
    cone, queue = {root: None}, [root]
    while queue and len(cone) < _MOST_NODES:
        for value in queue.pop(0).inputs:
            producer = value.producer
            if producer and producer not in cone and isinstance(producer.op, Unary | Binary | Pow):
                cone[producer] = None
                queue.append(producer)
    return list(cone)


def _variables(cone: Sequence[Node]) -> Iterator[Value]:
    """Values that the cone may be a function of: what its nodes read, constants apart."""
    found = (v for node in cone for v in node.inputs if not isinstance(v.op, Constant))
    return iter(dict.fromkeys(found))


def _steps(root: Node, variable: Value, cone: Sequence[Node]) -> list[Node] | None:
    """The nodes between ``variable`` and ``root`` in an order to run them; None when another variable is involved."""
    allowed = set(cone)
    steps: dict[Node, None] = {}

    def visit(value: Value) -> bool:
        if value is variable or scalar_of(value) is not None:
            return True
        producer = value.producer
        if producer is None or producer not in allowed:
            return False
        if producer not in steps:
            if not all(map(visit, producer.inputs)):
                return False
            steps[producer] = None
        return True

    return list(steps) if visit(root.output) else None


def _recognize(steps: Sequence[Node], variable: Value) -> Op | None:
    probes = _probes()
    with torch.no_grad():
        env: dict[Value, torch.Tensor] = {variable: probes}
        for step in steps:
            operands = [env[v] if v in env else torch.tensor(scalar_of(v), dtype=torch.float64) for v in step.inputs]
            result = step.op.run(*operands)
            assert isinstance(result, torch.Tensor)
            env[step.output] = result
    computed = env[steps[-1].output]
    allowed = _TOLERANCE * (1.0 + probes.abs())
    # Where a spelling overflows far out, as log(1 + exp(x)) does, the function itself is only better.
    overflow = ~torch.isfinite(computed) & (probes.abs() > 80.0)
    for op, expected in _expected():
        if bool((((computed - expected).abs() <= allowed) | overflow).all()):
            return op
    return None


@functools.cache
def _probes() -> torch.Tensor:
    """Points to compare at: dense around 0, and far out on both sides."""
    near = np.linspace(-8.0, 8.0, 641)
    far = np.geomspace(8.0, 1e6, 60)
    return torch.from_numpy(np.concatenate([-far[::-1], near, far]))


@functools.cache
def _expected() -> tuple[tuple[Op, torch.Tensor], ...]:
    pairs: list[tuple[Op, torch.Tensor]] = []
    for op in KNOWN:
        values = op.run(_probes())
        assert isinstance(values, torch.Tensor)
        pairs.append((op, values))
    return tuple(pairs)


PATTERNS = (known_function,)
