"""Register tiles for matrix kernels: how many output pixels by how many channel vectors stay in registers. No tvm."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from ..isa import Isa
from .base import round_up


@dataclass(frozen=True)
class Dot:
    """How an ISA level multiplies and accumulates bytes.

    `step` is the bytes of K that one iteration of the inner loop consumes, `unit` what a run of K is padded to.
    A packed weight takes `weight_bytes` bytes.
    """

    kind: str
    step: int
    unit: int
    weight_bytes: int = 1


_DOTS = {
    "avx2": Dot("pmaddwd", step=4, unit=4, weight_bytes=2),
    "avxvnni": Dot("vnni", step=4, unit=4),
    "avx512vnni": Dot("vnni", step=4, unit=4),
    "amx": Dot("amx", step=64, unit=4),
    "neon": Dot("smlal", step=16, unit=8),
    "dotprod": Dot("sdot", step=16, unit=4),
    "i8mm": Dot("smmla", step=16, unit=8),
}


#: Rows of an AMX tile.
AMX_ROWS = 16


def dot_of(isa: Isa) -> Dot:
    """The multiply-accumulate instruction family of an ISA level."""
    return _DOTS[isa.name]


@dataclass(frozen=True)
class Runs:
    """K as nested loops: `rows` kernel rows, `columns` kernel columns, then `length` contiguous bytes.

    `padded` is `length` rounded up to what the instruction takes; the inner loop takes `chunk` at once.
    """

    rows: int
    columns: int
    length: int
    padded: int
    chunk: int


@dataclass(frozen=True)
class Tile:
    """`units` pixels (or rows of pixels) by `vectors` native vectors of channels."""

    units: int
    vectors: int


def fits(isa: Isa, pixels: int, vectors: int) -> bool:
    """Whether the accumulators and the operands of one step stay in registers."""
    kind = dot_of(isa).kind
    if kind == "amx":
        return vectors <= 2 and (pixels <= AMX_ROWS or pixels % 2 == 0)
    needed = {
        "pmaddwd": pixels * vectors + 4,
        "vnni": pixels * vectors + 1 + (vectors if pixels > 1 else 0),
        "smlal": 4 * pixels * vectors + pixels + 7,
        "sdot": pixels * vectors + pixels + 2,
        "smmla": round_up(pixels, 2) * vectors + round_up(pixels, 2) + 2,
    }
    return needed[kind] <= isa.vectors


def step_cost(isa: Isa, pixels: int, vectors: int) -> float:
    """Instructions (loads at half weight where they pair with arithmetic) of one step of K of a register tile."""
    kind = dot_of(isa).kind
    tile = pixels * vectors
    if kind == "pmaddwd":
        return 4 * tile + 2.5 * pixels + (0.5 * vectors if pixels * vectors + 2 * vectors + 3 <= isa.vectors else tile)
    if kind == "vnni":
        return max(tile, 10) + 0.35 * (pixels + vectors)
    if kind == "smlal":
        return 12 * tile + pixels + 2 * vectors
    if kind == "sdot":
        return 4 * tile + pixels + 2 * vectors
    if kind == "smmla":
        return 2 * round_up(pixels, 2) * vectors + 2 * pixels + 2 * vectors
    row_tiles = amx_row_tiles(pixels)
    return 16.0 * row_tiles * vectors + 8.0 * (row_tiles + vectors)


def amx_row_tiles(pixels: int) -> int:
    """How many AMX tiles hold the rows of `pixels` pixels."""
    return -(-pixels // AMX_ROWS)


@functools.cache
def choose_tile(isa: Isa, length: int, pixels_per_unit: int, outer: int, vectors: int) -> tuple[Tile, float]:
    """The cheapest register tile for `outer` runs of `length` units and `vectors` channel vectors, and its cost."""
    best = (Tile(1, 1), float("inf"))
    for per_tile in range(1, min(vectors, 12) + 1):
        found = best_units(isa, length, pixels_per_unit, outer, vectors, per_tile)
        if found[1] < best[1] * 0.999:
            best = found
    return best


def best_units(
    isa: Isa, length: int, pixels_per_unit: int, outer: int, vectors: int, per_tile: int
) -> tuple[Tile, float]:
    """`choose_tile` for tiles of `per_tile` vectors."""
    best = (Tile(1, per_tile), float("inf"))
    for units in range(1, min(length, 32) + 1):
        pixels = units * pixels_per_unit
        if not fits(isa, pixels, per_tile):
            continue
        whole, tail = divmod(length, units)
        cost = whole * step_cost(isa, pixels, per_tile)
        if tail:
            cost += step_cost(isa, tail * pixels_per_unit, per_tile) + 1.0
        cost *= outer * -(-vectors // per_tile)
        if cost < best[1] * 0.999:
            best = (Tile(units, per_tile), cost)
    return best


def run_of(length: int, dot: Dot, rows: int = 1, columns: int = 1) -> Runs:
    """K as `rows` x `columns` runs of `length` bytes, padded for an instruction; AMX tiles share K evenly."""
    padded, chunk = round_up(length, dot.unit), dot.step
    if dot.kind == "amx":
        chunk = round_up(-(-length // -(-length // 64)), 4)
        padded = round_up(length, chunk)
    return Runs(rows, columns, length, padded, chunk)
