"""Weight sparsity: single weights, or small groups of them, become zero and stay in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from ..ir.constants import Tensor
from ..ir.errors import CalibrationError, PassError
from ..ir.graph import Graph, Value
from ..ir.op import Stage
from ..ir.ops.constant import Constant
from .base import Exactness, Pass, PassContext
from .pruning.sparsity import Layer, Layers, Pattern, choose_zeros, final_ratio, find_layers, parse_pattern
from .registry import register_pass


@register_pass
@dataclass(frozen=True)
class Sparsify(Pass):
    """Set the least important weights of layers to zero, until a share of them is.

    ``ratio`` is that share of the weights of all layers that can be treated, 0.5 by default. ``pattern``: ``single``
    weights; ``N:M``, at most N of M input channels in a row, which says the ratio itself; ``block:RxC``, R output
    channels by C input channels in a row at one place of a kernel (:class:`.pruning.sparsity.Block` says what happens
    where sizes do not divide, which is reported). ``scope``: ``local`` takes the same share of each layer, ``global``
    compares the weights of all layers as they are, without normalizing (Han et al., 2015; Frankle and Carbin, 2019),
    and may leave a layer no more than its most important weight or block. ``importance``: ``magnitude``, or
    ``gradient``, which needs calibration data (:mod:`.training.gradients`). ``keep`` lists shell patterns over names of
    layers that stay dense.
    """

    ratio: float | None = None
    pattern: str = "single"
    scope: Literal["local", "global"] = "local"
    importance: Literal["magnitude", "gradient"] = "magnitude"
    keep: tuple[str, ...] = ()

    name: ClassVar[str] = "sparsify"
    exactness: ClassVar[Exactness] = Exactness.LOSSY

    def __post_init__(self) -> None:
        final_ratio(parse_pattern(self.pattern), self.ratio)

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Layers that cannot be treated are reported with the reason, the others with their zeros.

        Raises:
            UsageError: ``keep`` names no layer.
            PassError: the graph is frozen, or no layer can be treated.
            CalibrationError: ``importance=gradient`` without data, or with data that does not fit.
        """
        frozen = next((node for node in graph.nodes if node.op.stage is Stage.INTEGER), None)
        if frozen is not None:
            hint = "put sparsify before lower-integer"
            raise PassError("weights become sparse before the freeze", where=frozen.where, hint=hint)
        pattern = parse_pattern(self.pattern)
        layers = _fitting(find_layers(graph, self.keep), pattern, context)
        importances = [
            layer.layout.to_rows(importance)
            for layer, importance in zip(layers, self._importances(graph, layers, context), strict=True)
        ]
        zeros = choose_zeros(importances, pattern, final_ratio(pattern, self.ratio), self.scope)
        changed = [_clear(layer, rows) for layer, rows in zip(layers, zeros, strict=True)]
        _report(layers, pattern, context)
        return any(changed)

    def _importances(self, graph: Graph, layers: Sequence[Layer], context: PassContext) -> list[np.ndarray]:
        """One array (float64) of the weight's shape for each layer."""
        if self.importance == "magnitude":
            return [np.abs(_weight(layer).astype(np.float64)) for layer in layers]
        if context.calibration is None:
            raise CalibrationError("gradients need calibration data", hint="give some, or choose importance=magnitude")
        # Training needs torch's gradients; magnitudes do not.
        from .training.gradients import saliencies

        found = saliencies(graph, context.calibration)
        return [_found(found, layer) for layer in layers]


def _fitting(layers: Layers, pattern: Pattern, context: PassContext) -> list[Layer]:
    """The layers that have room for the pattern; the others are reported."""
    reasons = {layer: pattern.why_not(layer) for layer in layers.found}
    remarks = [f"{layer.name} keeps its weights: {reason}" for layer, reason in reasons.items() if reason]
    for line in (*layers.remarks, *remarks):
        context.report(line)
    found = [layer for layer, reason in reasons.items() if reason is None]
    if not found:
        raise PassError("no layer has weights that can become zero", hint="the report above says why")
    return found


def _found(saliencies: Mapping[Value, np.ndarray], layer: Layer) -> np.ndarray:
    if layer.weight not in saliencies:
        what = f"gradients reach no weight of {layer.weight.type}"
        raise PassError(what, where=layer.name, hint="choose importance=magnitude, or keep this layer")
    return saliencies[layer.weight]


def _weight(layer: Layer) -> np.ndarray:
    assert isinstance(layer.weight.op, Constant)
    return layer.weight.op.data.numpy()


def _clear(layer: Layer, rows: np.ndarray) -> bool:
    """Make weights zero where ``rows`` says so; whether that changed any."""
    old = _weight(layer)
    zeros = layer.layout.from_rows(rows, old.shape)
    if not old[zeros].any():
        return False
    new = old.copy()
    new[zeros] = 0
    assert layer.weight.producer is not None
    assert isinstance(layer.weight.op, Constant)
    layer.weight.producer.op = replace(layer.weight.op, data=Tensor.of(new))
    return True


def _report(layers: Sequence[Layer], pattern: Pattern, context: PassContext) -> None:
    zeros = [int(np.count_nonzero(_weight(layer) == 0)) for layer in layers]
    sizes = [layer.weight.type.size for layer in layers]
    for layer, zero, size in zip(layers, zeros, sizes, strict=True):
        remark = pattern.remark(layer)
        line = f"{layer.name}: {zero:,} of {size:,} weights are zero ({zero / size:.1%})"
        context.report(f"{line}; {remark}" if remark else line)
    total = f"{sum(zeros):,} of {sum(sizes):,} weights of {len(layers)} layers are zero"
    context.report(f"{total} ({sum(zeros) / sum(sizes):.1%})")
