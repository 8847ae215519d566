"""What a translation works with: the graph that grows, the values made so far, and where in the model it stands."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import fx

from ...constants import Tensor
from ...errors import ModelError
from ...graph import Graph, Value
from ...interpreter import run_node, to_numpy
from ...op import Op
from ...ops.cast import Cast, Where
from ...ops.shape import Expand, Reshape, Slice, Transpose
from ...types import Dim, DType, Shape, TensorType, format_shape

Number = bool | int | float
Operand = Value | Number
Translation = Callable[..., Any]
TranslationType = TypeVar("TranslationType", bound=Translation)

_TRANSLATIONS: dict[object, Translation] = {}


def translate(*targets: object) -> Callable[[TranslationType], TranslationType]:
    """Decorator: ``function(ctx, *args, **kwargs)`` translates calls of these ATen overloads.

    It is called with the arguments of the call, tensors as :class:`Value`, and returns a Value, a tuple of Values, or
    a plain number for arithmetic on sizes.
    """

    def register(function: TranslationType) -> TranslationType:
        for target in targets:
            assert target not in _TRANSLATIONS, f"{target} is translated twice"
            _TRANSLATIONS[target] = function
        return function

    return register


def translations() -> Mapping[object, Translation]:
    """Every known translation by ATen overload."""
    from . import families

    assert families.__all__, "importing registers"
    return _TRANSLATIONS


@dataclass(frozen=True)
class Complex:
    """Complex numbers: two real values of one type."""

    real: Value
    imaginary: Value


class Refusal(Exception):  # noqa: N818 - it is collected, never seen by the user
    """A translation does not know this use of its op; the importer lists it among the unsupported ones."""


class Context:
    """The state of one import."""

    def __init__(self, graph: Graph, allow_non_finite: bool = False) -> None:
        self.graph = graph
        self.allow_non_finite = allow_non_finite
        self.env: dict[fx.Node, Any] = {}
        self.dims: dict[object, Dim] = {}
        self.node: fx.Node
        self.origin = ""
        self._name = ""

    # Where we are

    def enter(self, node: fx.Node) -> None:
        """Take ``node`` as the place that new nodes come from."""
        self.node = node
        path, leaf = module_path(node)
        self.origin = path or node.name
        self._name = path if leaf and path else f"{path}.{op_name(node)}".lstrip(".")

    # Making nodes

    def emit(self, op: Op, *inputs: Value, types: Sequence[TensorType] | None = None) -> Value:
        """Append an op with one output."""
        name = self._name or op.name
        return self.graph.insert(op, inputs, origin=self.origin, names=[name], types=types).output

    def emit_all(self, op: Op, *inputs: Value) -> tuple[Value, ...]:
        """Append an op with any number of outputs."""
        return self.graph.insert(op, inputs, origin=self.origin, names=[self._name or op.name]).outputs

    def constant(self, data: torch.Tensor | np.ndarray | np.generic, name: str = "") -> Value:
        """A constant that belongs to the node at hand, or to the parameter ``name``."""
        array = to_numpy(data) if isinstance(data, torch.Tensor) else data
        return self.graph.constant(Tensor.of(array), origin=name or self.origin, name=name or f"{self._name}.constant")

    def constants(self, data: torch.Tensor, name: str = "") -> Value | Complex:
        """A constant, or two where it is complex."""
        if not data.is_complex():
            return self.constant(data, name)
        real, imaginary = data.resolve_conj().real.contiguous(), data.resolve_conj().imag.contiguous()
        return Complex(self.constant(real, f"{name}.real" if name else ""), self.constant(imaginary))

    def with_zeros(self, real: Value) -> Complex:
        """Real values as complex ones."""
        return Complex(real, self.emit(Expand(real.type.shape), self.scalar(0.0, real.type.dtype)))

    def scalar(self, number: Number, dtype: DType) -> Value:
        """A constant of rank 0."""
        if not math.isfinite(number) and not dtype.is_float:
            raise Refusal(f"{number} among {dtype.value}")
        return self.constant(np.asarray(number).astype(dtype.numpy))

    def known(self, value: Operand) -> np.ndarray | None:
        """The elements, where constants alone decide them."""
        if not isinstance(value, Value):
            return np.asarray(value)
        found = _evaluate(value)
        return None if found is None else to_numpy(found)

    # Types

    def cast(self, value: Value, dtype: DType) -> Value:
        return value if value.type.dtype is dtype else self.emit(Cast(dtype), value)

    def operand(self, operand: Operand, dtype: DType) -> Value:
        """A tensor or number as a value of ``dtype``."""
        return self.cast(operand, dtype) if isinstance(operand, Value) else self.scalar(operand, dtype)

    def promoted(self, *operands: Operand) -> list[Value]:
        """Operands in the element type that torch computes them in."""
        dtype = promote(operands)
        return [self.operand(operand, dtype) for operand in operands]

    @property
    def output(self) -> torch.Tensor:
        """The fake tensor that torch.export foresees as the (first) result of the node at hand."""
        fake = self.node.meta["val"]
        first: torch.Tensor = fake[0] if isinstance(fake, tuple | list) else fake
        return first

    @property
    def dtype(self) -> DType:
        """Element type of the result, or of its parts if it is complex."""
        return DType.from_torch(self.output.dtype.to_real())

    @property
    def shape(self) -> Shape:
        """Shape of the result."""
        return self.shape_of(self.output)

    def shape_of(self, fake: torch.Tensor) -> Shape:
        return tuple(self.size(extent) for extent in fake.shape)

    def size(self, extent: int | torch.SymInt) -> int | Dim:
        """A size as torch.export writes it: a number, or a symbol that became a :class:`Dim`."""
        if isinstance(extent, int):
            return extent
        expression = extent.node.expr
        if expression.is_Integer:
            return int(expression)
        if expression.is_Symbol:
            return self._dim(expression)
        factor, symbol = expression.as_coeff_Mul()
        if factor.is_Integer and factor > 0 and symbol.is_Symbol:
            return Dim(self._dim(symbol).name, int(factor))
        raise ModelError(
            f"the size {expression} is computed from a size that is not fixed",
            where=self.origin,
            hint="import with a fixed batch (dynamic_batch=False) and one graph for each size",
        )

    def _dim(self, symbol: Any) -> Dim:
        return self.dims.setdefault(symbol, Dim.named(str(symbol)))

    # Small building blocks

    def reshape(self, value: Value, shape: Shape) -> Value:
        return value if value.type.shape == shape else self.emit(Reshape(shape), value)

    def transpose(self, value: Value, permutation: Sequence[int]) -> Value:
        if list(permutation) == list(range(len(permutation))):
            return value
        return self.emit(Transpose(tuple(permutation)), value)

    def slice(self, value: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
        """``value[start:stop:step]`` along one axis of known size."""
        shape = value.type.shape
        if (start, stop, step) == (0, shape[axis], 1):
            return value
        starts, steps = [0] * len(shape), [1] * len(shape)
        stops = [size if isinstance(size, int) else -1 for size in shape]
        starts[axis], stops[axis], steps[axis] = start, stop, step
        return self.emit(Slice(tuple(starts), tuple(stops), tuple(steps)), value)

    def where(self, condition: Value, a: Value, b: Value) -> Value:
        return self.emit(Where(), condition, a, b)

    def static(self, value: Value) -> tuple[int, ...]:
        """The shape of a value, or a refusal where it is not fixed."""
        if not value.type.is_static:
            raise Refusal(f"needs a fixed shape, not {format_shape(value.type.shape)}")
        return value.type.static_shape


def _evaluate(value: Value) -> torch.Tensor | None:
    """Run the part of the graph above ``value``, unless an input takes part in it."""
    if value.producer is None:
        return None
    operands = [_evaluate(operand) for operand in value.producer.inputs]
    known = [operand for operand in operands if operand is not None]
    return run_node(value.producer, known)[value.index] if len(known) == len(operands) else None


def promote(operands: Iterable[Operand]) -> DType:
    """The common element type by torch's rules: numbers weaken, tensors of rank 0 too."""
    samples = [_sample(operand) for operand in operands]
    result = samples[0]
    for sample in samples[1:]:
        result = _merge(result, sample)
    dtype = result.dtype if isinstance(result, torch.Tensor) else torch.tensor(result).dtype
    return DType.from_torch(dtype)


def _sample(operand: Operand) -> torch.Tensor | Number:
    if not isinstance(operand, Value):
        return operand
    return torch.empty((1,) * operand.type.rank, dtype=operand.type.dtype.torch)


def _merge(a: torch.Tensor | Number, b: torch.Tensor | Number) -> torch.Tensor | Number:
    dtype = torch.result_type(a, b)
    rank = max(x.ndim if isinstance(x, torch.Tensor) else 0 for x in (a, b))
    return torch.empty((1,) * rank, dtype=dtype)


def module_path(node: fx.Node) -> tuple[str, bool]:
    """The user's path of the module that made ``node``, and whether it is one of torch.nn's own leaf modules."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "", False
    path, kind = stack[-1]
    path = re.sub(r"@\d+", "", str(path)).removeprefix("L['self']").removeprefix("L__self__").lstrip(".")
    name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    return path, name.startswith("torch.nn.modules") and not name.endswith((".Sequential", ".Module"))


def op_name(node: fx.Node) -> str:
    """The short name of what a node calls, e.g. ``add`` for ``aten.add.Tensor``."""
    return str(node.target).split(".")[1] if isinstance(node.target, torch._ops.OpOverload) else node.name


def pairs(padding: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Symmetric padding as (before, after)."""
    return tuple((p, p) for p in padding)


def spread(numbers: int | Sequence[int], rank: int) -> tuple[int, ...]:
    """One number, or a list with one or ``rank``, as ``rank`` of them."""
    items = [numbers] if isinstance(numbers, int) else list(numbers)
    return tuple(items * rank if len(items) == 1 else items)
