"""The exact definition of accumulating kernels in elementary numpy: int64 accumulation, then the float32 epilogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from octavo.backends.tvm.isa import Isa
from octavo.backends.tvm.kernels.base import StridedView
from octavo.backends.tvm.kernels.conv import ConvSpec
from octavo.backends.tvm.kernels.epilogue import Epilogue

Array = npt.NDArray[Any]


def finish(isa: Isa, epilogue: Epilogue, acc: Array, arrays: Mapping[str, Array], residual: Array | None) -> Array:
    """Apply the epilogue to accumulators [..., c] that contain the bias; the residual holds stored bytes."""
    wrapped = (acc & 0xFFFFFFFF).astype("uint32").view("int32")
    if epilogue.out == "i32":
        return wrapped
    t: Array = wrapped.astype("float32") * arrays["multiplier"]
    if epilogue.out == "f32":
        return t
    zero_point = int(arrays["zero_point"])
    if residual is not None:
        shifted = (residual.astype("int32") - int(arrays["residual_zero_point"])).astype("float32")
        t = t + shifted * np.float32(arrays["residual_multiplier"])
    low = arrays.get("lo", isa.act_min - zero_point)
    high = arrays.get("hi", isa.act_max - zero_point)
    y = np.rint(np.clip(t, np.float32(low), np.float32(high))).astype("int64") + zero_point
    if epilogue.table:
        y = arrays["table"].astype("int64")[y - isa.act_offset + 128] + isa.act_offset
    stored: Array = y.astype(isa.act_dtype)
    return stored


def view(flat: Array, place: StridedView, shape: tuple[int, ...]) -> Array:
    """The NHWC tensor of `shape` that a strided view describes, sharing memory with `flat`."""
    size = flat.itemsize
    strides = (place.batch * size, place.row * size, place.pixel * size, size)
    seen: Array = np.lib.stride_tricks.as_strided(flat[place.offset :], shape, strides)
    return seen


def conv_accumulators(spec: ConvSpec, x: Array, weight: Array, x_zero_point: int) -> Array:
    """int64 accumulators [n, h, w, groups * out_channels], without bias, from the flat stored input."""
    height = (spec.out_h - 1) * spec.stride_h + (spec.kernel_h - 1) * spec.dilation_h + 1
    width = (spec.out_w - 1) * spec.stride_w + (spec.kernel_w - 1) * spec.dilation_w + 1
    image = view(x, spec.input, (spec.batch, height, width, spec.groups * spec.in_channels))
    shape = (spec.batch, spec.out_h, spec.out_w, spec.groups, spec.out_channels)
    acc = np.zeros(shape, "float64")
    kernel = weight.reshape(spec.groups, spec.out_channels, spec.in_channels, spec.kernel_h, spec.kernel_w)
    for row in range(spec.kernel_h):
        for column in range(spec.kernel_w):
            top, left = row * spec.dilation_h, column * spec.dilation_w
            rows = slice(top, top + (spec.out_h - 1) * spec.stride_h + 1, spec.stride_h)
            columns = slice(left, left + (spec.out_w - 1) * spec.stride_w + 1, spec.stride_w)
            part = image[:, rows, columns].astype("float64") - x_zero_point
            grouped = part.reshape(*part.shape[:3], spec.groups, spec.in_channels)
            for group in range(spec.groups):  # products of bytes are exact in float64, and BLAS is quick
                acc[:, :, :, group] += grouped[..., group, :] @ kernel[group, :, :, row, column].T.astype("float64")
    total: Array = np.rint(acc).astype("int64").reshape(*shape[:3], -1)
    return total
