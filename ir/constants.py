"""Constant data: immutable arrays named by their content, kept in memory or mapped lazily from a safetensors file."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .errors import ParseError
from .types import DType, TensorType

INLINE_LIMIT = 64
"""Constants of at most this many elements are printed inline; larger ones by their digest."""


class Tensor:
    """An immutable n-dimensional array, equal to another when dtype, shape and every byte are equal.

    The bytes may live in a file: they are read when first asked for.
    """

    __slots__ = ("_array", "_digest", "_load", "dtype", "shape")

    def __init__(
        self,
        dtype: DType,
        shape: tuple[int, ...],
        load: Callable[[], np.ndarray],
        digest: str | None = None,
    ) -> None:
        self.dtype = dtype
        self.shape = shape
        self._load = load
        self._array: np.ndarray | None = None
        self._digest = digest

    @classmethod
    def of(cls, array: np.ndarray | np.generic) -> Tensor:
        """A constant with a private, read-only, C-contiguous copy of ``array``."""
        data = np.array(array, order="C", copy=True)
        data.setflags(write=False)
        return cls(DType.from_numpy(data.dtype), data.shape, lambda: data)

    def numpy(self) -> np.ndarray:
        """The elements, as a read-only array of ``shape``."""
        if self._array is None:
            self._array = self._load()
        return self._array

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def type(self) -> TensorType:
        return TensorType(self.dtype, self.shape)

    @property
    def digest(self) -> str:
        """SHA-256 over dtype, shape and little-endian bytes: the name of this content."""
        if self._digest is None:
            head = f"{self.dtype.value}{list(self.shape)}".encode()
            self._digest = hashlib.sha256(head + self.numpy().tobytes()).hexdigest()
        return self._digest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tensor) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Tensor({self.dtype.value}{list(self.shape)}, {self.digest[:12]})"


class ConstantSource(Protocol):
    """Where the parser finds constants that the text names by digest."""

    def __call__(self, digest: str) -> Tensor: ...


def no_constants(digest: str) -> Tensor:
    """The source of a text that comes alone."""
    raise ParseError(
        f"constant {digest[:12]} is not in the text",
        hint="parse with the constants of the original graph, or load the file with load_graph",
    )


def from_tensors(tensors: Mapping[str, Tensor]) -> ConstantSource:
    """A source over constants already in memory, by digest."""

    def find(digest: str) -> Tensor:
        if digest not in tensors:
            raise ParseError(f"constant {digest[:12]} is unknown")
        return tensors[digest]

    return find


def save_constants(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write constants to a safetensors file, each under its digest.

    Raises:
        OSError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file({digest: _storable(t.numpy()) for digest, t in tensors.items()}, path)
    except SafetensorError as error:
        raise OSError(f"{path.name}: {error}") from error


def map_constants(path: Path) -> ConstantSource:
    """A source over a safetensors file; each tensor is read, and compared with its digest, when it is first used."""

    @functools.cache
    def find(digest: str) -> Tensor:
        with _opened(path) as file:
            if digest not in file.keys():  # noqa: SIM118 - the handle is no mapping
                raise ParseError(f"constant {digest[:12]} is unknown", where=str(path))
            piece = file.get_slice(digest)
            shape, dtype = tuple(piece.get_shape()), _dtype_of(piece.get_dtype())

        def load() -> np.ndarray:
            with _opened(path) as again:
                array: np.ndarray = np.asarray(again.get_tensor(digest)).view(dtype.numpy).reshape(shape)
            array.setflags(write=False)
            if Tensor(dtype, shape, lambda: array).digest != digest:
                raise ParseError(f"constant {digest[:12]} was altered: its digest is another", where=str(path))
            return array

        return Tensor(dtype, shape, load, digest)

    return find


@contextlib.contextmanager
def _opened(path: Path) -> Generator[Any]:
    """A safetensors file.

    Raises:
        ParseError: it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ParseError(f"the constants cannot be read: {error}", where=str(path)) from error


def _storable(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(array.shape)


def _dtype_of(name: str) -> DType:
    return DType(name.lower())
