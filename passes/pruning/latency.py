"""How long a node would take: a model, not a measurement."""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.op import Op, Quantization
from ...ir.ops.constant import Constant
from ...ir.ops.matmul import Linear
from ...ir.target import IsaLevel
from ...ir.types import TensorType

CLOCK = 3.0
"""Cycles in a nanosecond."""

BYTES = 8.0
"""Bytes per cycle to and from the outer caches."""


def modelled_latency(op: Op, inputs: Sequence[TensorType], outputs: Sequence[TensorType], level: IsaLevel) -> float:
    """Nanoseconds of a node in int8 on one core, by its roofline (Williams et al., CACM 2009).

    The longer of two times: that of the multiply-accumulates, a vector of bytes each cycle, where output channels are
    padded to the level's tile; and that of moving every element of operands and results once, a byte each. It knows
    nothing of caches, blocking or fusion, so it ranks channel counts and does not predict run times; run it behind
    ``prepare``, which fuses what would be counted twice.
    """
    if isinstance(op, Constant):
        return 0.0
    macs = op.cost(inputs, outputs).macs * _padding(op, outputs[0], level.channel_multiple)
    moved = sum(type.size for type in (*inputs, *outputs))
    return max(macs / level.vector_bytes, moved / BYTES) / CLOCK


def _padding(op: Op, output: TensorType, multiple: int) -> float:
    """Computed output channels in proportion to those that there are."""
    if op.rule is not Quantization.WEIGHTED:
        return 1.0
    channels = output.static_shape[-1 if isinstance(op, Linear) else 1]
    return -(-channels // multiple) * multiple / channels
