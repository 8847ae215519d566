"""What an operation is: a frozen value that knows its operands, types, meaning, quantization and cost.

An :class:`Op` is everything octavo knows about one kind of operation, in one place. Where it sits in a graph is a
:class:`~octavo.ir.graph.Node`. Ops register themselves by name; the text form, the verifier, the interpreter, the
quantizer and the contract tests all work through this registry.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import importlib
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from .channels import Flow, Kept
from .errors import UsageError, VerifyError
from .types import Dim, DType, Shape, TensorType

if TYPE_CHECKING:
    import numpy as np
    import torch


class Stage(enum.Enum):
    """Where an op may stand. The freeze (the pass ``lower-integer``) separates the stages."""

    FLOAT = "float"
    """Before the freeze only (trainable and bookkeeping ops such as ``fake_quantize``)."""
    INTEGER = "integer"
    """After the freeze only: exact integer semantics."""
    ANY = "any"
    """Both; after the freeze it is a float island or moves values without changing them."""


class Quantization(enum.Enum):
    """How an op takes part in quantization; the rule that the decision log names."""

    WEIGHTED = "weighted"
    """Constant per-channel weights, int32 accumulation: conv, linear."""
    MATMUL = "matmul"
    """Two quantized activations, int32 accumulation."""
    ARITHMETIC = "arithmetic"
    """Elementwise on several quantized operands, each with its own scale: add, mul."""
    TABLE = "table"
    """A function of one element: an exact table of 256 entries."""
    PRESERVING = "preserving"
    """Moves or selects elements; output and input share their parameters."""
    JOINING = "joining"
    """Puts several inputs into one output with common parameters: concat."""
    AVERAGE = "average"
    """Sums elements and divides by their number."""
    SOFTMAX = "softmax"
    """Exponentials from an exact table, integer sums."""
    NORMALIZATION = "normalization"
    """Statistics from exact integer sums."""
    FLOAT = "float"
    """Stays in float."""


@dataclass(frozen=True)
class Cost:
    """Work of one node: multiply-accumulates and other elementwise operations."""

    macs: int = 0
    elementwise: int = 0


@dataclass(frozen=True)
class Op(ABC):
    """Base of all ops. Fields are attributes: hashable, and printable as Python literals.

    ``operands`` names the inputs in order; a trailing ``?`` marks an optional one (only at the end), a ``*`` as the
    last character of the last name any number of them.
    """

    name: ClassVar[str]
    operands: ClassVar[tuple[str, ...]]
    stage: ClassVar[Stage] = Stage.ANY
    quantization: ClassVar[Quantization] = Quantization.FLOAT

    @abstractmethod
    def infer(self, *args: Any, **kwargs: Any) -> tuple[TensorType, ...]:
        """Types of the outputs, from the operands' types in order.

        Raises:
            ModelError: the operands do not fit.
        """

    def run(self, *args: Any, **kwargs: Any) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Float meaning in torch: differentiable, judged by tolerance. An :class:`ExactOp` has ``exact`` instead."""
        raise VerifyError(f"{self.name} has no float meaning")

    @property
    def rule(self) -> Quantization:
        """How this op, with these attributes, takes part in quantization."""
        return self.quantization

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        """Which indices of which axes of operands and results of these types belong together."""
        return Flow(reason=f"{self.name} says nothing about its channels")

    def narrowed(self, inputs: Sequence[Kept], outputs: Sequence[Kept], shapes: Sequence[Shape]) -> Op:
        """The op for operands and results that lost indices; ``shapes`` are the results' new ones."""
        return self

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Work of one run on operands and results of these types."""
        return Cost(elementwise=sum(t.size for t in outputs))


class ExactOp(ABC):
    """Mixin: the op has an exact definition in elementary numpy operations, which every kernel equals to the bit."""

    @abstractmethod
    def exact(self, types: Sequence[TensorType], *args: Any, **kwargs: Any) -> np.ndarray | tuple[np.ndarray, ...]:
        """The outputs, from the operands' types (quantization parameters are read there) and arrays in order."""


_REGISTRY: dict[str, type[Op]] = {}
OpType = TypeVar("OpType", bound=type[Op])


def register_op(cls: OpType) -> OpType:
    """Class decorator: make an op known to the text form, verifier and contract tests."""
    if cls.name in _REGISTRY:
        raise UsageError(f"an op named {cls.name} exists already", where=cls.__qualname__)
    _REGISTRY[cls.name] = cls
    return cls


def _load_ops() -> None:
    importlib.import_module(".ops", __package__)


def find_op(name: str) -> type[Op]:
    """The op class of that name; an unknown one lists close names."""
    import difflib

    _load_ops()
    if name not in _REGISTRY:
        close = difflib.get_close_matches(name, _REGISTRY, 3)
        raise UsageError(f"no op is named {name}", hint=f"did you mean {' or '.join(close)}?" if close else None)
    return _REGISTRY[name]


def all_ops() -> Iterator[type[Op]]:
    """Every registered op class, by name."""
    _load_ops()
    return iter([_REGISTRY[name] for name in sorted(_REGISTRY)])


@dataclass(frozen=True)
class Arity:
    """How many operands an op takes, from its ``operands``."""

    least: int
    most: int | None

    def admits(self, count: int) -> bool:
        return self.least <= count and (self.most is None or count <= self.most)

    def __str__(self) -> str:
        if self.most is None:
            return f"at least {self.least}"
        return str(self.least) if self.least == self.most else f"{self.least} to {self.most}"


@functools.cache
def arity(cls: type[Op]) -> Arity:
    """How many operands ops of this class take."""
    names = cls.operands
    variadic = bool(names) and names[-1].endswith("*")
    least = sum(not n.endswith(("?", "*")) for n in names)
    return Arity(least, None if variadic else len(names))


def operand_index(cls: type[Op], operand: str) -> int:
    """Position of a named operand."""
    return [n.rstrip("?*") for n in cls.operands].index(operand)


@functools.cache
def attribute_types(cls: type[Op]) -> dict[str, Any]:
    """Field name to annotated type, resolved."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def with_dims(op: Op, sizes: Mapping[Dim, int | Dim]) -> Op:
    """The op with symbolic dimensions in its attributes (target shapes) replaced by what ``sizes`` says of them."""
    if not sizes:
        return op
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(op):
        value = getattr(op, field.name)
        if isinstance(value, tuple) and any(isinstance(item, Dim) for item in value):
            changes[field.name] = tuple(item.bound(sizes) if isinstance(item, Dim) else item for item in value)
    return dataclasses.replace(op, **changes) if changes else op


def is_dtype_field(annotation: object) -> bool:
    """Whether a field holds a :class:`DType` (or may)."""
    return annotation is DType or DType in typing.get_args(annotation)
