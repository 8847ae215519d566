"""Transposed convolution as ordinary ones: one for every position within a stride. No tvm.

Output row ``y = stride q + r`` receives input row i through kernel row k where ``i stride + k dilation - padding = y``.
For one remainder r the k that divide evenly are equally spaced, and i moves with q: a convolution of stride one, whose
results lie `stride` rows apart. Every output element belongs to exactly one of these phases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from .base import Array, StridedView
from .conv import ConvSpec
from .epilogue import Epilogue


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a transposed convolution."""

    size: int
    out: int
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1

    def taps(self, remainder: int) -> tuple[tuple[int, int], ...]:
        """(input offset, kernel index) of the taps of one phase, ascending in the offset."""
        shifted = [(remainder + self.padding - k * self.dilation, k) for k in range(self.kernel)]
        return tuple(sorted((far // self.stride, k) for far, k in shifted if far % self.stride == 0))

    def count(self, remainder: int) -> int:
        """Output elements of one phase."""
        return max(0, -(-(self.out - remainder) // self.stride))

    @property
    def border(self) -> tuple[int, int]:
        """Elements of zero point that the input needs before and behind it."""
        before = behind = 0
        for remainder in range(self.stride):
            count = self.count(remainder)
            for offset, _ in self.taps(remainder) if count else ():
                before = max(before, -offset)
                behind = max(behind, count + offset - self.size)
        return before, behind


@dataclass(frozen=True)
class Phase:
    """One ordinary convolution: `spec`, and which kernel rows and columns it uses, in its own order.

    A phase that no kernel element reaches has one tap with a zero weight: its output is the bias.
    """

    spec: ConvSpec
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def weight(self, weight: Array) -> Array:
        """What `ConvSpec.pack` takes, out of int8[groups * in_channels, out_channels, kernel_h, kernel_w]."""
        spec = self.spec
        grouped = weight.reshape(spec.groups, spec.in_channels, spec.out_channels, *weight.shape[2:])
        ordered = grouped.swapaxes(1, 2).reshape(spec.groups * spec.out_channels, spec.in_channels, *weight.shape[2:])
        if not self.rows or not self.columns:
            return np.zeros((*ordered.shape[:2], 1, 1), "int8")
        return np.ascontiguousarray(ordered[:, :, self.rows][:, :, :, self.columns])


@dataclass(frozen=True)
class TransposedConv:
    """A transposed convolution over NHWC images that have `height.border` and `width.border` around them.

    `input` describes the padded image from its first byte; channel counts are per group. Not a kernel itself: `phases`
    are. Output sizes, with any output padding, are part of the axes.
    """

    batch: int
    height: Axis
    width: Axis
    in_channels: int
    out_channels: int
    input: StridedView
    output: StridedView
    groups: int = 1
    full_range: bool = False
    epilogue: Epilogue = field(default_factory=Epilogue)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The convolutions that together write every output element once."""
        remainders = [(r, c) for r in range(self.height.stride) for c in range(self.width.stride)]
        return tuple(
            self._phase(row, column)
            for row, column in remainders
            if self.height.count(row) and self.width.count(column)
        )

    def _phase(self, row: int, column: int) -> Phase:
        rows, columns = self.height.taps(row), self.width.taps(column)
        if not rows or not columns:
            rows, columns = (), ()
        top = self.height.border[0] + (rows[0][0] if rows else 0)
        left = self.width.border[0] + (columns[0][0] if columns else 0)
        source = replace(self.input, offset=self.input.offset + top * self.input.row + left * self.input.pixel)
        residual = self.epilogue.residual
        spec = ConvSpec(
            batch=self.batch,
            out_h=self.height.count(row),
            out_w=self.width.count(column),
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            input=source,
            output=self._spread(self.output, row, column),
            kernel_h=max(1, len(rows)),
            kernel_w=max(1, len(columns)),
            dilation_h=_spacing(self.height),
            dilation_w=_spacing(self.width),
            groups=self.groups,
            full_range=self.full_range,
            epilogue=replace(self.epilogue, residual=residual and self._spread(residual, row, column)),
        )
        return Phase(spec, tuple(k for _, k in rows), tuple(k for _, k in columns))

    def _spread(self, view: StridedView, row: int, column: int) -> StridedView:
        """Every stride-th element of a view, from (row, column) on."""
        offset = view.offset + row * view.row + column * view.pixel
        return StridedView(view.batch, view.row * self.height.stride, view.pixel * self.width.stride, offset)


def _spacing(axis: Axis) -> int:
    """Input elements between the taps of one phase."""
    return axis.dilation // math.gcd(axis.dilation, axis.stride)
