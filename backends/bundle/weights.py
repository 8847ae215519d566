"""The constants of a bundle: packed arrays, each stored once however many levels use it."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .huffman import encode

ALIGNMENT = 64
HEADER_BYTES = 64
MAGIC = b"octavo\x00W"
VERSION = 1

_HEADER = struct.Struct("<8sIIQ8x32s")  # magic, version, header bytes, data bytes, SHA-256 of the data
_CODED = struct.Struct("<II")  # number of arrays and CRC-32 of the data; then for each array its bytes, and those coded


class WeightStore:
    """Collects arrays by content and gives each its offset in the data.

    Every array starts at a multiple of 64 bytes. ``slack`` zero bytes end the data, for kernels that read a whole tile
    at the end of the last array.
    """

    def __init__(self, slack: int = 64) -> None:
        self._arrays: list[npt.NDArray[np.uint8]] = []
        self._offsets: dict[bytes, int] = {}
        self._bytes = 0
        self._slack = slack

    def add(self, array: npt.NDArray[Any]) -> int:
        """The offset of the array's row-major bytes in the data; equal bytes get the same offset."""
        octets = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        digest = hashlib.sha256(octets.data).digest()
        if digest not in self._offsets:
            self._offsets[digest] = self._bytes
            self._arrays.append(octets)
            self._bytes += octets.size + (-octets.size) % ALIGNMENT
        return self._offsets[digest]

    @property
    def data_bytes(self) -> int:
        return self._bytes + self._slack + (-self._slack) % ALIGNMENT

    def header(self) -> bytes:
        """64 bytes that identify the data: a library accepts the file that begins with its own."""
        digest = hashlib.sha256()
        for chunk in self._data():
            digest.update(chunk)
        return _HEADER.pack(MAGIC, VERSION, HEADER_BYTES, self.data_bytes, digest.digest())

    def chunks(self) -> Iterator[memoryview | bytes]:
        """The whole file in pieces: header, arrays, padding."""
        yield self.header()
        yield from self._data()

    def coded(self) -> Iterator[bytes]:
        """The whole compressed file: header, sizes, and each array as a block of ``huffman`` where that is smaller."""
        blocks: list[bytes] = []
        crc = 0
        for octets in self._arrays:
            block = encode(octets)
            blocks.append(block if len(block) < octets.size else octets.tobytes())
        for chunk in self._data():
            crc = zlib.crc32(chunk, crc)
        pairs = zip(self._arrays, blocks, strict=True)
        sizes = np.array([(octets.size, len(block)) for octets, block in pairs], "<u4")
        yield from (self.header(), _CODED.pack(len(blocks), crc), sizes.tobytes(), *blocks)

    def _data(self) -> Iterator[memoryview | bytes]:
        for octets in self._arrays:
            yield octets.data
            yield bytes(-octets.size % ALIGNMENT)
        yield bytes(self.data_bytes - self._bytes)
