"""Recurrences: one kernel goes over all steps of a layer."""

from __future__ import annotations

from typing import Literal

import numpy.typing as npt

from ....ir.graph import Node
from ....ir.ops.constant import Constant
from ....ir.ops.recurrent import Recurrence
from ....ir.types import DType
from ...plan.builder import PlanBuilder
from ...plan.views import View
from ..kernels.recurrence import RecurrenceSpec
from .registry import lowers

ACTIVATIONS = ("affine", "hardsigmoid", "leakyrelu", "relu", "scaledtanh", "sigmoid", "softsign", "tanh")
"""Those that the kernel computes."""
STEPS_ORDER = (0, 2, 1, 3)
"""Time, batch, direction, element: a bidirectional layer's steps are then the next layer's features as they lie."""


@lowers(Recurrence)
def lower_recurrence(site: PlanBuilder, node: Node) -> None:
    """Rows of a batch and directions are independent of each other; the weights are constant."""
    op = node.op
    assert isinstance(op, Recurrence)
    operands = dict(zip(op.has, node.inputs[2:], strict=True))
    constants: dict[str, npt.ArrayLike] = {}
    named = {"recurrence": node.inputs[1], **operands}
    for name in ("recurrence", "hidden_bias", "peepholes"):
        constant = named[name].op if name in named else None
        if isinstance(constant, Constant):
            constants[name] = constant.data.numpy()
    reason = _obstacle(op, node, len(constants))
    if reason is not None:
        site.refuse(node, reason)
        for value in node.outputs:
            site.allocate(value)
        return
    time, directions, batch, hidden = node.outputs[0].type.static_shape
    views = {"x": site.contiguous(site.view(node.inputs[0]))}
    views |= {n: site.contiguous(site.view(v)) for n, v in operands.items() if n not in constants}
    targets = [site.allocate(node.outputs[0], STEPS_ORDER), *(site.allocate(value) for value in node.outputs[1:])]
    written = [_rows(site, view) for view in targets]
    lengths: Literal["int32", "int64"] = (
        "int32" if "lengths" in views and views["lengths"].dtype == "int32" else "int64"
    )
    steps, *last = (view.strides for view in written)
    spec = RecurrenceSpec(
        op.cell,  # type: ignore[arg-type]
        time,
        batch,
        hidden,
        directions,
        op.direction == "reverse",
        op.activations[: len(op.activations) // directions],
        (steps[0], steps[1], steps[2]),
        tuple((strides[0], strides[1]) for strides in last),
        op.clip,
        tuple(sorted(op.has)),
        op.linear_before_reset,
        op.coupled,
        lengths,
    )
    site.call(
        spec, node.where, {**views, "out": written[0], **dict(zip(spec.last, written[1:], strict=True))}, constants
    )
    for source, target in zip(written, targets, strict=True):
        if source is not target:
            site.copy(source, target, node.where)


def _rows(site: PlanBuilder, view: View) -> View:
    """The view itself where the elements of a state are adjacent, else a buffer to copy from."""
    return view if view.strides[-1] == 1 or view.shape[-1] == 1 else site.scratch_view(view.shape, view.dtype)


def _obstacle(op: Recurrence, node: Node, constants: int) -> str | None:
    """Why there is no kernel, or None."""
    directions = op.layer.directions
    count = len(op.activations) // directions
    unknown = sorted({name for name, _, _ in op.activations} - set(ACTIVATIONS))
    if unknown:
        return f"no kernel for the activation {', '.join(unknown)}: known are {', '.join(ACTIVATIONS)}"
    if op.activations[:count] != op.activations[-count:]:
        return "no kernel for two directions with different activations"
    if node.inputs[0].type.dtype is not DType.F32:
        return f"no kernel for elements of {node.inputs[0].type.dtype.value}"
    wanted = 1 + len({"hidden_bias", "peepholes"} & set(op.has))
    return None if constants == wanted else "the weight is computed at run time"
