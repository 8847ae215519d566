"""Just enough ELF to see the symbols of an object: which names it offers, and for which machine.

Format: System V ABI, chapters 4 and 5 (64-bit, little-endian).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from .features import AARCH64, X86_64

_MACHINES = {62: X86_64, 183: AARCH64}
_SYMTAB, _DYNSYM = 2, 11
_GLOBAL, _WEAK = 1, 2
_HIDDEN_VISIBILITIES = (1, 2)


@dataclass(frozen=True)
class Symbol:
    """A global or weak symbol."""

    name: str
    defined: bool
    hidden: bool


@dataclass(frozen=True)
class ElfFile:
    """The machine of an ELF file (None when it is none of ours) and its global symbols, dynamic and static."""

    machine: str | None
    static: tuple[Symbol, ...]
    dynamic: tuple[Symbol, ...]


def read_elf(path: Path) -> ElfFile:
    """Reads an object or shared library.

    Raises:
        ValueError: the file is not a 64-bit little-endian ELF file, or is truncated.
    """
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"{path} is not a 64-bit little-endian ELF file")
    try:
        machine = struct.unpack_from("<H", data, 18)[0]
        return ElfFile(_MACHINES.get(machine), _symbols(data, _SYMTAB), _symbols(data, _DYNSYM))
    except (struct.error, IndexError) as error:
        raise ValueError(f"{path} is a truncated ELF file") from error


def machine_of(path: Path) -> str | None:
    """The architecture of an ELF file, from its first bytes; None for anything else."""
    with path.open("rb") as file:
        head = file.read(20)
    if len(head) < 20 or head[:6] != b"\x7fELF\x02\x01":
        return None
    return _MACHINES.get(struct.unpack_from("<H", head, 18)[0])


def _sections(data: bytes) -> list[tuple[int, int, int, int]]:
    """(type, link, offset, size) of each section."""
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, table + size * i) for i in range(count)]
    return [(header[1], header[6], header[4], header[5]) for header in headers]


def _symbols(data: bytes, wanted: int) -> tuple[Symbol, ...]:
    sections = _sections(data)
    found: list[Symbol] = []
    for kind, link, offset, size in sections:
        if kind != wanted:
            continue
        names = sections[link][2]
        for position in range(offset, offset + size, 24):
            name, info, other, section = struct.unpack_from("<IBBH", data, position)
            if info >> 4 in (_GLOBAL, _WEAK):
                end = data.index(b"\0", names + name)
                text = data[names + name : end].decode("utf-8", "replace")
                found.append(Symbol(text, section != 0, other & 3 in _HIDDEN_VISIBILITIES))
    return tuple(found)
