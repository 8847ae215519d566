"""Discrete Fourier transforms, and determinants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..errors import ModelError
from ..op import Op, register_op
from ..types import Dim, TensorType, normalize_axis


@register_op
@dataclass(frozen=True)
class Dft(Op):
    """The discrete Fourier transform along ``axis``; the last axis holds (real,) or (real, imaginary) parts.

    ``length`` crops or pads with zeros; ``inverse`` divides by it; ``onesided`` keeps the first half of a real
    signal's spectrum, or takes it as the input of an inverse that gives a real signal.
    """

    axis: int
    length: int
    inverse: bool = False
    onesided: bool = False

    name: ClassVar[str] = "dft"
    operands: ClassVar[tuple[str, ...]] = ("x",)

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        axis = normalize_axis(self.axis, x.rank)
        if x.shape[-1] not in (1, 2) or axis == x.rank - 1:
            raise ModelError(f"dft of {x} along axis {axis}", expected="real or complex parts in the last axis")
        size: int | Dim = self.length // 2 + 1 if self.onesided and not self.inverse else self.length
        parts = 1 if self.onesided and self.inverse else 2
        return (TensorType(x.dtype, (*x.shape[:axis], size, *x.shape[axis + 1 : -1], parts)),)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.double()  # so that what cancels is 0 within the rounding of the result
        axis = self.axis % x.ndim
        if x.shape[-1] == 1:
            signal = torch.complex(wide[..., 0], torch.zeros_like(wide[..., 0]))
        else:
            signal = torch.complex(wide[..., 0].contiguous(), wide[..., 1].contiguous())
        if self.inverse and self.onesided:
            real: torch.Tensor = torch.fft.irfft(signal, self.length, axis)
            return real.unsqueeze(-1).to(x.dtype)
        spectrum = (torch.fft.ifft if self.inverse else torch.fft.fft)(signal, self.length, axis)
        if self.onesided:
            spectrum = spectrum.narrow(axis, 0, self.length // 2 + 1)
        return torch.view_as_real(spectrum.resolve_conj()).contiguous().to(x.dtype)


@register_op
@dataclass(frozen=True)
class Determinant(Op):
    """The determinant of each matrix in the last two axes."""

    name: ClassVar[str] = "determinant"
    operands: ClassVar[tuple[str, ...]] = ("x",)

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        if x.rank < 2 or x.shape[-1] != x.shape[-2] or not x.dtype.is_float:
            raise ModelError(f"determinant of {x}", expected="square matrices of floats")
        return (TensorType(x.dtype, x.shape[:-2]),)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.linalg.det(x)
        return result
