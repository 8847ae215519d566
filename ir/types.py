"""Types of values: dtype, shape, and the quantization parameters that make integers mean real numbers."""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np

from .errors import ModelError

if TYPE_CHECKING:
    from torch import dtype as TorchDType


class DType(enum.Enum):
    """Element types; the value is the spelling in the text form."""

    F64 = "f64"
    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    I64 = "i64"
    I32 = "i32"
    I16 = "i16"
    I8 = "i8"
    U64 = "u64"
    U32 = "u32"
    U16 = "u16"
    U8 = "u8"
    BOOL = "bool"

    def __repr__(self) -> str:
        return f"DType.{self.name}"

    @property
    def is_float(self) -> bool:
        return self in (DType.F64, DType.F32, DType.F16, DType.BF16)

    @property
    def is_integer(self) -> bool:
        return not self.is_float and self is not DType.BOOL

    @property
    def numpy(self) -> np.dtype[np.generic]:
        return _NUMPY[self]

    @property
    def itemsize(self) -> int:
        return self.numpy.itemsize

    @property
    def torch(self) -> TorchDType:
        """The torch dtype of the same elements (unsigned ones above 8 bits exist there for storage only)."""
        return _torch_dtypes()[self]

    @classmethod
    def from_numpy(cls, dtype: np.dtype[np.generic] | type[np.generic]) -> DType:
        found = _FROM_NUMPY.get(np.dtype(dtype))
        if found is None:
            raise ModelError(f"element type {np.dtype(dtype)} is not supported", expected=f"one of {_spellings()}")
        return found

    @classmethod
    def from_torch(cls, dtype: TorchDType) -> DType:
        for ours, theirs in _torch_dtypes().items():
            if theirs is dtype:
                return ours
        raise ModelError(f"element type {dtype} is not supported", expected=f"one of {_spellings()}")


_NUMPY: dict[DType, np.dtype[np.generic]] = {
    DType.F64: np.dtype(np.float64),
    DType.F32: np.dtype(np.float32),
    DType.F16: np.dtype(np.float16),
    DType.BF16: np.dtype(ml_dtypes.bfloat16),
    DType.I64: np.dtype(np.int64),
    DType.I32: np.dtype(np.int32),
    DType.I16: np.dtype(np.int16),
    DType.I8: np.dtype(np.int8),
    DType.U64: np.dtype(np.uint64),
    DType.U32: np.dtype(np.uint32),
    DType.U16: np.dtype(np.uint16),
    DType.U8: np.dtype(np.uint8),
    DType.BOOL: np.dtype(np.bool_),
}
_FROM_NUMPY = {numpy: ours for ours, numpy in _NUMPY.items()}


def _spellings() -> str:
    return ", ".join(dtype.value for dtype in DType)


@functools.cache
def _torch_dtypes() -> dict[DType, TorchDType]:
    import torch

    names = {"F": "float", "I": "int", "U": "uint"}
    special = {DType.BF16: torch.bfloat16, DType.BOOL: torch.bool}
    return {d: special.get(d) or getattr(torch, names[d.name[0]] + d.name[1:]) for d in DType}


@dataclass(frozen=True)
class Dim:
    """A dimension that is not known until the graph is specialized (usually the batch); prints as ``?name``.

    Where sizes were merged into it, by folding heads into the batch say, it is a multiple: ``?name*factor``.
    """

    name: str
    factor: int = 1

    def __post_init__(self) -> None:
        # In a printed shape "x" followed by a digit or "?" starts the next dimension.
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.name) or re.search(r"x\d", self.name):
            raise ModelError(
                f"{self.name!r} cannot name a dimension",
                expected="letters, digits, _, and no x before a digit",
            )

    @classmethod
    def named(cls, text: str) -> Dim:
        """A dimension named after ``text``, spelled so that it prints and parses."""
        word = re.sub(r"[^A-Za-z0-9_]", "_", text)
        word = re.sub(r"x(?=\d)", "x_", word) or "dim"
        return cls(f"d{word}" if word[0].isdigit() else word)

    @classmethod
    def parse(cls, text: str) -> Dim:
        """The dimension that prints as ``text``."""
        name, _, factor = text.removeprefix("?").partition("*")
        return cls(name, int(factor or 1))

    def bound(self, sizes: Mapping[Dim, int | Dim]) -> int | Dim:
        """What it becomes where ``sizes`` says what dimensions (without factors) stand for."""
        size = sizes.get(Dim(self.name), self)
        if isinstance(size, int):
            return size * self.factor
        return self if size is self else Dim(size.name, size.factor * self.factor)

    def __str__(self) -> str:
        return f"?{self.name}" + (f"*{self.factor}" if self.factor != 1 else "")


Shape = tuple[int | Dim, ...]


@dataclass(frozen=True)
class QuantParams:
    """Affine quantization: ``real = scale * (stored - zero_point)``.

    ``scale`` holds float32 values (as Python floats), ``zero_point`` integers; one of each, or one per index of
    ``axis``. Equal parameters are one object (see :func:`per_tensor`, :func:`per_channel`), so comparing is cheap.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None

    def __post_init__(self) -> None:
        if len(self.scale) != len(self.zero_point) or not self.scale:
            raise ModelError(f"{len(self.scale)} scales but {len(self.zero_point)} zero points")
        if self.axis is None and len(self.scale) != 1:
            raise ModelError("several scales need an axis")
        if not all(0.0 < s < float("inf") for s in self.scale):
            raise ModelError("a quantization scale is not a positive finite number")

    @property
    def symmetric(self) -> bool:
        return not any(self.zero_point)

    def scale_array(self) -> np.ndarray:
        """Scales as float32, shape ``(channels,)`` or ``(1,)``."""
        return np.asarray(self.scale, np.float32)

    def zero_point_array(self) -> np.ndarray:
        """Zero points as int32, shape ``(channels,)`` or ``(1,)``."""
        return np.asarray(self.zero_point, np.int32)


@functools.lru_cache(maxsize=65536)
def _intern(params: QuantParams) -> QuantParams:
    return params


def per_tensor(scale: float, zero_point: int = 0) -> QuantParams:
    """Interned parameters for a whole tensor; ``scale`` is rounded to float32."""
    return _intern(QuantParams((float(np.float32(scale)),), (int(zero_point),)))


def per_channel(scale: Iterable[float], zero_point: Iterable[int] | None, axis: int) -> QuantParams:
    """Interned parameters with one scale (rounded to float32) and zero point per index of ``axis``."""
    scales = tuple(float(np.float32(s)) for s in scale)
    zeros = (0,) * len(scales) if zero_point is None else tuple(int(z) for z in zero_point)
    return _intern(QuantParams(scales, zeros, axis))


@dataclass(frozen=True)
class TensorType:
    """What is known of a value before it exists: element type, shape, and static quantization if any."""

    dtype: DType
    shape: Shape
    quant: QuantParams | None = None

    def __post_init__(self) -> None:
        if self.quant is not None and not self.dtype.is_integer:
            raise ModelError(f"quantization parameters on {self.dtype.value}", expected="an integer element type")

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_static(self) -> bool:
        return all(isinstance(d, int) for d in self.shape)

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape as integers; raises when a dimension is still symbolic."""
        if not self.is_static:
            raise ModelError(f"shape {format_shape(self.shape)} is not fixed", hint="give --shape for every input")
        return tuple(d for d in self.shape if isinstance(d, int))

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.static_shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def with_shape(self, shape: Sequence[int | Dim]) -> TensorType:
        return TensorType(self.dtype, tuple(shape), self.quant)

    def with_dtype(self, dtype: DType) -> TensorType:
        """The same shape with another element type and no quantization."""
        return TensorType(dtype, self.shape)

    def with_quant(self, quant: QuantParams | None) -> TensorType:
        return TensorType(self.dtype, self.shape, quant)

    def __str__(self) -> str:
        from .text import format_type

        return format_type(self)


def format_shape(shape: Shape) -> str:
    """A shape as text, e.g. ``[?batchx3x224x224]``."""
    return "[" + "x".join(str(d) for d in shape) + "]"


def f32(*shape: int | Dim) -> TensorType:
    """The type of a float32 tensor."""
    return TensorType(DType.F32, shape)


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The numpy broadcast of shapes that may hold symbolic dimensions; raises :class:`ModelError` on a mismatch."""
    rank = max(len(s) for s in shapes)
    result: list[int | Dim] = []
    for axis in range(rank):
        dims = {s[axis - rank + len(s)] for s in shapes if axis - rank + len(s) >= 0} - {1}
        if len(dims) > 1:
            raise ModelError(f"shapes {' and '.join(map(format_shape, shapes))} do not broadcast")
        result.append(dims.pop() if dims else 1)
    return tuple(result)


def bind_dims(shapes: Iterable[tuple[Shape, Sequence[int | Dim]]]) -> dict[Dim, int | Dim]:
    """What each symbolic dimension stands for, from pairs of (symbolic shape, actual shape) of equal rank.

    Raises:
        ModelError: one dimension would stand for two sizes.
    """
    sizes: dict[Dim, int | Dim] = {}
    for symbolic, actual in shapes:
        for dim, size in zip(symbolic, actual, strict=True):
            if isinstance(dim, Dim) and sizes.setdefault(dim, size) != size:
                raise ModelError(f"the dimension {dim} is {sizes[dim]} and {size} at once")
    return sizes


def normalize_axis(axis: int, rank: int) -> int:
    """``axis`` counted from the front; raises :class:`ModelError` when it is out of range."""
    if not -rank <= axis < max(rank, 1):
        raise ModelError(f"axis {axis} is out of range for a tensor of rank {rank}")
    return axis % rank if rank else 0
