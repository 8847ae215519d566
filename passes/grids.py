"""Integer weights of imported models as real numbers on the grid that the freeze reads."""

from __future__ import annotations

import numpy as np

from ..ir.graph import Value
from ..ir.ops.quantize import FakeQuantize, dequantize_array, integer_range
from ..ir.types import DType, QuantParams, per_channel, per_tensor
from .rewriting import Rewriter

SHIFT = {DType.I8: 0, DType.U8: 128}
"""What to subtract from stored values to get them as signed bytes."""


def fake_quantized(rewriter: Rewriter, value: Value, dtype: DType, quant: QuantParams) -> Value:
    """``value`` on the grid of stored ``dtype`` with ``quant``, as signed bytes."""
    low, high = (bound - SHIFT[dtype] for bound in integer_range(dtype))
    zero = quant.zero_point_array().astype(np.float32) - SHIFT[dtype]
    scale = quant.scale_array()
    if quant.axis is None:
        scale, zero = scale.reshape(()), zero.reshape(())
    parameters = (rewriter.constant(scale, f"{value.name}.scale"), rewriter.constant(zero, f"{value.name}.zero_point"))
    return rewriter.insert(FakeQuantize(low, high, quant.axis), value, *parameters)


def weight_on_grid(rewriter: Rewriter, stored: np.ndarray, quant: QuantParams, name: str) -> Value:
    """The real weight that ``stored`` (int8 or uint8) means, float32, on a grid whose zero point is 0.

    Kernels multiply by weights without a zero point. Where ``stored - zero_point`` fits int8, as it does for weights
    quantized around 0, that grid holds the same numbers, and the freeze takes them over without rounding again. Where
    it does not, the weight is on no grid, and ``quantize`` finds it one.
    """
    real = rewriter.constant(dequantize_array(stored, quant), name)
    centered = symmetric_grid(stored, quant)
    return real if centered is None else fake_quantized(rewriter, real, DType.I8, centered)


def symmetric_grid(stored: np.ndarray, quant: QuantParams) -> QuantParams | None:
    """The grid of zero point 0 that holds the same real numbers, or None when they do not fit int8 there."""
    shape = [1] * stored.ndim
    if quant.axis is not None:
        shape[quant.axis] = -1
    centered = stored.astype(np.int64) - quant.zero_point_array().reshape(shape)
    if centered.min(initial=0) < -128 or centered.max(initial=0) > 127:
        return None
    return per_tensor(quant.scale[0]) if quant.axis is None else per_channel(quant.scale, None, quant.axis)
