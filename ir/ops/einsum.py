"""Einstein summation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..errors import ModelError
from ..op import Op, register_op
from ..types import Dim, TensorType, broadcast_shapes


@register_op
@dataclass(frozen=True)
class Einsum(Op):
    """Sums of products by an equation such as ``bij,bjk->bik``; an ellipsis stands for axes that broadcast."""

    equation: str

    name: ClassVar[str] = "einsum"
    operands: ClassVar[tuple[str, ...]] = ("parts*",)

    def infer(self, *parts: TensorType) -> tuple[TensorType, ...]:
        left, arrow, right = self.equation.partition("->")
        terms = left.split(",")
        if len(terms) != len(parts):
            raise ModelError(f"einsum {self.equation} of {len(parts)} operands")
        sizes: dict[str, int | Dim] = {}
        shared: tuple[int | Dim, ...] = ()
        for term, part in zip(terms, parts, strict=True):
            shared = broadcast_shapes(shared, self._bind(term, part, sizes))
        right = right if arrow else _implicit(left)
        head, dots, tail = right.partition("...")
        unknown = set(head + tail) - set(sizes)
        if unknown:
            raise ModelError(f"einsum {self.equation} makes axes {sorted(unknown)} of nothing")
        middle = shared if dots else ()
        return (TensorType(parts[0].dtype, (*(sizes[a] for a in head), *middle, *(sizes[a] for a in tail))),)

    def _bind(self, term: str, part: TensorType, sizes: dict[str, int | Dim]) -> tuple[int | Dim, ...]:
        """Note the size of each letter; returns the axes under the ellipsis."""
        head, dots, tail = term.partition("...")
        free = part.rank - len(head) - len(tail)
        if free < 0 or (free and not dots):
            raise ModelError(f"einsum term {term} for {part}")
        letters = [*zip(head, part.shape, strict=False), *zip(tail, part.shape[part.rank - len(tail) :], strict=True)]
        for letter, size in letters:
            if sizes.setdefault(letter, size) == 1:
                sizes[letter] = size
            if size not in (1, sizes[letter]):
                raise ModelError(f"einsum {self.equation}: axis {letter} is {sizes[letter]} and {size}")
        return part.shape[len(head) : len(head) + free]

    def run(self, *parts: torch.Tensor) -> torch.Tensor:
        return torch.einsum(self.equation, *parts)


def _implicit(left: str) -> str:
    """Without an arrow: the ellipsis, then the letters that occur once, in alphabetical order."""
    plain = left.replace(",", "").replace("...", "")
    return ("..." if "..." in left else "") + "".join(sorted(a for a in set(plain) if plain.count(a) == 1))
