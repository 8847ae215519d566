"""The inner loops of matrix kernels, one class for each way to multiply and accumulate. Imports tvm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ....builder import Builder
from ....isa.vector import VectorOps
from ...tiling import Dot
from .amx import AmxDots
from .arm import ElementDots, FullRangeSmlalDots, PairedDots, SdotDots, SmlalDots, SmmlaDots
from .base import Accumulators, Dots, Operands, Sharing, VectorDots
from .copied import Copy, JoinedDots
from .x86 import MaddDots, PairDots, PmaddwdDots, VnniDots, WidenedDots, add_pairs, spread_pair

__all__ = [
    "Accumulators",
    "AmxDots",
    "Copy",
    "Dots",
    "JoinedDots",
    "Operands",
    "Sharing",
    "SmlalDots",
    "SmmlaDots",
    "VectorDots",
    "add_pairs",
    "dots_for",
    "spread_pair",
    "weight_dtype",
    "word_dots",
]


def dots_for(
    dot: Dot,
    b: Builder,
    ops: VectorOps,
    operands: Operands,
    *,
    rows: int = 1,
    pixels: int = 1,
    full_range: bool,
    single: bool = False,
) -> Dots:
    """The register tiles of `dot`.

    `rows` is the number of pixels in one AMX tile, `pixels` that of the largest register tile; `single` says that all
    tiles multiply by the first block of weights.
    """
    if dot.kind.endswith("/joined"):
        inner = dots_for(replace(dot, kind=dot.loop), b, ops, operands, pixels=pixels, full_range=full_range)
        return JoinedDots(inner, pixels)
    if dot.kind == "amx":
        return AmxDots(b, ops, operands, rows, single=single)
    if dot.kind == "smlal":
        return (FullRangeSmlalDots if full_range else SmlalDots)(b, ops, operands)
    if dot.kind == "pmaddwd/words":
        return WidenedDots(b, ops, operands, pixels)
    if dot.kind == "smmla/pairs":
        return PairedDots(b, ops, operands, pixels)
    simple: dict[str, Callable[[Builder, VectorOps, Operands], Dots]] = {
        "vnni": VnniDots,
        "pmaddwd": PmaddwdDots,
        "sdot": SdotDots,
        "smmla": SmmlaDots,
    }
    return simple[dot.kind](b, ops, operands)


def word_dots(dot: Dot, b: Builder, ops: VectorOps, operands: Operands) -> VectorDots:
    """The register tiles of a `dot` of words that lie in memory as such."""
    kinds: dict[str, type[VectorDots]] = {
        "pmaddwd/words": MaddDots,
        "vnni/words": PairDots,
        "smlal/words": ElementDots,
    }
    return kinds[dot.kind](b, ops, operands)


def weight_dtype(dot: Dot) -> str:
    """The element type of packed weights as the inner loop reads them."""
    return f"int{8 * dot.weight_bytes}"
