"""How pixels enter an integer network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...op import Quantization, register_op
from ...types import DType, QuantParams, TensorType
from ..image import NormalizeImage
from ..quantize import Quantize
from .rounding import IntegerOp


@register_op
@dataclass(frozen=True)
class QImage(IntegerOp):
    """``normalize_image`` of pixels u8[N, H, W, C], quantized to i8[N, C, H, W] on the grid ``out``."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float
    out: QuantParams

    name: ClassVar[str] = "qimage"
    operands: ClassVar[tuple[str, ...]] = ("x",)
    quantization: ClassVar[Quantization] = Quantization.TABLE

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        (normalized,) = self._normalize().infer(x)
        return self.typed(normalized.shape, self.out)

    def exact(self, types: Sequence[TensorType], x: np.ndarray) -> np.ndarray:
        channels = np.arange(x.shape[3])[:, np.newaxis, np.newaxis]
        return np.asarray(self.table(x.shape[3])[channels, x.transpose(0, 3, 1, 2)])

    def table(self, channels: int) -> np.ndarray:
        """What every pixel value becomes in each channel: i8[channels, 256]."""
        pixels = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, np.newaxis], (1, 1, 256, channels))
        normalized = self._normalize().exact([], pixels)
        return Quantize(DType.I8, self.out).exact([], normalized).reshape(channels, 256)

    def _normalize(self) -> NormalizeImage:
        return NormalizeImage(self.mean, self.std, self.scale)
