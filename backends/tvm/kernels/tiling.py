"""Register tiles for matrix kernels: how many output pixels by how many channel vectors stay in registers. No tvm."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

from ..isa import Isa
from .base import round_up

#: Rows of an AMX tile.
AMX_ROWS = 16
#: Pixels for which weights are not widened when they are packed: so few wait for weights from memory, not for products.
FEW_PIXELS = 4
#: Bytes of K in a row of an AMX tile.
AMX_DEPTH = 64
#: Units of a tile, and its channel vectors.
MOST_UNITS, MOST_VECTORS = 2 * AMX_ROWS, 12
#: Cycles that a kernel needs to configure and release tiles, and until the first products arrive.
AMX_START = 300
#: Bytes of K, times lanes, from which on the weights of a register tile are streamed.
STREAMED = 12_000
#: Accumulators of a tile whose epilogue overlaps the products of the next one.
SMALL = 8
#: Accumulators of sdot that leave registers for the end of a tile, where there is no loop over K.
MOST_FINISHED = 21
#: What a convolution loses where its AMX tiles are not of one size: they are multiplied and finished one by one.
UNEVEN = 1.05


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

    @property
    def count(self) -> int:
        """How many runs there are."""
        return self.rows * self.columns


@dataclass(frozen=True)
class Tile:
    """`units` pixels (or rows of pixels) by `vectors` native vectors of channels."""

    units: int
    vectors: int


@dataclass(frozen=True)
class Dot:
    """How a kernel multiplies and accumulates bytes; after a slash in `kind`, in what form a tile keeps its pixels.

    These are ``words`` of 16 bits, bytes of ``pairs`` of pixels, eight of one beside eight of the other, or bytes whose
    runs of K are ``joined`` without the padding of each.

    `step` is the bytes of K that one iteration of the inner loop consumes, `unit` what a run of K is padded to.
    A packed weight takes `weight_bytes` bytes. There are `registers` vector registers. Weights are `streamed` when
    those of a register tile do not stay in the first-level cache. The epilogue of a tile comes after `steps` steps of
    K; 0 means so many that it does not matter.
    """

    kind: str
    step: int
    unit: int
    registers: int
    weight_bytes: int = 1
    streamed: bool = False
    steps: float = 0

    @property
    def instruction(self) -> str:
        """The instruction that multiplies."""
        return self.kind.partition("/")[0]

    @property
    def gathered(self) -> bool:
        """Whether a tile makes its pixels ready before it multiplies them by the channels."""
        return "/" in self.kind

    @property
    def pixel_bytes(self) -> int:
        """Bytes of an element of pixels that a tile made ready."""
        return 2 if self.kind.endswith("/words") else 1

    @property
    def joins(self) -> bool:
        """Whether all of K is one run then."""
        return self.kind.endswith(("/joined", "/words"))

    @property
    def paired(self) -> bool:
        """Whether an accumulator holds two channels of one pixel, then those of the next."""
        return self.instruction == "smmla"

    def stored_for(self, pixels: int) -> Dot:
        """With weights of as many bytes as suits the number of pixels."""
        return replace(self, weight_bytes=1) if pixels <= FEW_PIXELS else self

    def run(self, length: int, rows: int = 1, columns: int = 1) -> Runs:
        """K as `rows` x `columns` runs of `length` bytes; AMX tiles share a run evenly."""
        if self.kind != "amx":
            return Runs(rows, columns, length, round_up(length, self.unit), self.step)
        chunk = round_up(-(-length // -(-length // AMX_DEPTH)), 4)
        return Runs(rows, columns, length, round_up(length, chunk), chunk)

    @property
    def loop(self) -> str:
        """What the loop over K is like: where bytes come from makes no difference to it."""
        return self.kind.removesuffix("/joined")

    def _waiting(self, tile: int) -> float:
        """What is lost at the end of a tile of so many accumulators: large ones overlap less with the next.

        Measured for K of 16 to 384 with 32 registers, of which a large tile leaves none to finish it.
        """
        return 0.1 * max(0, tile - SMALL) * tile if self.registers == 32 else 0

    def _finishing(self, count: int, vectors: int) -> float:
        """What the end of a tile takes beside what every result does: sixteen channels of a pixel are one store."""
        return (10 + count * (vectors // 4 + (0, 1, 1, 3)[vectors % 4])) / self.steps if self.steps else 0

    def fits(self, units: int, pixels: int, vectors: int) -> bool:
        """Whether the accumulators of `units` x `pixels` pixels and the operands of one step stay in registers."""
        count = units * pixels
        if self.kind == "amx":
            rows = amx_rows(units, pixels)
            return vectors <= 2 and rows <= AMX_ROWS and count % rows == 0 and count <= 2 * rows
        needed = {
            "pmaddwd": count * vectors + 4,
            "vnni": count * vectors + 1 + (vectors if count > 1 else 0),
            "smlal": 4 * count * vectors + count + 7,
            "chains": 4 * count * vectors + 3 * count + 2 + 8 * (vectors - 1),
            "smull": 2 * count * vectors + 2 * count + 5,
            "sdot": count * vectors + count + 2,
            "smmla": round_up(count, 2) * vectors + round_up(count, 2) + 2,
            "smmla/pairs": round_up(count, 2) * vectors + round_up(count, 2) // 2 + 2,
            "pmaddwd/words": count * vectors + vectors + 2,
            "pmaddubsw/words": count * vectors + 5,
            "vnni/words": count * vectors + vectors + 1,
            "smlal/words": count * vectors + count + 2,
        }
        return needed[self.loop] <= self.registers

    def cost(self, units: int, pixels: int, vectors: int) -> float:
        """Instructions of one step of K, loads at less than their number where they pair with arithmetic."""
        count = units * pixels
        tile = count * vectors
        kind = self.loop
        if kind == "pmaddwd":
            resident = tile + 2 * vectors + 3 <= self.registers
            return 4 * tile + 2.5 * count + (0.5 * vectors if resident else tile)
        if kind in ("vnni", "vnni/words"):
            loads = 0.2 * count + vectors if self.streamed else 0.35 * (count + vectors)
            return max(tile, 10) + loads + (self._waiting(tile) / math.ceil(self.steps) if self.steps else 0)
        if kind == "smlal":
            return 12 * tile + count + 2 * vectors
        if kind == "chains":
            return 10 * tile + count + 2 * vectors
        if kind == "smull":
            return 6 * tile + 3 * count + 2 * vectors
        if kind == "sdot":
            spilled = 4 * max(0, tile - MOST_FINISHED) / self.steps if 0 < self.steps < 2 else 0
            return 4 * tile + count + 2 * vectors + self._finishing(count, vectors) + spilled
        if kind == "smmla":
            return 2 * round_up(count, 2) * vectors + 2 * count + 2 * vectors + self._finishing(count, vectors)
        if kind == "smmla/pairs":
            loads = 0.5 * round_up(count, 2) + 2 * vectors
            return 2 * round_up(count, 2) * vectors + loads + self._finishing(count, vectors)
        if kind == "pmaddwd/words":
            return 2 * tile + 0.2 * count + vectors
        if kind == "pmaddubsw/words":
            return 3 * tile + 0.2 * count + vectors
        if kind == "smlal/words":
            return 8 * tile + count + 4 * vectors
        # Cycles of tdpbusd (Sapphire Rapids): 18 with new weights, two more than rows with the same. Loads overlap.
        rows = amx_rows(units, pixels)
        row_tiles = -(-count // rows)
        return vectors * (18.0 + (row_tiles - 1) * (rows + 2.0)) + 2.0 * (row_tiles + vectors)


_VNNI = Dot("vnni", step=4, unit=4, registers=32)
_DOTS = {
    "avx2": Dot("pmaddwd", step=4, unit=4, registers=16, weight_bytes=2),
    "avxvnni": Dot("vnni", step=4, unit=4, registers=16),
    "avx512vnni": _VNNI,
    "amx": Dot("amx", step=AMX_DEPTH, unit=4, registers=32),
    "neon": Dot("smlal", step=16, unit=8, registers=32),
    "dotprod": Dot("sdot", step=16, unit=4, registers=32),
    # Tiles that fill all 32 make LLVM copy accumulators around, in every step of a loop within loops.
    "i8mm": Dot("smmla", step=16, unit=8, registers=30),
}

_WORDS = {
    "avx2": Dot("pmaddwd/words", step=2, unit=2, registers=16, weight_bytes=2),
    "avxvnni": Dot("vnni/words", step=2, unit=2, registers=16, weight_bytes=2),
    "avx512vnni": Dot("vnni/words", step=2, unit=2, registers=32, weight_bytes=2),
    "neon": Dot("smlal/words", step=8, unit=1, registers=32, weight_bytes=2),
}


#: Ways to multiply pixels that a tile makes ready once, for all channels.
_GATHERED = {
    "avx2": _WORDS["avx2"],
    "i8mm": Dot("smmla/pairs", step=16, unit=8, registers=30),
}


def gathered_dot(isa: Isa) -> Dot | None:
    """The way to multiply pixels in the form that its instructions take, where bytes in memory are not in it."""
    return _GATHERED.get(isa.name)


def joined_dot(dot: Dot) -> Dot | None:
    """The same products of bytes that a tile copies, so that short runs of K are not padded one by one.

    Copying and finishing a tile takes registers; small tiles read too soon what was just copied.
    """
    if dot.kind not in ("vnni", "sdot", "smlal", "chains", "smmla", "smmla/pairs"):
        return None
    joined = replace(dot, kind=f"{dot.kind}/joined")
    return replace(joined, registers=min(dot.registers, 26), steps=0) if dot.kind == "vnni" else joined


def word_dot(isa: Isa) -> Dot | None:
    """The way to multiply words, on levels where it is not much slower than that for bytes."""
    return _WORDS.get(isa.name)


def dot_of(isa: Isa) -> Dot:
    """The strongest way of an ISA level to multiply and accumulate."""
    return _DOTS[isa.name]


def direct_dots(isa: Isa) -> tuple[Dot, ...]:
    """The ways to multiply bytes as they lie in memory, the strongest first."""
    strongest = dot_of(isa)
    return (strongest, _VNNI) if strongest.kind == "amx" else (strongest,)


def dot_for(isa: Isa, length: int, runs: int, pixels: int, vectors: int) -> Dot:
    """The way for `runs` runs of `length` bytes of K and `pixels` x `vectors` results: AMX needs enough of each."""
    dot = dot_of(isa)
    if dot.kind != "amx":
        return dot
    share = amx_share(length, runs)
    # vpdpbusd takes half a cycle for a vector of results and four bytes of K.
    saved = (1 - share) * pixels * vectors * runs * round_up(length, 4) / 8
    return dot if pixels >= AMX_ROWS // 2 and share < 0.9 and saved > AMX_START else _VNNI


def amx_share(length: int, runs: int) -> float:
    """What `runs` runs of `length` bytes of K cost with AMX, by what they cost with vpdpbusd.

    AMX spends the same on a short row of a tile as on a whole one, and its results go through memory. In cycles of
    32 x 32 results: 64 for each tile step and 64 for the stores, beside 8 for each byte of K with vpdpbusd.
    """
    tiles = 64 * runs * -(-length // AMX_DEPTH) + 64
    return tiles / (8 * runs * round_up(length, 4))


def amx_rows(units: int, pixels: int) -> int:
    """Pixels of one AMX tile: a whole row of a small image, or an even share of `units` pixels."""
    return pixels if pixels > 1 else -(-units // -(-units // AMX_ROWS))


@functools.cache
def choose_tile(dot: Dot, length: int, pixels: int, outer: int, vectors: int) -> tuple[Tile, float]:
    """The cheapest register tile for `outer` lines of `length` units of `pixels` pixels, and its cost."""
    sizes = range(1, min(vectors, MOST_VECTORS) + 1)
    options = [best_units(dot, length, pixels, outer, vectors, size) for size in sizes]
    best = options[0]
    for option in options[1:]:
        if option[1] < best[1] * 0.999:
            best = option
    return best


def best_units(
    dot: Dot, length: int, pixels: int, outer: int, vectors: int, size: int, most: int = MOST_UNITS
) -> tuple[Tile, float]:
    """`choose_tile` for tiles of `size` vectors and at most `most` units; the cost is infinite when none fits."""
    best = (Tile(1, size), float("inf"))
    for units in range(1, min(length, most) + 1):
        if not dot.fits(units, pixels, size):
            continue
        whole, tail = divmod(length, units)
        cost = whole * dot.cost(units, pixels, size)
        if tail:
            cost += dot.cost(tail, pixels, size) + 1.0
            if dot.kind == "amx":
                cost *= UNEVEN
        cost *= outer * -(-vectors // size)
        if cost < best[1] * 0.999:
            best = (Tile(units, size), cost)
    return best
