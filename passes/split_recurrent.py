"""Recurrent layers as a linear layer over all time steps, which can be int8, and the recurrence alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..ir.graph import Graph, Node, Value
from ..ir.ops.matmul import Linear
from ..ir.ops.recurrent import Gru, Lstm, Recurrence, Recurrent, Rnn
from .analysis import array_of
from .base import Exactness, Pass, PassContext
from .registry import register_pass
from .rewriting import Rewriter, pattern, rewrite


@register_pass
@dataclass(frozen=True)
class SplitRecurrent(Pass):
    """Take the products with the inputs out of recurrent layers: one linear layer for all steps and directions.

    Most of the work of a recurrent layer does not depend on its state and is an ordinary matrix product. What remains,
    ``recurrence``, stays in float: an error in a state is there in every later step.
    """

    name: ClassVar[str] = "split-recurrent"
    exactness: ClassVar[Exactness] = Exactness.CLOSE

    def apply(self, graph: Graph, context: PassContext) -> bool:
        return rewrite(graph, (split,), context)


@pattern(Lstm, Gru, Rnn)
def split(node: Node, rewriter: Rewriter) -> bool:
    """Recurrent layer -> linear layer, recurrence."""
    op = node.op
    assert isinstance(op, Recurrent)
    x, weight, recurrence, *rest = node.inputs
    given = dict(zip(op.has, rest, strict=True))
    matrix, biases = array_of(weight), _biases(op, given)
    constant = [recurrence, *(given[name] for name in ("peepholes",) if name in given)]
    if matrix is None or biases is None or any(array_of(value) is None for value in constant):
        return rewriter.note(node, "weights are computed at run time")
    outer, inner = biases
    flat = rewriter.constant(np.ascontiguousarray(matrix.reshape(-1, matrix.shape[2])), instead=weight)
    bias = [rewriter.constant(outer, "bias", instead=given.get("bias"))] if outer.any() else []
    products = rewriter.insert(Linear(), x, flat, *bias)
    kept: dict[str, Value] = {} if inner is None else {"hidden_bias": rewriter.constant(inner, "hidden_bias")}
    kept |= {name: value for name, value in given.items() if name != "bias"}
    made = Recurrence(
        op.name,
        op.hidden,
        op.activations,
        op.direction,
        op.clip,
        tuple(kept),
        getattr(op, "linear_before_reset", False),
        getattr(op, "coupled", False),
    )
    return rewriter.replace(node, *rewriter.insert_all(made, products, recurrence, *kept.values()))


def _biases(op: Recurrent, given: Mapping[str, Value]) -> tuple[np.ndarray, np.ndarray | None] | None:
    """The bias of the linear layer, flat, and of the state's product where a reset gate follows it.

    None where it is not constant.
    """
    rows = op.gates * op.hidden
    both = array_of(given["bias"]) if "bias" in given else np.zeros((op.directions, 2 * rows), np.float32)
    if both is None:
        return None
    outer, inner = both[:, :rows].copy(), both[:, rows:]
    if not isinstance(op, Gru) or not op.linear_before_reset:
        return (outer + inner).reshape(-1), None
    apart = 2 * op.hidden
    outer[:, :apart] += inner[:, :apart]
    kept = np.ascontiguousarray(inner[:, apart:])
    return outer.reshape(-1), kept if kept.any() else None
