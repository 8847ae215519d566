"""What a kernel specification is. Nothing here imports tvm.

A specification is a frozen dataclass of ints and strings that says everything the generated code depends on. Numbers
that differ between layers of one shape (zero points, clamp bounds, multipliers) are constants handed over at run time,
so that equal layers share one kernel.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from ..isa import Isa

Role = Literal["in", "out", "const", "scratch"]
Array = npt.NDArray[Any]

#: Bytes.
CACHE_LINE = 64


@dataclass(frozen=True)
class Arg:
    """One pointer parameter of a kernel: element type, role, and for scratch its size in bytes for one task range.

    ``dtype`` ``"act"`` stands for the ISA's stored activation type.
    """

    name: str
    dtype: str
    role: Role
    bytes: int = 0

    def dtype_on(self, isa: Isa) -> str:
        return isa.act_dtype if self.dtype == "act" else self.dtype


@dataclass(frozen=True)
class StridedView:
    """Where an NHWC tensor lies, in elements from the pointer that is passed.

    Element (n, h, w, c) is at ``offset + n * batch + h * row + w * pixel + c``.
    """

    batch: int
    row: int
    pixel: int
    offset: int = 0

    @staticmethod
    def dense(height: int, width: int, channels: int) -> StridedView:
        """The view of a contiguous NHWC tensor."""
        return StridedView(height * width * channels, width * channels, channels)


class KernelSpec(ABC):
    """A kernel: its C function is ``int32_t symbol(void* arg..., int32_t begin, int32_t end)``."""

    #: Whether the output bytes are disjoint from all input bytes, so that the emitter may say so to LLVM.
    noalias: ClassVar[bool] = True

    @property
    @abstractmethod
    def args(self) -> tuple[Arg, ...]:
        """The pointer parameters in order."""

    @abstractmethod
    def tasks(self, isa: Isa) -> int:
        """The number of independent work units; one call computes the units [begin, end)."""

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        """The constant arguments by name, laid out for `isa`, from logical arrays. None by default."""
        return {}

    def alternatives(self, isa: Isa) -> tuple[KernelSpec, ...]:
        """Kernels that compute the same from the same arrays and may be faster, the likeliest first."""
        return ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all work units together, those with weights of zero included."""
        return 0

    def instruction(self, isa: Isa) -> str:
        """What they are done with, as `Dot.kind` or ``fma``; empty without any."""
        return ""

    @property
    def bytes_written(self) -> int | None:
        """Bytes that are stored, where they are fewer than the outputs hold."""
        return None

    def over_read(self, isa: Isa) -> dict[str, int]:
        """Bytes past the last byte of each input that may be read (never written)."""
        return {}


Spec = TypeVar("Spec", bound=KernelSpec)
Emitter = Callable[[Any, Isa, str], Any]
_EMITTERS: dict[type[KernelSpec], Emitter] = {}


def emitter(spec_type: type[Spec]) -> Callable[[Callable[[Spec, Isa, str], Any]], Callable[[Spec, Isa, str], Any]]:
    """Register the decorated function as the emitter of a specification class."""

    def register(function: Callable[[Spec, Isa, str], Any]) -> Callable[[Spec, Isa, str], Any]:
        _EMITTERS[spec_type] = function
        return function

    return register


def emit(spec: KernelSpec, isa: Isa, symbol: str) -> Any:
    """The PrimFunc of a kernel. Imports the emitter module of the same name under `emit`, and so tvm."""
    package, _, module = type(spec).__module__.rpartition(".")
    importlib.import_module(f"{package}.emit.{module}")
    return _EMITTERS[type(spec)](spec, isa, symbol)


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple


def padded(array: Array, length: int, dtype: str) -> Array:
    """A one-dimensional copy of `array`, zero-padded to `length`."""
    result = np.zeros(length, dtype)
    result[: array.size] = array.reshape(-1)
    return result
