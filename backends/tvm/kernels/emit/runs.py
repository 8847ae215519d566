"""Filling and copying runs of known length. Imports tvm."""

from __future__ import annotations

from collections.abc import Callable

from ...builder import Buffer, Builder, Expr, i64


def fill_run(b: Builder, value: Buffer, out: Buffer, start: Expr, length: int, widest: int) -> None:
    """Fill `length` elements from `start` on with the equal elements of `value`, at most `widest` at once."""
    width = _width(length, widest)
    splat = b.let(value.load(0, width))
    _each(b, length, width, lambda at: b.store(out, start + at, splat, width))


def copy_run(b: Builder, x: Buffer, out: Buffer, source: Expr, target: Expr, length: int, widest: int) -> None:
    """Copy `length` elements, at most `widest` at once."""
    width = _width(length, widest)
    _each(b, length, width, lambda at: b.store(out, target + at, x.load(source + at, width), width))


def _width(length: int, widest: int) -> int:
    return int(min(widest, 1 << (length.bit_length() - 1)))


def _each(b: Builder, length: int, width: int, store: Callable[[Expr], None]) -> None:
    """Call `store` for pieces of `width` elements; the last one is moved back to end with the run."""
    whole, rest = divmod(length, width)
    if whole <= 4:
        for at in range(whole):
            store(i64(at * width))
    else:
        with b.loop(0, whole) as step:
            store(step * width)
    if rest:
        store(i64(length - width))
