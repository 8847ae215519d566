"""Einstein sums become sums, transpositions and matrix products, which have integer forms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...ir.graph import Node, Value
from ...ir.ops.einsum import Einsum
from ...ir.ops.elementwise import Mul
from ...ir.ops.matmul import MatMul
from ...ir.ops.reduce import ReduceSum
from ...ir.ops.shape import Reshape, Transpose
from ..rewriting import Rewriter, pattern

FIRST_HIDDEN = ord("α")
"""Axes under an ellipsis are named from here on, the last one first: no equation may use such letters."""


@dataclass(frozen=True)
class Factor:
    """A value with a letter for each axis."""

    value: Value
    axes: str


@pattern(Einsum)
def einsum_of_products(node: Node, rewriter: Rewriter) -> bool:
    """Einsum -> pairwise matrix products, from the left, of floats without diagonals."""
    assert isinstance(node.op, Einsum)
    terms, output = spelled(node.op.equation, [value.type.rank for value in node.inputs])
    sizes = _sizes(node, terms)
    if sizes is None or not node.output.type.dtype.is_float or set(output) - set(sizes):
        return False
    factors = [Factor(value, term) for value, term in zip(node.inputs, terms, strict=True)]
    while len(factors) > 1:
        first, second, *others = factors
        wanted = {*output, *(letter for factor in others for letter in factor.axes)}
        factors = [_product(rewriter, sizes, first, second, wanted), *others]
    total = _summed(rewriter, factors[0], set(output))
    return rewriter.replace(node, _arranged(rewriter, total, output))


def spelled(equation: str, ranks: Iterable[int]) -> tuple[list[str], str]:
    """The letters of every operand and of the result, those under an ellipsis named too."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms: list[str] = []
    widest = 0
    for term, rank in zip(left.split(","), ranks, strict=True):
        hidden = rank - len(term.replace("...", "")) if "..." in term else 0
        widest = max(widest, hidden)
        terms.append(term.replace("...", _hidden(hidden)))
    if not arrow:
        letters = left.replace(",", "").replace("...", "")
        right = ("..." if "..." in left else "") + "".join(sorted(a for a in set(letters) if letters.count(a) == 1))
    return terms, right.replace("...", _hidden(widest))


def _hidden(count: int) -> str:
    return "".join(chr(FIRST_HIDDEN + number) for number in reversed(range(count)))


def _sizes(node: Node, terms: list[str]) -> dict[str, int] | None:
    """The size of every letter; None where it is unknown, broadcast, or on a diagonal."""
    sizes: dict[str, int] = {}
    for value, term in zip(node.inputs, terms, strict=True):
        if len(set(term)) < len(term) or not value.type.is_static:
            return None
        for letter, size in zip(term, value.type.static_shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                return None
    return sizes


def _product(rewriter: Rewriter, sizes: Mapping[str, int], first: Factor, second: Factor, wanted: set[str]) -> Factor:
    """Two factors as one: summed over what nobody else wants."""
    first = _summed(rewriter, first, {*wanted, *second.axes})
    second = _summed(rewriter, second, {*wanted, *first.axes})
    shared = [letter for letter in first.axes if letter in second.axes]
    batch = "".join(letter for letter in shared if letter in wanted)
    inner = "".join(letter for letter in shared if letter not in wanted)
    rows = "".join(letter for letter in first.axes if letter not in shared)
    columns = "".join(letter for letter in second.axes if letter not in shared)
    axes = batch + rows + columns
    if inner:
        a = _grouped(rewriter, sizes, first, batch, (rows, inner))
        b = _grouped(rewriter, sizes, second, batch, (inner, columns))
        value = rewriter.insert(MatMul(), a, b)
    else:
        a = _grouped(rewriter, sizes, first, batch, (rows, ""))
        b = _grouped(rewriter, sizes, second, batch, ("", columns))
        value = rewriter.insert(Mul(), a, b)
    return Factor(_reshaped(rewriter, value, tuple(sizes[letter] for letter in axes)), axes)


def _grouped(
    rewriter: Rewriter, sizes: Mapping[str, int], factor: Factor, batch: str, groups: tuple[str, str]
) -> Value:
    """The factor with the batch axes in front, and one axis for each group."""
    arranged = _arranged(rewriter, factor, batch + "".join(groups))
    merged = (math.prod(sizes[letter] for letter in group) for group in groups)
    return _reshaped(rewriter, arranged, (*(sizes[letter] for letter in batch), *merged))


def _summed(rewriter: Rewriter, factor: Factor, wanted: set[str]) -> Factor:
    axes = tuple(axis for axis, letter in enumerate(factor.axes) if letter not in wanted)
    if not axes:
        return factor
    kept = "".join(letter for letter in factor.axes if letter in wanted)
    return Factor(rewriter.insert(ReduceSum(axes), factor.value), kept)


def _arranged(rewriter: Rewriter, factor: Factor, axes: str) -> Value:
    if axes == factor.axes:
        return factor.value
    return rewriter.insert(Transpose(tuple(factor.axes.index(letter) for letter in axes)), factor.value)


def _reshaped(rewriter: Rewriter, value: Value, shape: tuple[int, ...]) -> Value:
    return value if value.type.shape == shape else rewriter.insert(Reshape(shape), value)


PATTERNS = (einsum_of_products,)
