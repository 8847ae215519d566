"""Reductions of contiguous float32 in virtual lanes, so that no vector width changes their order. Imports tvm."""

from __future__ import annotations

from collections.abc import Callable

from ...builder import Builder, Expr, i64, shuffle
from ...isa.vector import VectorOps


class Lanes:
    """A running reduction: element i of a run belongs to lane i modulo `width`; at the end the lanes are halved.

    `combine` takes what was reduced before and one more, as vectors or scalars; `start` is what it leaves as it is.
    """

    def __init__(
        self, b: Builder, ops: VectorOps, width: int, combine: Callable[[Expr, Expr], Expr], start: float = 0.0
    ) -> None:
        self.b, self.ops, self.width, self.combine = b, ops, width, combine
        self.acc = b.registers(width // ops.lanes, ops.f32, "acc")
        for v in range(width // ops.lanes):
            b.store(self.acc, v, ops.const_f32(start))

    def run(self, length: int, load: Callable[[Expr, int], list[Expr]]) -> None:
        """Take in a run of `length` elements; ``load(first, count)`` gives the vectors that hold some of them."""
        b, acc = self.b, self.acc
        whole, tail = divmod(length, self.width)
        if whole:
            with b.loop(0, whole) as step:
                for v, value in enumerate(load(step * self.width, self.width)):
                    b.store(acc, v, self.combine(acc[v], value))
        if tail:
            self._add_tail(load(i64(whole * self.width), tail), tail)

    def _add_tail(self, values: list[Expr], tail: int) -> None:
        """What is left of a run continues with the first lanes."""
        b, lanes = self.b, self.ops.lanes
        for v, value in enumerate(values):
            left = min(lanes, tail - v * lanes)
            held = b.let(self.acc[v])
            joined = b.let(self.combine(held, value))
            picks = [lane if lane < left else lanes + lane for lane in range(lanes)]
            b.store(self.acc, v, shuffle([joined, held], picks) if left < lanes else joined)

    def total(self) -> Expr:
        """The scalar that is left after combining lane i with lane i + width / 2, and so on."""
        b, lanes = self.b, self.ops.lanes
        values = [b.let(self.acc[v]) for v in range(self.width // lanes)]
        while len(values) > 1:
            half = len(values) // 2
            values = [b.let(self.combine(x, y)) for x, y in zip(values[:half], values[half:], strict=True)]
        value = values[0]
        while lanes > 1:
            lanes //= 2
            low, high = (shuffle([value], range(at, at + lanes)) for at in (0, lanes))
            value = b.let(self.combine(b.let(low), b.let(high)))
        return value
