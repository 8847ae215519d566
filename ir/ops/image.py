"""What makes numbers of a decoder's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import ModelError
from ..op import ExactOp, Op, register_op
from ..pixels import normalize
from ..types import DType, TensorType

PIXEL_RANK = 4


@register_op
@dataclass(frozen=True)
class NormalizeImage(Op, ExactOp):
    """``(x / scale - mean) / std`` of pixels u8[N, H, W, C], as f32[N, C, H, W].

    ``mean`` and ``std`` hold one number for each channel, or one for all.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 255.0

    name: ClassVar[str] = "normalize_image"
    operands: ClassVar[tuple[str, ...]] = ("x",)

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        check_pixels(self.name, x)
        n, h, w, c = x.shape
        if any(len(numbers) not in (1, c) for numbers in (self.mean, self.std)):
            what = f"normalize_image of {x} with {len(self.mean)} mean(s) and {len(self.std)} std(s)"
            raise ModelError(what, expected=f"one for each of {c} channels, or one for all")
        return (TensorType(DType.F32, (n, c, h, w)),)

    def exact(self, types: Sequence[TensorType], x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(normalize(x, self.scale, self.mean, self.std).transpose(0, 3, 1, 2))


def check_pixels(name: str, x: TensorType) -> None:
    """Raise :class:`ModelError` unless the type is that of pixels: u8[N, H, W, C] with C known."""
    if x.dtype is not DType.U8 or x.rank != PIXEL_RANK or x.quant is not None or not isinstance(x.shape[3], int):
        raise ModelError(f"{name} of {x}", expected="pixels: u8[N, H, W, C]")
