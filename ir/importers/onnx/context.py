"""What a translation works with: one ONNX node, its operands and attributes, and the graph that grows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...constants import Tensor
from ...errors import ModelError
from ...graph import Value
from ...op import Op
from ...types import Dim, DType, Shape, TensorType
from .builder import Builder
from .errors import Refusal
from .operand import Operand, ShapeConstant, StoredConstant

if TYPE_CHECKING:
    import onnx


class Context:
    """One node during its translation.

    Operands are values, or constants that are not in the graph yet. ``emit`` folds an op of constants at once.
    """

    def __init__(
        self,
        builder: Builder,
        op_type: str,
        version: int,
        origin: str,
        attributes: Mapping[str, Any],
        operands: Sequence[Operand | None],
        outputs: Sequence[str],
        expand: Callable[[Context, onnx.FunctionProto], tuple[Operand | None, ...]],
        define: Callable[[Context], tuple[Operand | None, ...]],
        inline: Callable[[Any], tuple[Operand | None, ...]],
    ) -> None:
        self.builder = builder
        self.op_type = op_type
        self.version = version
        self.origin = origin
        self.attributes = attributes
        self.operands = operands
        self.outputs = outputs
        """Names of the outputs, empty where one is not asked for."""
        self._expand = expand
        self._define = define
        self._inline = inline

    # Operands

    def has(self, index: int) -> bool:
        """Whether operand ``index`` is given."""
        return index < len(self.operands) and self.operands[index] is not None

    def value(self, index: int) -> Operand:
        """Operand ``index``."""
        operand = self.optional(index)
        if operand is None:
            raise ModelError(f"{self.op_type} lacks input {index}", where=self.origin)
        return operand

    def optional(self, index: int) -> Operand | None:
        """Operand ``index``, or None when it is left out."""
        return self.operands[index] if index < len(self.operands) else None

    def values(self) -> tuple[Operand, ...]:
        """All operands."""
        return tuple(self.value(i) for i in range(len(self.operands)))

    def values_at(self, *indices: int) -> tuple[Operand, ...]:
        """Some operands."""
        return tuple(self.value(i) for i in indices)

    def values_given(self) -> tuple[Operand, ...]:
        """The operands up to the last one that is given."""
        given = [o for o in self.operands if o is not None]
        if len(given) < len(self.operands) and self.operands[len(given)] is not None:
            raise ModelError(f"{self.op_type} leaves out an input before the last", where=self.origin)
        return tuple(given)

    def is_graph_value(self, operand: Operand) -> bool:
        """Whether the operand is known only when the network runs."""
        return isinstance(operand, Value)

    def number(self, operand: Operand) -> float:
        """The only element of a constant."""
        self.builder.require_constant(operand, f"a parameter of {self.op_type}")
        assert isinstance(operand, Tensor | StoredConstant)
        element: float = operand.numpy().reshape(-1)[0].item()
        return element

    def type(self, index: int) -> TensorType:
        """The type of operand ``index``."""
        return self.value(index).type

    def static_shape(self, index: int) -> tuple[int, ...]:
        """The shape of operand ``index`` as integers; symbolic dimensions end the import with the input's name."""
        return self.fixed(self.type(index).shape)

    def fixed(self, shape: Sequence[int | Dim]) -> tuple[int, ...]:
        """``shape`` as integers, or an error that says which input to give a shape."""
        unknown = [str(d) for d in shape if isinstance(d, Dim)]
        if unknown:
            raise ModelError(
                f"{self.op_type} needs dimension {', '.join(unknown)} to be fixed",
                where=self.origin,
                hint=self.builder.shape_hint(unknown),
            )
        return tuple(d for d in shape if isinstance(d, int))

    def constant(self, index: int, what: str = "") -> np.ndarray:
        """The numbers of operand ``index``, which must be known now."""
        operand = self.value(index)
        if isinstance(operand, ShapeConstant):
            self.fixed(operand.dims())
            return operand.data.astype(np.int64)
        self.builder.require_constant(operand, what or f"input {index} of {self.op_type}")
        assert isinstance(operand, Tensor | StoredConstant)
        return operand.numpy()

    def integers(self, index: int) -> tuple[int, ...]:
        """The integers of operand ``index``, which must be known now."""
        return tuple(int(i) for i in self.constant(index).reshape(-1))

    def dims(self, index: int) -> tuple[int | Dim, ...]:
        """The integers of operand ``index``; symbolic dimensions may be among them."""
        operand = self.value(index)
        return operand.dims() if isinstance(operand, ShapeConstant) else self.integers(index)

    # Attributes

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute, or its default."""
        value = self.attributes.get(name)
        return default if value is None else value

    def integer(self, name: str, default: int | None = None) -> int:
        """An integer attribute; without a default it must be there."""
        return int(self._required(name, default))

    def real(self, name: str, default: float | None = None) -> float:
        """A float attribute, as the float32 that the file holds."""
        return float(self._required(name, default))

    def text(self, name: str, default: str | None = None) -> str:
        """A string attribute."""
        return str(self._required(name, default))

    def ints(self, name: str, default: Sequence[int] | None = None) -> tuple[int, ...]:
        """A list of integers."""
        return tuple(int(i) for i in self._required(name, default))

    def reals(self, name: str, default: Sequence[float] | None = None) -> tuple[float, ...]:
        """A list of floats."""
        return tuple(float(x) for x in self._required(name, default))

    def _required(self, name: str, default: Any) -> Any:
        value = self.attr(name, default)
        if value is None:
            raise ModelError(f"{self.op_type} lacks the attribute {name}", where=self.origin)
        return value

    def axes(self, index: int, name: str = "axes") -> tuple[int, ...] | None:
        """Axes that newer opsets give as operand ``index`` and older ones as an attribute; None when left out."""
        if self.has(index):
            return self.integers(index)
        return self.ints(name) if self.attr(name) is not None else None

    # Emitting

    def emit(self, op: Op, *operands: Operand) -> Operand:
        """The only output of ``op``."""
        (result,) = self.emit_all(op, *operands)
        return result

    def emit_all(self, op: Op, *operands: Operand) -> tuple[Operand, ...]:
        """The outputs of ``op``."""
        return self.builder.emit(op, operands, self.origin)

    def const(self, array: np.ndarray | np.generic | float, dtype: DType | None = None) -> Tensor:
        """A new constant; a Python number becomes ``dtype`` (float32 unless given)."""
        if isinstance(array, int | float) or dtype is not None:
            array = np.asarray(array, (dtype or DType.F32).numpy)
        return Tensor.of(array)

    def graph_value(self, operand: Operand) -> Value:
        """The operand as a value of the graph."""
        return self.builder.value(operand, self.origin)

    def wants(self, index: int) -> bool:
        """Whether output ``index`` is asked for."""
        return index < len(self.outputs) and bool(self.outputs[index])

    def refuse_outputs(self, first: int = 1) -> None:
        """Refuse the node when an output from ``first`` on is asked for."""
        asked = [i for i in range(first, len(self.outputs)) if self.wants(i)]
        if asked:
            raise Refusal(f"output {asked[0]} of {self.op_type} is not computed")

    def expand(self, function: onnx.FunctionProto) -> tuple[Operand | None, ...]:
        """Translate the node as the body of ``function``."""
        return self._expand(self, function)

    def by_definition(self) -> tuple[Operand | None, ...]:
        """Translate the node as the function body by which ONNX defines its operator."""
        return self._define(self)

    def inline(self, subgraph: Any) -> tuple[Operand | None, ...]:
        """Translate a subgraph in place; its outputs."""
        return self._inline(subgraph)


def shape_of(operand: Operand) -> Shape:
    """The shape of what an operand means."""
    return operand.type.shape
