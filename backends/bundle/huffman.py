"""Entropy coding of weights with canonical Huffman codes.

The third stage of Han, Mao, Dally, "Deep Compression" (ICLR 2016). ``runtime/decode.c`` is the other half.

A block holds one array of bytes. It begins with two code tables, each a u16 with the number of symbols, then for each
symbol in canonical order (by length, then symbol) a u16: symbol << 4 | length. The codes follow, most significant bit
first, padded with zero bits to a byte. The first table tells how many zeros stand before the next other byte, the
second that byte. Runs below 32 are symbols of their own; symbol 27 + k is a run of 2**k to 2**(k+1) - 1, and k bits
behind its code tell which. An empty first table means that bytes follow one another, zeros among them: an array with
few zeros is smaller that way.
"""

from __future__ import annotations

import heapq
import io
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ...ir.errors import BundleError

Octets: TypeAlias = npt.NDArray[np.uint8]
Integers: TypeAlias = npt.NDArray[np.int64]

MAX_LENGTH = 12
"""Bits of the longest code: what the decoder's tables are indexed by."""

Words: TypeAlias = tuple[Integers, Integers]
"""Numbers and how many bits each takes: 1 to 42."""

EXACT_RUNS = 32
EXACT_BITS = 5

_CHUNK = 1 << 16
"""Bytes encoded at a time, which bounds the memory it takes; the block does not depend on it."""

MAX_BYTES = 2**31 - 1
"""Of an array: the longest run of zeros must fit into one symbol and the 30 bits behind it."""


def encode(octets: Octets) -> bytes:
    """The block that decodes to ``octets`` (uint8, one dimension): of the two forms, the smaller.

    Both sizes follow from counts of symbols, so only the smaller form is made, in the memory that it takes itself.

    Raises:
        BundleError: the array is too large.
    """
    if octets.size > MAX_BYTES:
        raise BundleError(f"{octets.size} bytes in one array cannot be compressed", expected=f"at most {MAX_BYTES}")
    if not octets.size:
        return _table({}) * 2
    counts = _counts(_chunks(octets))
    plain, turns = _plain(octets, counts), _turns(octets, counts)
    return _packed(plain if plain.size <= turns.size else turns)


@dataclass(frozen=True)
class _Form:
    """One way to write an array: two code tables, and the words behind them, which are made as they are taken."""

    tables: bytes
    bits: int
    words: Iterator[Words]

    @property
    def size(self) -> int:
        return len(self.tables) + -(-self.bits // 8)


def _plain(octets: Octets, counts: Integers) -> _Form:
    """Bytes one after another, each as often as ``counts`` says."""
    code = _Code(counts)
    return _Form(_table({}) + _table(code.lengths), code.bits, (code.words(some) for some in _chunks(octets)))


def _turns(octets: Octets, counts: Integers) -> _Form:
    """Runs and bytes in turn; behind zeros at the end no byte follows."""
    runs = _counts(_run_symbols(lengths)[0] for lengths, _ in _runs(octets))
    before, values = _Code(runs), _Code(np.where(np.arange(256) > 0, counts, 0))
    behind = int(runs @ np.where(np.arange(256) < EXACT_RUNS, 0, np.arange(256) - EXACT_RUNS + EXACT_BITS))
    tables = _table(before.lengths) + _table(values.lengths)
    words = (_turn(lengths, others, before, values) for lengths, others in _runs(octets))
    return _Form(tables, before.bits + values.bits + behind, words)


def _turn(lengths: Integers, others: Octets, before: _Code, values: _Code) -> Words:
    symbols, bits = _run_symbols(lengths)
    code, width = before.words(symbols)
    code, width = code << bits | np.where(bits > 0, lengths - (np.int64(1) << bits), 0), width + bits
    number, size = values.words(others)
    return _interleave(code, number), _interleave(width, size)


def _chunks(octets: Octets) -> Iterator[Octets]:
    return (octets[start : start + _CHUNK] for start in range(0, octets.size, _CHUNK))


def _counts(symbols: Iterable[Integers | Octets]) -> Integers:
    """How often each symbol (0 to 255) comes."""
    counts = np.zeros(256, np.int64)
    for some in symbols:
        counts += np.bincount(some, minlength=256)
    return counts


def _runs(octets: Octets) -> Iterator[tuple[Integers, Octets]]:
    """How many zeros stand before each other byte, and these bytes; zeros at the end are a run without a byte."""
    last = -1
    for start in range(0, octets.size, _CHUNK):
        places = start + np.flatnonzero(octets[start : start + _CHUNK])
        if len(places):
            yield np.diff(places, prepend=last) - 1, octets[places]
            last = int(places[-1])
    if last < octets.size - 1:
        yield np.array([octets.size - 1 - last]), octets[:0]


def _run_symbols(runs: Integers) -> tuple[Integers, Integers]:
    """The symbol of each run, and how many bits behind its code tell which run it is."""
    bits = np.where(runs < EXACT_RUNS, 0, np.int64(np.floor(np.log2(np.maximum(runs, 1)))))
    return np.where(runs < EXACT_RUNS, runs, EXACT_RUNS - EXACT_BITS + bits), bits


def _interleave(first: Integers, second: Integers) -> Integers:
    """a0 b0 a1 b1 ...; ``first`` may be one longer."""
    both = np.empty(len(first) + len(second), np.int64)
    both[0::2], both[1::2] = first, second
    return both


class _Code:
    """The canonical Huffman code of symbols that occur as often as ``counts`` says."""

    def __init__(self, counts: Integers) -> None:
        lengths = _limited_lengths({int(symbol): int(counts[symbol]) for symbol in np.flatnonzero(counts)})
        order = sorted(lengths, key=lambda symbol: (lengths[symbol], symbol))
        self._codes, self._widths = np.zeros(len(counts), np.int64), np.zeros(len(counts), np.int64)
        code = 0
        for symbol, following in itertools.zip_longest(order, order[1:]):
            self._codes[symbol], self._widths[symbol] = code, lengths[symbol]
            if following is not None:
                code = (code + 1) << (lengths[following] - lengths[symbol])
        self.lengths = {symbol: lengths[symbol] for symbol in order}
        self.bits = int(counts @ self._widths)

    def words(self, symbols: Integers | Octets) -> Words:
        return self._codes[symbols], self._widths[symbols]


def _limited_lengths(weights: dict[int, int]) -> dict[int, int]:
    """Code lengths by symbol: Huffman's, with counts flattened until no code is longer than the table allows."""
    while weights:
        lengths = _huffman(weights)
        if max(lengths.values()) <= MAX_LENGTH:
            return lengths
        weights = {symbol: weight // 2 + 1 for symbol, weight in weights.items()}
    return {}


def _huffman(weights: dict[int, int]) -> dict[int, int]:
    if len(weights) == 1:
        return dict.fromkeys(weights, 1)
    heap: list[tuple[int, int, tuple[int, ...]]] = [(weight, symbol, (symbol,)) for symbol, weight in weights.items()]
    heapq.heapify(heap)
    lengths = dict.fromkeys(weights, 0)
    while len(heap) > 1:
        (first, tie, mine), (second, _, yours) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in (merged := mine + yours):
            lengths[symbol] += 1
        heapq.heappush(heap, (first + second, tie, merged))
    return lengths


def _table(lengths: dict[int, int]) -> bytes:
    entries = [symbol << 4 | length for symbol, length in lengths.items()]
    return np.array([len(entries), *entries], "<u2").tobytes()


def _packed(form: _Form) -> bytes:
    """Tables, then numbers of different widths one after the other, most significant bit first."""
    out = io.BytesIO()
    out.write(form.tables)
    rest = (np.zeros(0, np.int64), np.zeros(0, np.int64))
    for some in form.words:
        values, widths = (np.concatenate(pair) for pair in zip(rest, some, strict=True))
        octets, total = _pack(values, widths)
        whole, left = divmod(total, 8)
        out.write(octets[:whole])
        rest = (np.full(int(left > 0), octets[-1] >> (8 - left)), np.full(int(left > 0), left))
    if len(rest[0]):
        out.write(bytes([int(rest[0][0]) << (8 - int(rest[1][0]))]))
    return out.getvalue()


def _pack(values: Integers, widths: Integers) -> tuple[bytes, int]:
    """Numbers as bytes, padded with zero bits, and how many bits they are.

    Numbers are put together in words of 64 bits. What begins in a word has no bit in common, so its bits are a sum;
    of the last number there, some may lie in the next word.
    """
    ends = np.cumsum(widths)
    word, place = np.divmod(ends - widths, 64)
    over = place + widths - 64
    numbers = values.astype(np.uint64)
    inside = numbers >> np.maximum(over, 0).astype(np.uint64) << np.maximum(-over, 0).astype(np.uint64)
    begins = np.flatnonzero(np.diff(word, prepend=-1))
    out = np.zeros(int(word[-1]) + 2, np.uint64)
    out[word[begins]] = np.add.reduceat(inside, begins)
    crossing = np.flatnonzero(over > 0)
    out[word[crossing] + 1] |= numbers[crossing] << (64 - over[crossing]).astype(np.uint64)
    total = int(ends[-1])
    return out.astype(">u8").tobytes()[: -(-total // 8)], total
