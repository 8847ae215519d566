"""How much an error in each channel of an activation matters to the layers that read it.

A layer multiplies channel ``c`` by its weights ``w[:, c]``, so a rounding error there reaches the output with the
energy ``sum(w[:, c] ** 2)``: the diagonal of the layer's Hessian (Nagel et al., "Up or Down? Adaptive Rounding for
Post-Training Quantization", ICML 2020, section 3). A channel with large activations and small weights, which
cross-layer equalization would scale down, may be clipped; one with small activations and large weights needs a fine
grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ...ir.graph import Node, Value
from ...ir.ops.constant import Constant
from ...ir.ops.conv import Conv
from ...ir.ops.matmul import Linear
from ..decide import constant_source

UNIT = 1024
"""The mean of all weights. They are integers, so that sums of them do not depend on the order of the data."""


@dataclass(frozen=True)
class Importance:
    """Integer weights (float64 [channels], at least 1) of the indices of one axis."""

    weights: torch.Tensor
    axis: int

    def spread(self, x: torch.Tensor) -> np.ndarray:
        """The weight of each element of ``x``, flat."""
        shape = [1] * x.ndim
        shape[self.axis] = -1
        spread: np.ndarray = self.weights.reshape(shape).broadcast_to(x.shape).reshape(-1).numpy()
        return spread


def importance_of(value: Value) -> Importance | None:
    """The importance of a value that convolutions or linear layers alone read as their input; None for all others."""
    energies: dict[int, np.ndarray] = {}
    for node, position in value.uses:
        found = _energy(node) if position == 0 else None
        if found is None:
            return None
        axis, energy = found
        energies[axis] = energies.get(axis, 0.0) + energy
    if len(energies) != 1:
        return None
    ((axis, energy),) = energies.items()
    mean = energy.mean()
    if not (np.isfinite(mean) and mean > 0):
        return None
    return Importance(torch.from_numpy(np.maximum(np.rint(energy / mean * UNIT), 1.0)), axis)


def _energy(node: Node) -> tuple[int, np.ndarray] | None:
    """The axis of the input's channels, and the sum of squares of the weights that multiply each."""
    if not isinstance(node.op, Conv | Linear):
        return None
    weight = constant_source(node.inputs[1]).op
    if not isinstance(weight, Constant) or weight.data.numpy().dtype != np.float32:
        return None
    squares = np.square(weight.data.numpy().astype(np.float64))
    if isinstance(node.op, Linear):
        return -1, squares.sum(axis=0)
    groups = node.op.groups
    by_group = squares.reshape(groups, squares.shape[0] // groups, squares.shape[1], -1)
    return 1, by_group.sum(axis=(1, 3)).reshape(-1)
