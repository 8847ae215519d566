"""Where values lie: storages (runs of bytes) and strided views into them.

A value of the graph is a :class:`View`: logical shape, and a stride in elements for each logical axis. So a transpose,
a slice, most reshapes and the parts of a concat cost nothing, and a kernel writes straight into its consumer's buffer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ..bundle.program import Place

ITEM_BYTES = {"act": 1, "int8": 1, "uint8": 1, "bool": 1, "int32": 4, "float32": 4, "int64": 8}
"""Bytes per element; ``act`` is a stored int8 activation (uint8 on x86, int8 on ARM)."""


class Storage:
    """A run of bytes: a user's buffer, a constant, or a piece of the arena that lives from step to step."""

    __slots__ = ("bytes", "first", "index", "last", "offset", "over_read", "place")

    def __init__(self, place: Place, bytes: int, *, index: int = 0, offset: int = 0) -> None:
        self.place = place
        self.bytes = bytes
        self.index = index
        self.offset = offset
        self.first: int | None = None
        self.last: int = -1
        self.over_read = 0

    def touch(self, step: int) -> None:
        """The step reads or writes here."""
        self.first = step if self.first is None else min(self.first, step)
        self.last = max(self.last, step)


@dataclass(frozen=True)
class View:
    """``shape`` elements of ``dtype`` at ``offset + sum(index * stride)`` elements into a storage."""

    storage: Storage
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def touched(self) -> int:
        """Bytes of the distinct elements: a stride of 0 repeats one."""
        distinct = math.prod(n for n, stride in zip(self.shape, self.strides, strict=True) if stride)
        return distinct * ITEM_BYTES[self.dtype]

    @property
    def byte_offset(self) -> int:
        return self.offset * ITEM_BYTES[self.dtype]

    def is_dense(self, order: Sequence[int] | None = None) -> bool:
        """Whether the elements are contiguous with axes nested in ``order`` (outermost first; default row-major)."""
        return self._matches(dense_strides(self.shape, order or range(self.rank)))

    def _matches(self, strides: Sequence[int]) -> bool:
        return all(n == 1 or a == b for n, a, b in zip(self.shape, self.strides, strides, strict=True))

    def order(self) -> tuple[int, ...]:
        """Axes from outermost to innermost; axes of one element stand where row-major order has them."""
        effective = list(self.strides)
        for axis in range(self.rank - 1, -1, -1):
            if self.shape[axis] == 1:
                effective[axis] = effective[axis + 1] * self.shape[axis + 1] if axis + 1 < self.rank else 1
        return tuple(sorted(range(self.rank), key=lambda axis: (-effective[axis], axis)))

    def nests(self, order: Sequence[int]) -> bool:
        """Whether axes nest in ``order``, with adjacent elements along the innermost."""
        axes = [axis for axis in order if self.shape[axis] != 1]
        steps = [self.strides[axis] for axis in axes]
        falling = all(a >= b for a, b in pairwise(steps))
        return falling and (not steps or (axes[-1] == order[-1] and steps[-1] == 1) or self.shape[order[-1]] == 1)

    def permuted(self, permutation: Sequence[int]) -> View:
        """Axis i of the result is axis ``permutation[i]``."""
        shape = tuple(self.shape[a] for a in permutation)
        return replace(self, shape=shape, strides=tuple(self.strides[a] for a in permutation))

    def sliced(self, starts: Sequence[int], extents: Sequence[int], steps: Sequence[int] | None = None) -> View:
        """``extents`` elements of each axis from ``starts`` on; negative starts reach into a border."""
        steps = steps or (1,) * self.rank
        offset = self.offset + sum(start * stride for start, stride in zip(starts, self.strides, strict=True))
        strides = tuple(step * stride for step, stride in zip(steps, self.strides, strict=True))
        return replace(self, shape=tuple(extents), strides=strides, offset=offset)

    def reshaped(self, shape: Sequence[int]) -> View | None:
        """The same elements under another shape when strides allow it without moving them, else None."""
        strides = _reshaped_strides(self.shape, self.strides, tuple(shape))
        return None if strides is None else replace(self, shape=tuple(shape), strides=strides)

    def expanded(self, shape: Sequence[int]) -> View:
        """Broadcast to ``shape``: stride 0 along new and repeated axes."""
        lead = len(shape) - self.rank
        old = (1,) * lead + self.shape
        strides = (0,) * lead + self.strides
        fitted = tuple(0 if o == 1 and n != 1 else s for o, n, s in zip(old, shape, strides, strict=True))
        return replace(self, shape=tuple(shape), strides=fitted)

    def inserted(self, axis: int) -> View:
        """With a new axis of one element before ``axis``; its stride spans what follows."""
        stride = self.shape[axis] * self.strides[axis] if axis < self.rank else 1
        return replace(
            self,
            shape=(*self.shape[:axis], 1, *self.shape[axis:]),
            strides=(*self.strides[:axis], stride, *self.strides[axis:]),
        )


def dense_strides(shape: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Strides of a contiguous tensor whose axes nest in ``order``, outermost first."""
    strides = [0] * len(shape)
    step = 1
    for axis in reversed(list(order)):
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)


def _reshaped_strides(old: tuple[int, ...], strides: tuple[int, ...], new: tuple[int, ...]) -> tuple[int, ...] | None:
    """Strides after a reshape that moves nothing (as numpy decides it), or None."""
    merged = [(n, s) for n, s in zip(old, strides, strict=True) if n != 1]
    result: list[int] = []
    position = 0
    wanted = [n for n in new if n != 1]
    while wanted:
        group_new = [wanted.pop(0)]
        group_old = [merged[position]]
        position += 1
        while math.prod(group_new) != math.prod(n for n, _ in group_old):
            if math.prod(group_new) < math.prod(n for n, _ in group_old):
                group_new.append(wanted.pop(0))
            else:
                group_old.append(merged[position])
                position += 1
        inner = pairwise(group_old)
        if any(stride != n_next * s_next for (_, stride), (n_next, s_next) in inner):
            return None
        step = group_old[-1][1]
        steps: list[int] = []
        for n in reversed(group_new):
            steps.append(step)
            step *= n
        result.extend(reversed(steps))
    return _with_unit_axes(new, result)


def _with_unit_axes(shape: tuple[int, ...], strides: list[int]) -> tuple[int, ...]:
    """Strides for every axis, given those of the axes that have more than one element."""
    full: list[int] = []
    step, remaining = 1, list(strides)
    for n in reversed(shape):
        if n != 1:
            step = remaining.pop()
        full.append(step)
        step = step * n if n != 1 else step
    return tuple(reversed(full))
