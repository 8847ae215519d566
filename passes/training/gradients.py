"""What the outputs would lose with a weight: gradients over calibration batches, without labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from ...ir.errors import CalibrationError, InputError, PassError
from ...ir.graph import Graph, Node, Value
from ...ir.interpreter import check_feeds, run_op, run_torch, to_numpy, to_torch
from ...ir.op import Op, Stage
from ...ir.ops.constant import Constant, as_torch
from .parameters import is_parameter

_TINY = 1e-30


def saliencies(graph: Graph, batches: Iterable[Mapping[str, np.ndarray]]) -> dict[Value, np.ndarray]:
    """How much the outputs would change without each element of each parameter, to first order.

    For a weight w that is the mean over batches of ``|w * dL/dw|`` (Molchanov et al., "Importance Estimation for Neural
    Network Pruning", CVPR 2019). L needs no labels: the squared norm of the outputs (Aljundi et al., "Memory Aware
    Synapses", ECCV 2018), of each output in proportion to its present value, so that none outweighs the others.
    Batch normalization uses its running statistics.

    Args:
        graph: before the freeze. It is not changed.
        batches: an array for every input, by name; an iterable that holds at least one.

    Returns:
        an array (float64, at least 0) of the parameter's shape for every float32 constant that training would change
        (:func:`~octavo.passes.training.parameters.is_parameter`); zeros where no output depends on it.

    Raises:
        CalibrationError: there is no batch, one does not fit the inputs, or an activation or a gradient is not finite.
        PassError: the graph is frozen, or no output depends on a parameter in a differentiable way.
    """
    frozen = next((node for node in graph.nodes if node.op.stage is Stage.INTEGER), None)
    if frozen is not None:
        raise PassError("a frozen graph has no gradients", where=frozen.where, hint="use them before lower-integer")
    parameters = {
        node.output: as_torch(node.op.data).requires_grad_()
        for node in graph.nodes
        if isinstance(node.op, Constant) and is_parameter(node.output)
    }
    sums = {value: np.zeros(tuple(w.shape)) for value, w in parameters.items()}
    number = 0
    for number, feeds in enumerate(batches, 1):
        gradients = _gradients(graph, parameters, feeds, number)
        for (value, w), gradient in zip(parameters.items(), gradients, strict=True):
            if gradient is not None:
                sums[value] += np.abs(to_numpy(w * gradient).astype(np.float64))
    if not number:
        raise CalibrationError("the calibration data is empty", expected="at least one batch")
    for value, total in sums.items():
        if not np.isfinite(total).all():
            raise CalibrationError(
                f"the gradient of %{value.name} is not finite", hint="check the data and the weights"
            )
    return {value: total / number for value, total in sums.items()}


def _gradients(
    graph: Graph, parameters: Mapping[Value, torch.Tensor], feeds: Mapping[str, np.ndarray], number: int
) -> tuple[torch.Tensor | None, ...]:
    """dL/dw of one batch for each parameter; None where L does not depend on it."""
    try:
        check_feeds(graph, feeds)
    except InputError as error:
        what = f"calibration batch {number} does not fit: {error.what}"
        raise CalibrationError(what, expected=error.expected) from error

    def evaluate(node: Node, op: Op, operands: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        if isinstance(op, Constant) and node.output in parameters:
            return (parameters[node.output],)
        return run_op(op, [value.type for value in node.inputs], operands)

    with torch.enable_grad():
        outputs = run_torch(graph, [to_torch(feeds[value.name]) for value in graph.inputs], None, evaluate)
        losses = [_relative_energy(y) for y in outputs if y.requires_grad]
        if not losses:
            raise PassError(
                "no output depends on a weight in a differentiable way", hint="choose an importance without gradients"
            )
        return torch.autograd.grad(torch.stack(losses).sum(), list(parameters.values()), allow_unused=True)


def _relative_energy(y: torch.Tensor) -> torch.Tensor:
    """The squared norm over its present value: 1, with the gradient of a relative change."""
    energy = y.square().sum()
    return energy / energy.detach().clamp(min=_TINY)
