"""From exact integers to stored int8: multipliers, the one rounding, and the base of all ops after the freeze."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import ModelError
from ...op import ExactOp, Op, Stage
from ...types import DType, QuantParams, Shape, TensorType
from ..quantize import broadcast_params

INT32 = np.iinfo(np.int32)
STORED_LOW, STORED_HIGH = -128, 127


def multiplier(
    inputs: Sequence[QuantParams | float | np.ndarray], output: QuantParams | None, divisor: float = 1.0
) -> np.ndarray:
    """Product of the input scales over the output's (1 for float output) and ``divisor``: shape (channels,) or (1,).

    Computed in float64 from the float32 scales, rounded once to float32.
    """
    product = np.ones(1, np.float64)
    for part in inputs:
        scale = part.scale_array() if isinstance(part, QuantParams) else np.asarray(part)
        product = product * scale.astype(np.float64)
    scale_out = 1.0 if output is None else float(output.scale[0])
    return np.asarray(product / (scale_out * divisor), np.float32)


def accumulator(total: np.ndarray) -> np.ndarray:
    """An int64 sum as float32, after asserting that int32 holds it."""
    if total.size and (total.min() < INT32.min or total.max() > INT32.max):
        raise ModelError("an accumulator leaves the int32 range", expected="weight scales that keep it inside")
    return total.astype(np.float32)


def store(real: np.ndarray, output: QuantParams | None, clamp: tuple[float, float] | None = None) -> np.ndarray:
    """Round float32 ``real`` (in units of the output's scale) into stored int8, or keep it when the output is float.

    ``clamp`` holds stored values for int8, real ones for float output. Values are clamped in float, then rounded to
    nearest even; NaN gives the zero point.
    """
    if output is None:
        return real if clamp is None else np.clip(real, np.float32(clamp[0]), np.float32(clamp[1]))
    zero = output.zero_point[0]
    low, high = clamp or (STORED_LOW, STORED_HIGH)
    bounded = np.clip(real, np.float32(low - zero), np.float32(high - zero))
    rounded = np.where(np.isnan(bounded), np.float32(0.0), np.rint(bounded))
    return np.asarray(rounded + np.float32(zero), np.int8)


def centered(x: np.ndarray, quant: QuantParams | None) -> np.ndarray:
    """``x - zero point`` as int64."""
    assert quant is not None
    return np.asarray(np.subtract(x, broadcast_params(quant, x.ndim)[1], dtype=np.int64))


def require_quantized(name: str, *types: TensorType) -> None:
    """Raise :class:`ModelError` unless every type is i8 with parameters."""
    for type in types:
        if type.dtype is not DType.I8 or type.quant is None:
            raise ModelError(f"{name} of {type}", expected="a quantized i8 tensor")


def quant_of(type: TensorType) -> QuantParams:
    """The parameters of a type that is known to be quantized."""
    assert type.quant is not None
    return type.quant


def scaled(x: np.ndarray, type: TensorType, out: QuantParams | None) -> np.ndarray:
    """Centered ``x`` in units of the output's scale, float32."""
    return np.asarray(centered(x, type.quant).astype(np.float32) * multiplier([quant_of(type)], out))


@dataclass(frozen=True)
class IntegerOp(Op, ExactOp):
    """An op on int8 values. ``out`` are the output's parameters; None makes it float32: the exact sum, dequantized."""

    stage: ClassVar[Stage] = Stage.INTEGER

    def typed(self, shape: Shape, out: QuantParams | None) -> tuple[TensorType, ...]:
        return (TensorType(DType.F32 if out is None else DType.I8, shape, out),)
