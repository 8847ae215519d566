"""Turn observed ranges into grids: fake quantization of activations, per-channel fake quantization of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..ir.constants import Tensor
from ..ir.errors import CalibrationError, PassError, UsageError
from ..ir.graph import Graph, Node, Precision, Value
from ..ir.op import Quantization
from ..ir.ops.constant import Constant
from ..ir.ops.conv import ConvTranspose
from ..ir.ops.quantize import FakeQuantize, Observer
from ..ir.ops.shape import Concat
from .base import Exactness, Pass, PassContext
from .calibration.masks import MASK_MAGNITUDE, MASK_ROOM
from .calibration.rounding import balanced, unrepeated
from .calibration.steps import LEAST_SCALE, binary_scale, least_squares_scale
from .decide import activation_operands
from .names import check_patterns, is_named
from .registry import register_pass

BIAS_LIMIT = float(1 << 30)
"""Quantized biases, and sums of products apart from them, stay below this: together they fit int32."""

_BLOCK = 1 << 20
"""Weights rounded at a time, which bounds the memory it takes."""


@register_pass
@dataclass(frozen=True)
class Quantize(Pass):
    """Replace observers by fake quantization, and fake-quantize weights, one scale per output channel or per tensor.

    ``rounding`` moves weights onto their grid: each to the ``nearest`` step, or ``balanced``, so that the errors of an
    output channel cancel (see :mod:`.calibration.rounding`). Either way equal weights of one scale become equal
    integers, so codebooks of ``share-weights`` stay codebooks, and zeros stay zero.

    Weights of convolutions and linear layers have ``weight_bits`` bits: the integers from ``-(2**(bits - 1) - 1)`` to
    ``2**(bits - 1) - 1``, stored in bytes. ``keep_int8`` lists shell patterns over names of layers that keep 8.
    ``weight_range`` chooses the scale: for the grid to hold all weights (``max``), or for the least squared error
    (``mse``), which few bits need. Two bits are ternary weights, with ``mse`` those that Li and Liu ("Ternary Weight
    Networks", 2016) approximate by a rule for the threshold. One bit is the sign, times the mean magnitude (Rastegari
    et al., "XNOR-Net", 2016). It has no zero: zeros become -1, which is reported, and refused where
    they are the most; a channel of zeros alone has a scale that is as good as zero.
    """

    weights: Literal["per-channel", "per-tensor"] = "per-channel"
    rounding: Literal["balanced", "nearest"] = "balanced"
    weight_bits: int = 8
    weight_range: Literal["max", "mse"] = "max"
    keep_int8: tuple[str, ...] = ()

    name: ClassVar[str] = "quantize"
    exactness: ClassVar[Exactness] = Exactness.LOSSY

    def __post_init__(self) -> None:
        if not 1 <= self.weight_bits <= 8:
            raise UsageError(f"quantize: weight-bits={self.weight_bits}", expected="1 to 8")

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Every observer must hold bounds: run ``calibrate`` before, or give ranges.

        Raises:
            UsageError: ``keep_int8`` names no layer.
            CalibrationError: observers without bounds.
            PassError: weights or biases that are not finite, or one bit for a layer of mostly zeros.
        """
        check_patterns(graph, self.keep_int8, "quantize: keep-int8")
        grids = quantize_activations(graph)
        for node in list(graph.nodes):
            if _quantized(node) and node.op.rule is Quantization.WEIGHTED:
                self._quantize_weight(grids, node, context)
        return grids.inserted > 0

    def _quantize_weight(self, grids: Grids, node: Node, context: PassContext) -> None:
        """The weight's grid: symmetric, raised where the quantized bias or accumulator would leave int32."""
        weight = node.inputs[1]
        input_grid = grid_of(node.inputs[0])
        if not isinstance(weight.op, Constant) or input_grid is None:
            return
        array = weight.op.data.numpy()
        axis = 1 if isinstance(node.op, ConvTranspose) else 0
        bias = (
            node.inputs[2].op.data.numpy() if len(node.inputs) > 2 and isinstance(node.inputs[2].op, Constant) else None
        )
        _require_finite(node, array, bias)
        # A group of a transposed convolution has outputs of its own: its weight is (C, O / groups, ...).
        mixed = isinstance(node.op, ConvTranspose) and node.op.groups > 1
        axis_or_none = None if self.weights == "per-tensor" or mixed else axis
        op = self._grid(node, axis_or_none)
        if op.step > 1:
            _consider_zeros(node, array, op.axis, context)
        scale = np.maximum(self._scale(array, op), _accumulator_floor(array, axis_or_none))
        if bias is not None:
            scale = np.maximum(scale, _bias_floor(bias, input_grid.scale, axis_or_none))
        if self.rounding == "balanced" and not mixed and op.step == 1:
            # By its largest weight, a channel ends on the last step but for float rounding.
            limit = op.high if self.weight_range == "mse" else np.inf
            rounded = round_weight(array, scale, axis, limit)
            data, trains = Tensor.of(rounded), weight.op.trains
            weight = grids.graph.constant(data, before=node, origin=node.origin, name=weight.name, trains=trains)
        node.set_input(1, grids.insert(node, weight, scale, np.zeros_like(scale), op))

    def _grid(self, node: Node, axis: int | None) -> FakeQuantize:
        """The integers that a layer's weight may be."""
        bits = 8 if is_named(node, self.keep_int8) else self.weight_bits
        largest = max(2 ** (bits - 1) - 1, 1)
        return FakeQuantize(-largest, largest, axis, step=2 if bits == 1 else 1)

    def _scale(self, weight: np.ndarray, op: FakeQuantize) -> np.ndarray:
        """The scales of a weight on the grid of ``op`` (float64), shape () or (channels,)."""
        if op.step > 1:
            return binary_scale(weight, op.axis)
        find = weight_scale if self.weight_range == "max" else least_squares_scale
        return find(weight, op.axis, op.high)


@dataclass(frozen=True)
class Grid:
    """Scale and zero point of an activation that lies on a quantization grid."""

    scale: float
    zero_point: int


def grid_of(value: Value) -> Grid | None:
    """The grid a value lies on, looking through ops that only move elements; None when it has none."""
    node = grid_node(value)
    return None if node is None else _constant_grid(node)


def grid_node(value: Value) -> Node | None:
    """The ``fake_quantize`` whose grid a value lies on, looking through ops that only move elements."""
    while (producer := value.producer) is not None:
        if isinstance(producer.op, FakeQuantize):
            return producer
        if producer.op.rule not in (Quantization.PRESERVING, Quantization.JOINING) or not producer.inputs:
            return None
        value = producer.inputs[0]
    return None


def _constant_grid(node: Node) -> Grid | None:
    scale, zero = node.inputs[1].op, node.inputs[2].op
    if node.op.axis is not None or not isinstance(scale, Constant) or not isinstance(zero, Constant):  # type: ignore[attr-defined]
        return None
    return Grid(float(scale.data.numpy()), int(zero.data.numpy()))


def activation_grid(bounds: tuple[float, float], symmetric: bool) -> Grid:
    """The int8 grid over a range widened to hold 0 (Jacob et al., 2018, section 3); symmetric: zero point 0, +-127."""
    low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)
    if symmetric:
        return Grid(_positive(max(-low, high) / 127.0), 0)
    scale = _positive((high - low) / 255.0)
    return Grid(scale, int(np.clip(np.rint(-128.0 - low / scale), -128, 127)))


def weight_scale(weight: np.ndarray, axis: int | None, largest: int = 127) -> np.ndarray:
    """Symmetric scales (float64) that map the largest magnitude to ``largest``: shape () or (channels,)."""
    axes = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
    magnitude = np.abs(weight.astype(np.float64)).max(axis=axes)
    return np.where(magnitude > 0, np.maximum(magnitude / largest, LEAST_SCALE), 1.0)


def round_weight(weight: np.ndarray, scale: np.ndarray, axis: int, limit: float = np.inf) -> np.ndarray:
    """The weight (float32) moved onto its grid with balanced errors; ``axis`` counts the output channels.

    ``scale`` has shape () or (channels,). Weights of one scale that are equal go to the nearest step, and so stay
    equal. What lies more than ``limit`` steps from zero goes to that step, and takes no part in the balance.
    """
    steps = np.asarray(scale, np.float32)
    by_output = np.moveaxis(weight, axis, 0).copy()
    rows = np.broadcast_to(steps.reshape(-1, 1, 1), (by_output.shape[0], 1, 1))
    kernels = by_output.reshape(*by_output.shape[:2], -1)
    single = unrepeated(kernels.reshape(1, -1)).reshape(kernels.shape) if steps.ndim == 0 else None
    block = max(1, _BLOCK // max(1, kernels[0].size))
    for start in range(0, len(kernels), block):
        part = slice(start, start + block)
        some = kernels[part]
        movable = unrepeated(some.reshape(len(some), -1)).reshape(some.shape) if single is None else single[part]
        inside = np.clip(some.astype(np.float64) / rows[part], -limit, limit)
        kernels[part] = balanced(inside, movable) * rows[part]
    return np.ascontiguousarray(np.moveaxis(kernels.reshape(by_output.shape), 0, axis))


def _positive(scale: float) -> float:
    """The float32 scale; a value that is always zero gets scale 1."""
    return float(np.float32(max(scale, LEAST_SCALE))) if scale > 0 else 1.0


def _require_finite(node: Node, weight: np.ndarray, bias: np.ndarray | None) -> None:
    for array, name in ((weight, "weight"), (bias, "bias")):
        if array is not None and not np.isfinite(array).all():
            count = int(np.count_nonzero(~np.isfinite(array)))
            what = f"{count:,} of {array.size:,} elements of the {name} are infinite or not a number"
            raise PassError(what, where=node.where, hint="give finite ones, or keep the layer in float")


def _consider_zeros(node: Node, weight: np.ndarray, axis: int | None, context: PassContext) -> None:
    """Say that zeros become -1, and refuse it where they are the most. Channels of zeros alone do well."""
    channels = weight.reshape(1, -1) if axis is None else np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    alive = channels[channels.any(axis=1)]
    zeros = int(np.count_nonzero(alive == 0))
    if 2 * zeros > alive.size:
        what = f"weight-bits=1 has no zero, but {zeros:,} of {alive.size:,} weights are zero"
        raise PassError(what, where=node.where, hint="take weight-bits=2, or list the layer in keep-int8")
    if zeros:
        context.report(f"{node.where}: {zeros:,} of {alive.size:,} weights are zero, and become -1 with weight-bits=1")


def _accumulator_floor(weight: np.ndarray, axis: int | None) -> np.ndarray:
    """The smallest scale whose accumulator, over inputs at most 255 away from their zero point, is in range."""
    axes = tuple(i for i in range(weight.ndim) if i != (axis or 0))
    sums = np.abs(weight.astype(np.float64)).sum(axis=axes) * 255.0 / BIAS_LIMIT
    return np.asarray(sums if axis is not None else sums.max())


def _bias_floor(bias: np.ndarray, input_scale: float, axis: int | None) -> np.ndarray:
    floor = np.abs(bias.astype(np.float64)) / (input_scale * BIAS_LIMIT)
    return np.asarray(floor.max() if axis is None else floor)


def quantize_activations(graph: Graph) -> Grids:
    """Replace every observer by fake quantization to its bounds; constants among activations get their own grid.

    Raises:
        CalibrationError: observers without bounds.
    """
    _require_bounds(graph)
    grids = Grids(graph)
    for node in list(graph.nodes):
        if isinstance(node.op, Observer):
            grids.activation(node)
        elif _quantized(node) and node.op.rule is not Quantization.WEIGHTED:
            grids.constant_operands(node)
    return grids


class Grids:
    """Inserts fake quantization into one graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.inserted = 0

    def activation(self, observer: Node) -> None:
        """Replace an observer by its grid; a concat hands its grid to its inputs instead."""
        op = observer.op
        assert isinstance(op, Observer)
        assert op.bounds is not None
        grid = activation_grid(op.bounds, op.symmetric)
        source = observer.inputs[0]
        if isinstance(source.op, Concat) and source.producer is not None:
            for position, part in enumerate(source.producer.inputs):
                source.producer.set_input(position, self._on(grid, part, source.producer))
            self.graph.replace(observer.output, source)
        else:
            self.graph.replace(observer.output, self._on(grid, source, observer))
        self.graph.erase(observer)

    def constant_operands(self, node: Node) -> None:
        """Constant operands of elementwise ops get their own exact range."""
        for position in activation_operands(node):
            value = node.inputs[position]
            if isinstance(value.op, Constant):
                data = value.op.data.numpy()
                finite = _without_masks(data)
                if finite is not data:
                    # Masks do not train; without their size nothing would tell that they are some.
                    value = self.graph.constant(
                        Tensor.of(finite), before=node, origin=node.origin, name=value.name, trains=False
                    )
                symmetric = node.op.rule is Quantization.MATMUL and position == 1
                grid = activation_grid((float(finite.min()), float(finite.max())), symmetric)
                node.set_input(position, self._on(grid, value, node))

    def insert(self, anchor: Node, value: Value, scale: np.ndarray, zero: np.ndarray, op: FakeQuantize) -> Value:
        """``value`` fake-quantized by ``op``, just before ``anchor``."""
        self.inserted += 1
        parameters = [
            self.graph.constant(Tensor.of(np.asarray(p, np.float32)), before=anchor, origin=anchor.origin, name=name)
            for p, name in ((scale, f"{value.name}.scale"), (zero, f"{value.name}.zero_point"))
        ]
        names = [f"{value.name}.fq"]
        return self.graph.insert(op, [value, *parameters], before=anchor, origin=anchor.origin, names=names).output

    def _on(self, grid: Grid, value: Value, anchor: Node) -> Value:
        return self.insert(anchor, value, np.asarray(grid.scale), np.asarray(grid.zero_point), FakeQuantize())


def _without_masks(data: np.ndarray) -> np.ndarray:
    """Constants with numbers that a grid has room for in place of minus infinity and the like."""
    masks = np.abs(data) >= MASK_MAGNITUDE
    if not masks.any():
        return data
    rest = data[~masks]
    low, high = float(rest.min(initial=0.0)), float(rest.max(initial=0.0))
    room = max(high - low, MASK_ROOM)
    clipped: np.ndarray = np.clip(data, low - room, high + room)
    return clipped


def _quantized(node: Node) -> bool:
    return node.decision is not None and node.decision.precision is Precision.QUANTIZED


def _require_bounds(graph: Graph) -> None:
    open_ranges = [n.op.key for n in graph.nodes if isinstance(n.op, Observer) and n.op.bounds is None]
    if open_ranges:
        shown = ", ".join(open_ranges[:5]) + (f" and {len(open_ranges) - 5} more" if len(open_ranges) > 5 else "")
        raise CalibrationError(
            f"{len(open_ranges)} value(s) have no range: {shown}",
            hint="run calibrate before quantize, or give the ranges",
        )


def ranges(graph: Graph) -> Mapping[str, tuple[float, float]]:
    """The bounds of every calibrated observer, by key."""
    found = (n.op for n in graph.nodes if isinstance(n.op, Observer))
    return {op.key: op.bounds for op in found if op.bounds is not None}
