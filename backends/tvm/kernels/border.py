"""Fill the border of a padded image with one byte, and nothing but the border. No tvm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..isa import Isa
from .base import Arg, Array, KernelSpec, StridedView

#: Bytes of the `value` constant: every vector store takes its prefix.
VALUE_BYTES = 64
#: Bytes of a task: the tasks of the kernel that writes the image bring along equal shares of these.
TASK_BYTES = 2048


@dataclass(frozen=True)
class BorderSpec(KernelSpec):
    """The border around `height` x `width` pixels of `channels` elements, inside the padded image `image`.

    `image` starts at the first pixel of the padded image, which is ``top + height + bottom`` rows of
    ``left + width + right`` pixels. A task is a part of one image's rows. `pack` takes value: a stored byte,
    or a float32.
    """

    batch: int
    height: int
    width: int
    channels: int
    top: int
    left: int
    bottom: int
    right: int
    image: StridedView
    dtype: Literal["act", "float32"] = "act"

    @property
    def args(self) -> tuple[Arg, ...]:
        return (Arg("value", self.dtype, "const"), Arg("out", self.dtype, "out"))

    def tasks(self, isa: Isa) -> int:
        return self.batch * self.parts

    @property
    def parts(self) -> int:
        """Tasks of one image. Threads divide its rows as they divide those of the image that they write into it."""
        return max(1, min(self.height - 1, self.bytes_written // self.batch // TASK_BYTES))

    @property
    def bytes_written(self) -> int:
        elements = self.batch * sum(length * repetitions for _, length, repetitions, _ in self.runs)
        return elements * (1 if self.dtype == "act" else 4)

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        dtype = isa.act_dtype if self.dtype == "act" else self.dtype
        return {"value": np.full(VALUE_BYTES // np.dtype(dtype).itemsize, arrays["value"], dtype)}

    @property
    def runs(self) -> list[tuple[int, int, int, int]]:
        """What to fill, as (offset, length, repetitions, distance): contiguous runs of elements from the image's start.

        A dense image has three kinds: everything before the first inner pixel, what lies between two inner rows, and
        everything behind the last inner pixel.
        """
        view, rows, columns = self.image, self.top + self.height + self.bottom, self.left + self.width + self.right
        behind = self.left + self.width
        if view.pixel == self.channels and view.row == columns * self.channels:
            head = self.top * view.row + self.left * self.channels
            last = (self.top + self.height - 1) * view.row + behind * self.channels
            between = (self.right + self.left) * self.channels
            first = self.top * view.row + behind * self.channels
            found = [(0, head, 1, 0), (first, between, self.height - 1, view.row)]
            found.append((last, self.right * self.channels + self.bottom * view.row, 1, 0))
        else:
            found = self._strips(rows, columns, behind)
        return [run for run in found if run[1] and run[2]]

    def _strips(self, rows: int, columns: int, behind: int) -> list[tuple[int, int, int, int]]:
        view, channels = self.image, self.channels
        inner = self.top * view.row
        boxes = [
            (0, self.top, columns),
            ((rows - self.bottom) * view.row, self.bottom, columns),
            (inner, self.height, self.left),
            (inner + behind * view.pixel, self.height, self.right),
        ]
        found: list[tuple[int, int, int, int]] = []
        for start, height, width in boxes:
            if view.pixel == channels:
                found.append((start, width * channels, height, view.row))
            elif height * width:
                starts = [start + row * view.row for row in range(height)]
                found += [(at, channels, width, view.pixel) for at in starts]
        return found
