"""Convolution and its transpose, in one to three spatial dimensions (NCW, NCHW, NCDHW)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from ..channels import Flow, Kept, Tie, alike, grouped, operand, result, same
from ..errors import ModelError
from ..op import Cost, Op, Quantization, register_op
from ..types import Dim, Shape, TensorType
from .elementwise import apply_clamp

Padding = tuple[tuple[int, int], ...]
"""(before, after) of each spatial dimension."""


@register_op
@dataclass(frozen=True)
class Conv(Op):
    """Cross-correlation of ``x`` (N, C, *spatial) with ``weight`` (O, C / groups, *kernel), plus ``bias`` (O,).

    ``residual`` has the output's shape and is added before the clamp: a skip connection fused into the convolution.
    """

    stride: tuple[int, ...]
    padding: Padding
    dilation: tuple[int, ...]
    groups: int = 1
    clamp: tuple[float, float] | None = None

    name: ClassVar[str] = "conv"
    operands: ClassVar[tuple[str, ...]] = ("x", "weight", "bias?", "residual?")
    quantization: ClassVar[Quantization] = Quantization.WEIGHTED

    def infer(
        self,
        x: TensorType,
        weight: TensorType,
        bias: TensorType | None = None,
        residual: TensorType | None = None,
    ) -> tuple[TensorType, ...]:
        shape = self.output_shape(x, weight)
        check_bias(self.name, bias, shape[1])
        if residual is not None and residual.shape != shape:
            raise ModelError("the residual of a conv has another shape than its output")
        return (TensorType(x.dtype, shape),)

    def output_shape(self, x: TensorType, weight: TensorType) -> Shape:
        """Shape of the output; raises :class:`ModelError` when operands and attributes do not fit."""
        spatial = len(self.stride)
        kernel = weight.static_shape
        if x.rank != spatial + 2 or len(kernel) != spatial + 2:
            raise ModelError(f"a {spatial}-d conv of rank {x.rank} input and rank {len(kernel)} weight")
        if x.shape[1] != kernel[1] * self.groups or kernel[0] % self.groups:
            raise ModelError(
                f"{x.shape[1]} channels, groups={self.groups}, weight of {kernel[0]}x{kernel[1]} channels do not fit"
            )
        extents = tuple(
            conv_extent(size, k, s, p, d)
            for size, k, s, p, d in zip(x.shape[2:], kernel[2:], self.stride, self.padding, self.dilation, strict=True)
        )
        return (x.shape[0], kernel[0], *extents)

    def run(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        residual: torch.Tensor | None = None,
    ) -> torch.Tensor:
        conv = (F.conv1d, F.conv2d, F.conv3d)[len(self.stride) - 1]
        if all(before == after for before, after in self.padding):
            padding = tuple(before for before, _ in self.padding)
        else:
            x, padding = pad_spatial(x, self.padding), (0,) * len(self.stride)
        y = conv(x, weight, bias, self.stride, padding, self.dilation, self.groups)
        return apply_clamp(y if residual is None else y + residual, self.clamp)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        kernel = inputs[1].static_shape
        return Cost(macs=outputs[0].size * (inputs[1].size // kernel[0]), elementwise=outputs[0].size)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        """Output channels follow the weight's first axis, input channels its second, alike in every group."""
        made, per_group, *_ = inputs[1].static_shape
        ties = [same(result(1), operand(1, 0), made), *alike(operand(0, 0), result(0), outputs[0].shape, (0,))]
        ties += [same(operand(2, 0), operand(1, 0), made)] if len(inputs) > 2 else []
        ties += alike(operand(3, 0), result(0), outputs[0].shape, (0, 1)) if len(inputs) > 3 else ()
        if self.groups == 1:
            ties.append(same(operand(0, 1), operand(1, 1), per_group))
        elif per_group == 1:
            at = np.arange(made)
            ties.append(Tie(operand(1, 0), operand(0, 1), at, at // (made // self.groups)))
        else:
            ties += grouped(operand(1, 1), operand(0, 1), self.groups, per_group)
            ties += grouped(operand(1, 0), operand(1, 0), self.groups, made // self.groups)
        return Flow(tuple(ties), reason="the window of a convolution runs over it")

    def narrowed(self, inputs: Sequence[Kept], outputs: Sequence[Kept], shapes: Sequence[Shape]) -> Op:
        """A depthwise convolution has as many groups as channels; others keep theirs."""
        if self.groups == 1 or 1 not in inputs[0] or 1 in inputs[1]:
            return self
        return replace(self, groups=len(inputs[0][1]))


@register_op
@dataclass(frozen=True)
class ConvTranspose(Op):
    """Gradient of a convolution w.r.t. its input: ``weight`` is (C, O / groups, *kernel), as in torch and ONNX."""

    stride: tuple[int, ...]
    padding: Padding
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    clamp: tuple[float, float] | None = None

    name: ClassVar[str] = "conv_transpose"
    operands: ClassVar[tuple[str, ...]] = ("x", "weight", "bias?")
    quantization: ClassVar[Quantization] = Quantization.WEIGHTED

    def infer(self, x: TensorType, weight: TensorType, bias: TensorType | None = None) -> tuple[TensorType, ...]:
        shape = self.output_shape(x, weight)
        check_bias(self.name, bias, shape[1])
        return (TensorType(x.dtype, shape),)

    def output_shape(self, x: TensorType, weight: TensorType) -> Shape:
        """Shape of the output; raises :class:`ModelError` when operands and attributes do not fit."""
        kernel = weight.static_shape
        if x.rank != len(self.stride) + 2 or len(kernel) != x.rank or x.shape[1] != kernel[0]:
            raise ModelError(f"a conv_transpose of input {x} does not fit a weight of shape {list(kernel)}")
        sizes = [size for size in x.shape[2:] if isinstance(size, int)]
        if len(sizes) != len(self.stride):
            raise ModelError("conv_transpose needs fixed spatial dimensions")
        extents = [
            (size - 1) * s - before - after + d * (k - 1) + extra + 1
            for size, k, s, (before, after), d, extra in zip(
                sizes, kernel[2:], self.stride, self.padding, self.dilation, self.output_padding, strict=True
            )
        ]
        return (x.shape[0], kernel[1] * self.groups, *extents)

    def run(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        conv = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[len(self.stride) - 1]
        # Uneven padding is a crop of the unpadded result; output_padding extends it with what the input reaches.
        y = conv(x, weight, None, self.stride, 0, 0, self.groups, self.dilation)
        crop = [
            (-before, extra - after) for (before, after), extra in zip(self.padding, self.output_padding, strict=True)
        ]
        y = pad_spatial(y, tuple(crop))
        if bias is not None:
            y = y + bias.reshape(-1, *([1] * len(self.stride)))
        return apply_clamp(y, self.clamp)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        kernel = inputs[1].static_shape
        return Cost(macs=inputs[0].size * (inputs[1].size // kernel[0]), elementwise=outputs[0].size)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        """Input channels follow the weight's first axis, output channels its second, alike in every group."""
        read, per_group, *_ = inputs[1].static_shape
        ties = [same(operand(0, 1), operand(1, 0), read), *alike(operand(0, 0), result(0), outputs[0].shape, (0,))]
        ties += [same(operand(2, 0), result(1), per_group * self.groups)] if len(inputs) > 2 else []
        if self.groups == 1:
            ties.append(same(result(1), operand(1, 1), per_group))
        elif self.groups == read and per_group == 1:
            ties.append(same(result(1), operand(1, 0), read))
        else:
            ties += grouped(operand(1, 1), result(1), self.groups, per_group)
            ties += grouped(operand(1, 0), operand(1, 0), self.groups, read // self.groups)
        return Flow(tuple(ties), reason="the window of a convolution runs over it")

    def narrowed(self, inputs: Sequence[Kept], outputs: Sequence[Kept], shapes: Sequence[Shape]) -> Op:
        """A depthwise convolution has as many groups as channels; others keep theirs."""
        if self.groups == 1 or 1 not in inputs[0] or 1 not in outputs[0] or 1 in inputs[1]:
            return self
        return replace(self, groups=len(inputs[0][1]))


def conv_extent(size: int | Dim, kernel: int, stride: int, padding: tuple[int, int], dilation: int) -> int | Dim:
    """Output size of one spatial dimension of a convolution or pooling window."""
    if isinstance(size, Dim):
        if (kernel, stride, padding) == (1, 1, (0, 0)):
            return size
        raise ModelError(f"a window over the unknown dimension {size}", hint="give --shape for every input")
    extent = (size + sum(padding) - dilation * (kernel - 1) - 1) // stride + 1
    if extent <= 0:
        raise ModelError(
            f"a window of {kernel} (dilation {dilation}) is larger than the padded size {size + sum(padding)}"
        )
    return extent


def check_bias(name: str, bias: TensorType | None, channels: int | Dim) -> None:
    """Raise :class:`ModelError` unless ``bias``, when there is one, holds one element per channel."""
    if bias is not None and bias.shape != (channels,):
        raise ModelError(f"the bias of {name} has shape {list(bias.shape)}", expected=f"[{channels}]")


def pad_spatial(x: torch.Tensor, padding: Padding, value: float = 0.0) -> torch.Tensor:
    """Pad (or crop, where negative) the trailing spatial dimensions."""
    flat = [amount for pair in reversed(padding) for amount in pair]
    return F.pad(x, flat, value=value)
