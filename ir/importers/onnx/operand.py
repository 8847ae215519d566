"""What flows between ONNX nodes during an import: values, and constants that are not in the graph yet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...constants import Tensor
from ...graph import Value
from ...ops.quantize import dequantize_array
from ...types import Dim, DType, QuantParams, TensorType


@dataclass(frozen=True, eq=False)
class StoredConstant:
    """Real numbers given as integers with quantization parameters: the weights of a quantized model."""

    data: Tensor
    quant: QuantParams

    @property
    def type(self) -> TensorType:
        """The type of the real numbers."""
        return TensorType(DType.F32, self.data.shape)

    def numpy(self) -> np.ndarray:
        """The real numbers, float32."""
        return dequantize_array(self.data.numpy(), self.quant)


@dataclass(frozen=True, eq=False)
class ShapeConstant:
    """An integer vector or scalar that holds symbolic dimensions: what Shape gives, and arithmetic on it."""

    data: np.ndarray
    """Of dtype object, holding int and :class:`~octavo.ir.types.Dim`."""

    @property
    def type(self) -> TensorType:
        return TensorType(DType.I64, self.data.shape)

    def dims(self) -> tuple[int | Dim, ...]:
        """The elements in order."""
        return tuple(d if isinstance(d, Dim) else int(d) for d in self.data.reshape(-1))


Operand = Value | Tensor | StoredConstant | ShapeConstant


def is_constant(operand: Operand | None) -> bool:
    """Whether the numbers are known now."""
    return isinstance(operand, Tensor | StoredConstant)
