"""What several families read from attributes: element types, and windows with their padding."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import TensorProto, helper

from ...errors import ModelError
from ...types import Dim, DType
from .context import Context

Padding = tuple[tuple[int, int], ...]


def element_type(code: int, where: str) -> DType:
    """The element type of an ONNX type code; raises :class:`ModelError` for those octavo does not compute with."""
    try:
        return DType.from_numpy(helper.tensor_dtype_to_np_dtype(code))
    except (ModelError, KeyError):
        names = {number: text for text, number in TensorProto.DataType.items()}
        raise ModelError(
            f"element type {names.get(code, code)} is not supported",
            where=where,
            expected="float16/32/64, bfloat16, integers of 8 to 64 bits, or bool",
        ) from None


def pairs(pads: Sequence[int]) -> Padding:
    """ONNX's (all begins, all ends) as (begin, end) of each axis."""
    half = len(pads) // 2
    return tuple(zip(pads[:half], pads[half:], strict=True))


def window_padding(
    c: Context, spatial: Sequence[int | Dim], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Padding:
    """The padding of a convolution or pooling window, ``auto_pad`` resolved.

    SAME needs the spatial dimensions, except where the stride is 1.
    """
    auto = c.text("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        return pairs(c.ints("pads", (0,) * 2 * len(kernel)))
    if auto == "VALID":
        return ((0, 0),) * len(kernel)
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise ModelError(f"auto_pad {auto!r}", where=c.origin, expected="NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    result: list[tuple[int, int]] = []
    for size, k, s, d in zip(spatial, kernel, stride, dilation, strict=True):
        reach = d * (k - 1) + 1
        if s == 1:
            total = reach - 1
        else:
            (fixed,) = c.fixed((size,))
            total = max((-(-fixed // s) - 1) * s + reach - fixed, 0)
        small, large = total // 2, total - total // 2
        result.append((small, large) if auto == "SAME_UPPER" else (large, small))
    return tuple(result)
