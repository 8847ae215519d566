"""Convolutions."""

from __future__ import annotations

from ...errors import ModelError
from ...ops.conv import Conv, ConvTranspose
from .attributes import Padding, pairs, window_padding
from .context import Context
from .operand import Operand
from .registry import translate


def conv_op(c: Context, x: Operand, weight: Operand) -> Conv:
    """The convolution that the node's attributes describe."""
    kernel = c.fixed(weight.type.shape[2:])
    if c.attr("kernel_shape") is not None and c.ints("kernel_shape") != kernel:
        raise ModelError(f"kernel_shape {c.ints('kernel_shape')} but a weight of {kernel}", where=c.origin)
    ones = (1,) * len(kernel)
    stride, dilation = c.ints("strides", ones), c.ints("dilations", ones)
    padding = window_padding(c, x.type.shape[2:], kernel, stride, dilation)
    return Conv(stride, padding, dilation, c.integer("group", 1))


@translate("Conv")
def conv(c: Context) -> Operand:
    """Padding stays an attribute."""
    return c.emit(conv_op(c, c.value(0), c.value(1)), *c.values_given())


@translate("ConvTranspose")
def conv_transpose(c: Context) -> Operand:
    """``output_shape`` and ``auto_pad`` resolved into padding."""
    kernel = c.fixed(c.type(1).shape[2:])
    ones, zeros = (1,) * len(kernel), (0,) * len(kernel)
    stride, dilation = c.ints("strides", ones), c.ints("dilations", ones)
    extra = c.ints("output_padding", zeros)
    padding, extra = _transpose_padding(c, kernel, stride, dilation, extra)
    op = ConvTranspose(stride, padding, extra, dilation, c.integer("group", 1))
    return c.emit(op, *c.values_given())


def _transpose_padding(
    c: Context, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...], extra: tuple[int, ...]
) -> tuple[Padding, tuple[int, ...]]:
    auto = c.text("auto_pad", "NOTSET")
    shape = c.attr("output_shape")
    if shape is None and auto in ("NOTSET", "", "VALID"):
        return (pairs(c.ints("pads", (0,) * 2 * len(kernel))) if auto != "VALID" else ((0, 0),) * len(kernel)), extra
    sizes = c.fixed(c.type(0).shape[2:])
    wanted = (
        tuple(int(d) for d in shape)[-len(kernel) :]
        if shape
        else tuple(size * s for size, s in zip(sizes, stride, strict=True))
    )
    padding: list[tuple[int, int]] = []
    for size, want, k, s, d, e in zip(sizes, wanted, kernel, stride, dilation, extra, strict=True):
        total = s * (size - 1) + e + (k - 1) * d + 1 - want
        small, large = total // 2, total - total // 2
        # The specification gives the odd element to the end for SAME_UPPER, and to the begin otherwise.
        padding.append((small, large) if auto == "SAME_UPPER" else (large, small))
    return tuple(padding), extra
