"""Transposed convolution as ordinary ones: for every position within a stride, or for some side by side. No tvm.

Output row ``y = stride q + r`` receives input row i through kernel row k where ``i stride + k dilation - padding = y``.
For one remainder r the k that divide evenly are equally spaced, and i moves with q: a convolution of stride one, whose
results lie `stride` rows apart. Every output element belongs to exactly one of these phases.

Where a kernel is as large as its stride, each pixel of the input makes pixels of its own. Those beside each other are
channels of one result then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from .base import Array, StridedView
from .conv import ConvSpec
from .epilogue import Epilogue

#: What `ConvSpec.pack` takes for every output channel, beside weights.
BY_CHANNEL = ("bias", "multiplier")


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

    The columns are those of each of the pixels that lie side by side. A phase that no kernel element reaches has one
    tap with a zero weight: its output is the bias.
    """

    spec: ConvSpec
    rows: tuple[int, ...]
    columns: tuple[tuple[int, ...], ...]

    def constants(self, constants: Mapping[str, npt.ArrayLike]) -> dict[str, npt.ArrayLike]:
        """What `ConvSpec.pack` takes, out of the same for the whole, where weight is [C, O / groups, *kernel]."""
        own = {**constants, "weight": self._weight(np.asarray(constants["weight"]))}
        repeated = {name: np.tile(constants[name], len(self.columns)) for name in BY_CHANNEL if name in constants}
        return {**own, **repeated}

    def _weight(self, weight: Array) -> Array:
        spec, channels = self.spec, self.spec.out_channels // len(self.columns)
        grouped = weight.reshape(spec.groups, spec.in_channels, channels, *weight.shape[2:])
        ordered = grouped.swapaxes(1, 2).reshape(spec.groups * channels, spec.in_channels, *weight.shape[2:])
        if not self.rows:
            return np.zeros((spec.groups * spec.out_channels, spec.in_channels, 1, 1), weight.dtype)
        return np.concatenate([ordered[:, :, self.rows][:, :, :, columns] for columns in self.columns])


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
        rows = [row for row in range(self.height.stride) if self.height.count(row)]
        return tuple(self._phase(row, beside) for row in rows for beside in self._beside())

    def _beside(self) -> list[list[int]]:
        """The columns of a stride, those together that are computed side by side."""
        found: list[list[int]] = []
        for column in (column for column in range(self.width.stride) if self.width.count(column)):
            if found and self._joins(found[-1][-1], column):
                found[-1].append(column)
            else:
                found.append([column])
        return found

    def _joins(self, one: int, other: int) -> bool:
        """Whether two neighbours come of the same inputs, and their results lie one behind the other."""
        views = [self.output, *([self.epilogue.residual] if self.epilogue.residual else [])]
        if self.groups > 1 or any(view.pixel != self.out_channels for view in views):
            return False
        inputs, others = ([offset for offset, _ in self.width.taps(column)] for column in (one, other))
        return inputs == others and self.width.count(one) == self.width.count(other)

    def _phase(self, row: int, beside: list[int]) -> Phase:
        column, rows, columns = beside[0], self.height.taps(row), self.width.taps(beside[0])
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
            out_channels=self.out_channels * len(beside),
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
        kernels = tuple(tuple(k for _, k in self.width.taps(each)) for each in beside)
        return Phase(spec, tuple(k for _, k in rows), kernels)

    def _spread(self, view: StridedView, row: int, column: int) -> StridedView:
        """Every stride-th element of a view, from (row, column) on."""
        offset = view.offset + row * view.row + column * view.pixel
        return StridedView(view.batch, view.row * self.height.stride, view.pixel * self.width.stride, offset)


def _spacing(axis: Axis) -> int:
    """Input elements between the taps of one phase."""
    return axis.dilation // math.gcd(axis.dilation, axis.stride)
