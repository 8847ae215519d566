"""qconv, qconv_transpose, qlinear and qmatmul: kernels that accumulate products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ....ir.graph import Node, Value
from ....ir.ops.constant import Constant
from ....ir.ops.conv import ConvTranspose
from ....ir.ops.integer import QConv, QConvTranspose, QLinear, QMatMul, QTable, multiplier, quant_of
from ....ir.types import QuantParams
from ...plan.builder import PlanBuilder, channels_last_order
from ...plan.moves import Border
from ...plan.views import View
from ..kernels import chained, grouped, maddubs, sparse, winograd
from ..kernels.base import KernelSpec, StridedView
from ..kernels.conv import ConvSpec
from ..kernels.depthwise import DepthwiseSpec
from ..kernels.epilogue import Epilogue
from ..kernels.matmul import MatmulSpec
from ..kernels.transposed import Axis, TransposedConv
from .registry import lowers

Array = npt.NDArray[Any]


def conv_border(site: PlanBuilder, node: Node) -> Border | None:
    """Padding means the real 0, which is stored as the zero point."""
    assert isinstance(node.op, QConv)
    return Border(node.op.padding, quant_of(node.inputs[0].type).zero_point[0])


@lowers(QConv, border=conv_border)
def lower_qconv(site: PlanBuilder, node: Node) -> None:
    """Depthwise or implicit GEMM over channels-last views; a following table is looked up in the epilogue."""
    op, x, weight = node.op, node.inputs[0], node.inputs[1]
    assert isinstance(op, QConv)
    border = conv_border(site, node)
    assert border is not None
    source = site.padded(x, border)
    tail = _Tail(site, node)
    out = site.allocate(tail.value, channels_last_order(source.rank))
    kernel, stride, dilation = (two_axes(part) for part in (weight.type.static_shape[2:], op.stride, op.dilation))
    image, result = (strided_view(image_axes(view)) for view in (source, out))
    batch, channels, height, width = image_axes(out).shape
    common: dict[str, Any] = {
        "batch": batch,
        "out_h": height,
        "out_w": width,
        "input": image,
        "output": result,
        "kernel_h": kernel[0],
        "kernel_w": kernel[1],
        "stride_h": stride[0],
        "stride_w": stride[1],
        "dilation_h": dilation[0],
        "dilation_w": dilation[1],
        "full_range": bool((tail.weight == -128).any()),
        "epilogue": tail.epilogue(lambda view: strided_view(image_axes(view))).fitted(site.isa, tail.constants()),
    }
    spec: ConvSpec | DepthwiseSpec
    if op.groups > 1 and op.groups == channels == x.type.shape[1]:
        spec = DepthwiseSpec(channels=channels, **common)
    else:
        inputs = tail.weight.shape[1]
        spec = ConvSpec(in_channels=inputs, out_channels=channels // op.groups, groups=op.groups, **common)
    site.call(_chosen(site, node, spec, tail), node.where, tail.views(source, out), tail.constants())


@lowers(QLinear)
def lower_qlinear(site: PlanBuilder, node: Node) -> None:
    """One GEMM over all leading axes."""
    x = node.inputs[0]
    source = site.contiguous(site.view(x))
    tail = _Tail(site, node)
    out = site.allocate(tail.value)
    depth, columns = source.shape[-1], out.shape[-1]
    rows = math.prod(source.shape[:-1])
    flat = _rows(out, rows, columns)
    if flat is None:
        flat = site.scratch_view(out.shape, out.dtype)
    spec = ConvSpec.matmul(
        rows,
        depth,
        columns,
        tail.epilogue(lambda view: _row_view(site.contiguous(view), rows, columns)).fitted(site.isa, tail.constants()),
        row_stride=depth,
        out_stride=columns if flat is not out else out.strides[-2] if out.rank > 1 else columns,
        full_range=bool((tail.weight == -128).any()),
    )
    site.call(_chosen(site, node, spec, tail), node.where, tail.views(source, flat), tail.constants())
    if flat is not out:
        site.copy(flat, out, node.where)


def _chosen(site: PlanBuilder, node: Node, spec: ConvSpec | DepthwiseSpec, tail: _Tail) -> KernelSpec:
    """The fastest kernel for the weights."""
    filtered, gain = winograd.choose(spec, site.isa, tail.weight) if isinstance(spec, ConvSpec) else (None, 1.0)
    kernel, reason = sparse.choose(spec, site.isa, tail.weight, gain)
    if reason:
        site.note(node, reason)
    if kernel is not spec:
        return kernel
    if filtered is not None:
        site.note(node, f"Winograd's filtering, {filtered.size}x{filtered.size} results at once, saves multiplications")
        return filtered
    if isinstance(spec, ConvSpec) and spec.groups > 1:
        return grouped.choose(spec, site.isa)
    if isinstance(spec, ConvSpec) and (linked := chained.choose(spec, site.isa, tail.weight)):
        site.note(node, "words hold the sums of four products, which the weights prove exact")
        return linked
    if isinstance(spec, ConvSpec) and (bytewise := maddubs.choose(spec, site.isa, tail.weight)):
        site.note(node, "words hold the sums of two and four products, where the weights prove them exact")
        return bytewise
    return spec


def transposed_axes(node: Node) -> tuple[Axis, Axis]:
    """Height and width of a transposed convolution."""
    op = node.op
    assert isinstance(op, QConvTranspose | ConvTranspose)
    sizes, outs = node.inputs[0].type.static_shape[2:], node.output.type.static_shape[2:]
    kernel, padding = node.inputs[1].type.static_shape[2:], [before for before, _ in op.padding]
    axes = [Axis(*each) for each in zip(sizes, outs, kernel, op.stride, padding, op.dilation, strict=True)]
    return (axes[0], axes[1]) if len(axes) == 2 else (Axis(1, 1, 1), axes[0])


def transposed_conv(node: Node, source: View, out: View) -> TransposedConv:
    """The transposed convolution of a node between channels-last views; the source includes its border."""
    op = node.op
    assert isinstance(op, QConvTranspose | ConvTranspose)
    height, width = transposed_axes(node)
    return TransposedConv(
        batch=out.shape[0],
        height=height,
        width=width,
        in_channels=source.shape[1] // op.groups,
        out_channels=out.shape[1] // op.groups,
        input=strided_view(image_axes(source)),
        output=strided_view(image_axes(out)),
        groups=op.groups,
    )


def transposed_border(site: PlanBuilder, node: Node) -> Border | None:
    """What the phases of a transposed convolution read around the image: the real 0."""
    pads = tuple(axis.border for axis in transposed_axes(node))
    rank = node.inputs[0].type.rank
    return Border(pads[4 - rank :], quant_of(node.inputs[0].type).zero_point[0])


@lowers(QConvTranspose, border=transposed_border)
def lower_qconv_transpose(site: PlanBuilder, node: Node) -> None:
    """One ordinary convolution for each position within a stride, all writing into the same image."""
    op = node.op
    assert isinstance(op, QConvTranspose)
    border = transposed_border(site, node)
    assert border is not None
    source = site.padded(node.inputs[0], border)
    tail = _Tail(site, node)
    out = site.allocate(tail.value, channels_last_order(source.rank))
    whole = replace(
        transposed_conv(node, source, out),
        full_range=bool((tail.weight == -128).any()),
        epilogue=tail.epilogue(lambda view: strided_view(image_axes(view))),
    )
    constants = tail.constants()
    if sparse.has_zeros(tail.weight):
        site.note(node, "dense: transposed convolutions have no sparse kernel")
    for phase in whole.phases:
        own = phase.constants(constants)
        spec = replace(phase.spec, epilogue=phase.spec.epilogue.fitted(site.isa, own))
        site.call(spec, node.where, tail.views(source, out), own)


@lowers(QMatMul)
def lower_qmatmul(site: PlanBuilder, node: Node) -> None:
    """Batched products; the right operand may lie transposed, the left one needs contiguous rows."""
    op = node.op
    assert isinstance(op, QMatMul)
    shape = node.output.type.static_shape
    a, b = (batched(site.view(value), shape) for value in node.inputs)
    if a.strides[-1] != 1 and a.shape[-1] != 1:
        a = site.contiguous(a)
    if 1 not in (b.strides[-1], b.strides[-2]):
        b = site.contiguous(b)
    out = site.allocate(node.output)
    result = out if out.strides[-1] == 1 or out.shape[-1] == 1 else site.scratch_view(out.shape, out.dtype)
    quants = [quant_of(value.type) for value in node.inputs]
    constants: dict[str, npt.ArrayLike] = {
        "a_zero_point": site.stored(quants[0].zero_point[0]),
        "b_zero_point": site.stored(quants[1].zero_point[0]),
        "multiplier": multiplier(quants, op.out)[0],
    }
    if op.out is not None:
        constants |= rounding_constants(site, op.out)
    transposed = b.strides[-1] != 1 and b.shape[-1] != 1
    for index in np.ndindex(*shape[: max(0, len(shape) - 4)]):
        parts = [_four_axes(view, index) for view in (a, b, result)]
        left, right, target = parts
        spec = MatmulSpec(
            outer=target.shape[0],
            inner=target.shape[1],
            rows=left.shape[2],
            depth=left.shape[3],
            columns=target.shape[3],
            a=StridedView(left.strides[0], left.strides[1], left.strides[2]),
            b=StridedView(right.strides[0], right.strides[1], right.strides[3 if transposed else 2]),
            output=StridedView(target.strides[0], target.strides[1], target.strides[2]),
            transposed=transposed,
            epilogue=Epilogue("f32" if op.out is None else "byte").fitted(site.isa, constants),
        )
        site.call(spec, node.where, {"a": left, "b": right, "out": target}, constants)
    if result is not out:
        site.copy(result, out, node.where)


def batched(view: View, shape: tuple[int, ...]) -> View:
    """An operand with the batch axes of the result, broadcast by stride 0."""
    return view.expanded((*shape[:-2], *view.shape[-2:]))


def _four_axes(view: View, index: tuple[int, ...]) -> View:
    """One (outer, inner, rows, columns) part of a view: leading axes fixed at ``index``, missing ones inserted."""
    lead = len(index)
    part = view.sliced((*index, *[0] * (view.rank - lead)), (*[1] * lead, *view.shape[lead:]))
    part = View(part.storage, part.dtype, part.shape[lead:], part.strides[lead:], part.offset)
    while part.rank < 4:
        part = part.inserted(0)
    return part


class _Tail:
    """What follows the accumulator of a weighted node: bias, requantization, residual, and a fused table."""

    def __init__(self, site: PlanBuilder, node: Node) -> None:
        self._site = site
        self._node = node
        self._table = _fusible_table(site, node)
        self.value: Value = node.output
        if self._table is not None:
            site.mark_done(self._table)
            self.value = self._table.output
        constant = node.inputs[1].op
        assert isinstance(constant, Constant)
        quant = quant_of(node.inputs[1].type)
        self.weight: Array = constant.data.numpy()
        if not quant.symmetric:
            site.refuse(node, "weights with a zero point have no kernel")
        self._residual = site.view(node.inputs[3]) if len(node.inputs) > 3 else None

    @property
    def _out(self) -> QuantParams | None:
        return self._node.outputs[0].type.quant

    def epilogue(self, view: Any) -> Epilogue:
        """The epilogue for any constants; ``view`` says how a residual is strided."""
        residual = None if self._residual is None else view(self._residual_view())
        out: Any = "f32" if self._out is None else "byte"
        return Epilogue(out, residual, table=self._table is not None)

    def _residual_view(self) -> View:
        assert self._residual is not None
        if self._residual.rank in (3, 4) and isinstance(self._node.op, QConv):
            self._residual = self._site.channels_last(self._residual)
        else:
            self._residual = self._site.contiguous(self._residual)
        return self._residual

    def views(self, x: View, out: View) -> dict[str, View]:
        """The operands by argument name."""
        views = {"x": x, "out": out}
        return views if self._residual is None else {**views, "residual": self._residual}

    def constants(self) -> dict[str, npt.ArrayLike]:
        """What the kernel packs: weight, bias, multipliers, zero points in the stored domain, clamp, table."""
        site, node, out = self._site, self._node, self._out
        x, weight = quant_of(node.inputs[0].type), quant_of(node.inputs[1].type)
        channels = node.output.type.static_shape[-1 if isinstance(node.op, QLinear) else 1]
        bias = node.inputs[2].op if len(node.inputs) > 2 else None
        constants: dict[str, npt.ArrayLike] = {
            "weight": self.weight if self.weight.ndim != 2 else self.weight[:, :, None, None],
            "bias": bias.data.numpy() if isinstance(bias, Constant) else np.zeros(channels, np.int32),
            "x_zero_point": site.stored(x.zero_point[0]),
            "multiplier": np.broadcast_to(multiplier([x, weight], out), (channels,)).copy(),
        }
        if self.weight.ndim == 3:
            constants["weight"] = self.weight[:, :, None, :]
        if out is not None:
            constants |= rounding_constants(site, out, getattr(node.op, "clamp", None))
        if len(node.inputs) > 3:
            residual = quant_of(node.inputs[3].type)
            constants["residual_zero_point"] = site.stored(residual.zero_point[0])
            constants["residual_multiplier"] = multiplier([residual], out)[0]
        if self._table is not None:
            assert isinstance(self._table.op, QTable)
            constants["table"] = self._table.op.table.numpy()
        return constants


def rounding_constants(
    site: PlanBuilder, out: QuantParams, clamp: tuple[float, float] | None = None
) -> dict[str, npt.ArrayLike]:
    """Zero point (stored domain) and the clamp relative to it, for kernels that store bytes on the grid ``out``."""
    zero = out.zero_point[0]
    low, high = clamp or (-128, 127)
    return {
        "zero_point": site.stored(zero),
        "lo": int(low) - zero,
        "hi": int(high) - zero,
    }


def _fusible_table(site: PlanBuilder, node: Node) -> Node | None:
    """The table that alone reads the node's int8 output, so that its lookup can end the node's own epilogue."""
    value = node.output
    if value.type.quant is None or site.graph.is_output(value) or len(value.uses) != 1:
        return None
    reader = value.users[0]
    return reader if isinstance(reader.op, QTable) and reader.op.out is not None else None


def two_axes(values: Sequence[int]) -> tuple[int, int]:
    """Attributes of one or two spatial axes as (height, width)."""
    return (values[0], values[1]) if len(values) == 2 else (1, values[0])


def image_axes(view: View) -> View:
    """A view (N, C, W) as (N, C, 1, W); (N, C, H, W) as it is."""
    return view.inserted(2) if view.rank == 3 else view


def strided_view(view: View) -> StridedView:
    """The strides a kernel wants of an (N, C, H, W) view whose channels are adjacent."""
    return StridedView(view.strides[0], view.strides[2], view.strides[3])


def _row_view(view: View, rows: int, columns: int) -> StridedView:
    return StridedView(rows * columns, rows * columns, columns)


def _rows(view: View, rows: int, columns: int) -> View | None:
    """The view when its rows lie at one distance, else None."""
    if view.rank <= 1 or view.is_dense():
        return view
    two = view.reshaped((rows, columns))
    return view if two is not None and two.strides[1] == 1 and two.strides[0] == view.strides[-2] else None
