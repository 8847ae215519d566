"""Arrays in .npy and .npz files, read piece by piece: a file may be larger than memory. Pickles are refused."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from ..ir.errors import CalibrationError

ARRAY_SUFFIXES = frozenset({".npz", ".npy"})


@dataclass(frozen=True)
class ArrayReader:
    """An array whose rows ``[start, stop)`` along the first axis are read when asked for, best in order."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    read: Callable[[int, int | None], np.ndarray]

    @classmethod
    def of(cls, array: np.ndarray) -> ArrayReader:
        """An array that is in memory, or mapped."""

        def read(start: int, stop: int | None) -> np.ndarray:
            return np.asarray(array) if stop is None else np.asarray(array[start:stop])

        return cls(array.shape, array.dtype, read)


@contextlib.contextmanager
def open_arrays(path: Path) -> Generator[Mapping[str, ArrayReader]]:
    """The arrays of a file, by name; the only array of an .npy file is called ``arr_0``.

    Raises:
        CalibrationError: the file is missing, truncated, no array file, or holds Python objects.
    """
    try:
        if path.suffix.lower() == ".npy":
            yield {"arr_0": ArrayReader.of(np.load(path, mmap_mode="r", allow_pickle=False))}
        else:
            with zipfile.ZipFile(path) as archive, contextlib.ExitStack() as stack:
                names = [name for name in archive.namelist() if name.endswith(".npy")]
                yield {name.removesuffix(".npy"): _member(archive, name, stack) for name in names}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, SyntaxError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
        raise CalibrationError(f"the file cannot be read: {reason}", where=str(path)) from error


def read_all(path: Path) -> dict[str, np.ndarray]:
    """Every array of an .npz or .npy file, in memory."""
    with open_arrays(path) as arrays:
        return {name: array.read(0, None) for name, array in arrays.items()}


def _member(archive: zipfile.ZipFile, name: str, stack: contextlib.ExitStack) -> ArrayReader:
    with archive.open(name) as file:
        shape, fortran, dtype = _read_header(file)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects")
    if fortran or not shape:
        return ArrayReader.of(_read_whole(archive, name))
    return ArrayReader(shape, dtype, _Rows(archive, name, shape, dtype, stack).read)


def _read_whole(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as file:
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


class _Rows:
    """Reads rows of one member in order; going back starts again at its beginning."""

    def __init__(
        self,
        archive: zipfile.ZipFile,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[np.generic],
        stack: contextlib.ExitStack,
    ) -> None:
        self._archive, self._name, self._shape, self._dtype, self._stack = archive, name, shape, dtype, stack
        self._row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        self._file: IO[bytes] | None = None
        self._next = 0

    def read(self, start: int, stop: int | None) -> np.ndarray:
        stop = self._shape[0] if stop is None else min(stop, self._shape[0])
        file = self._seek(start)
        data = file.read((stop - start) * self._row_bytes)
        self._next = stop
        if len(data) != (stop - start) * self._row_bytes:
            raise ValueError(f"{self._name} is truncated")
        return np.frombuffer(data, self._dtype).reshape(stop - start, *self._shape[1:])

    def _seek(self, row: int) -> IO[bytes]:
        if self._file is None or row < self._next:
            if self._file is not None:
                self._file.close()
            self._file = self._stack.enter_context(self._archive.open(self._name))
            _read_header(self._file)
            self._next = 0
        skip = (row - self._next) * self._row_bytes
        while skip > 0:
            skip -= len(self._file.read(min(skip, 1 << 20))) or skip
        return self._file
