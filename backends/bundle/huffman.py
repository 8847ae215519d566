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
import itertools
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ...ir.errors import BundleError

Octets: TypeAlias = npt.NDArray[np.uint8]
Integers: TypeAlias = npt.NDArray[np.int64]

MAX_LENGTH = 12
"""Bits of the longest code: what the decoder's tables are indexed by."""

EXACT_RUNS = 32
EXACT_BITS = 5

MAX_BYTES = 2**31 - 1
"""Of an array: the longest run of zeros must fit into one symbol and the 30 bits behind it."""


def encode(octets: Octets) -> bytes:
    """The block that decodes to ``octets`` (uint8, one dimension): of the two forms, the smaller.

    Raises:
        BundleError: the array is too large.
    """
    if octets.size > MAX_BYTES:
        raise BundleError(f"{octets.size} bytes in one array cannot be compressed", expected=f"at most {MAX_BYTES}")
    if not octets.size:
        return _table({}) * 2
    return min(_encode_plain(octets), _encode_runs(octets), key=len)


def _encode_plain(octets: Octets) -> bytes:
    codes = _Codes(octets.astype(np.int64))
    return _table({}) + _table(codes.lengths) + _pack(*codes.words)


def _encode_runs(octets: Octets) -> bytes:
    """Runs and bytes in turn; behind zeros at the end no byte follows."""
    places = np.flatnonzero(octets)
    gaps = np.diff(np.concatenate([[-1], places, [octets.size]])) - 1
    runs = gaps if gaps[-1] else gaps[:-1]
    bits = np.where(runs < EXACT_RUNS, 0, np.int64(np.floor(np.log2(np.maximum(runs, 1)))))
    symbols = np.where(runs < EXACT_RUNS, runs, EXACT_RUNS - EXACT_BITS + bits)
    before, values = _Codes(symbols), _Codes(octets[places].astype(np.int64))
    code, width = before.words
    code, width = code << bits | np.where(bits > 0, runs - (np.int64(1) << bits), 0), width + bits
    words = [_interleave(a, b) for a, b in zip((code, width), values.words, strict=True)]
    return _table(before.lengths) + _table(values.lengths) + _pack(words[0], words[1])


def _interleave(first: Integers, second: Integers) -> Integers:
    """a0 b0 a1 b1 ...; ``first`` may be one longer."""
    both = np.empty(len(first) + len(second), np.int64)
    both[0::2], both[1::2] = first, second
    return both


class _Codes:
    """The canonical Huffman code of some symbols, and these symbols in it."""

    def __init__(self, symbols: Integers) -> None:
        counts = np.bincount(symbols)
        lengths = _limited_lengths({int(symbol): int(counts[symbol]) for symbol in np.flatnonzero(counts)})
        order = sorted(lengths, key=lambda symbol: (lengths[symbol], symbol))
        codes, widths = np.zeros(len(counts), np.int64), np.zeros(len(counts), np.int64)
        code = 0
        for symbol, following in itertools.zip_longest(order, order[1:]):
            codes[symbol], widths[symbol] = code, lengths[symbol]
            if following is not None:
                code = (code + 1) << (lengths[following] - lengths[symbol])
        self.lengths = {symbol: lengths[symbol] for symbol in order}
        self.words = codes[symbols], widths[symbols]


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


def _pack(values: Integers, widths: Integers) -> bytes:
    """Numbers of different widths one after the other, most significant bit first."""
    ends = np.cumsum(widths)
    bits = np.zeros(int(ends[-1]), np.uint8)
    for place in range(int(widths.max())):
        some = np.flatnonzero(widths > place)
        bits[ends[some] - 1 - place] = values[some] >> place & 1
    return np.packbits(bits).tobytes()
