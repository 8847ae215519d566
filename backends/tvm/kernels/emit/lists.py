"""Lists of what a block of channels multiplies, and where it lies, as kernels find them in constants. Imports tvm."""

from __future__ import annotations

from dataclasses import dataclass

from ...builder import Buffer, Builder, Expr, cast


@dataclass(frozen=True)
class Lists:
    """`starts` says which numbers in `taps` belong to a block, `taps` which bytes of a pixel each meets."""

    starts: Buffer
    taps: Buffer

    def bounds(self, b: Builder, block: Expr, parts: int = 1) -> tuple[Expr, ...]:
        """The first number of each of the `parts` of a block, and behind them the first of the next block."""
        return tuple(b.let(cast("int64", self.starts[block * parts + at])) for at in range(parts + 1))

    def tap(self, b: Builder, x: Expr, number: Expr) -> Expr:
        """The element that is met first, for the pixel at element `x`."""
        return b.let(x + cast("int64", self.taps[number]))
