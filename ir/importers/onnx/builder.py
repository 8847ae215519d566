"""The graph that grows during an import: constants fold at once, and enter the graph when something needs them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ...constants import Tensor
from ...errors import ModelError
from ...graph import Graph, Value
from ...interpreter import run_op, to_numpy, to_torch
from ...op import Op
from ...ops.constant import Constant
from ...ops.quantize import Dequantize
from ...types import Dim, DType, TensorType
from .errors import Refusal, Unknown
from .operand import Operand, ShapeConstant, StoredConstant

MAX_CONSTANT = 2**29
"""Elements of the largest constant that folding may make."""


class Builder:
    """Emits ops into ``graph``. An op whose operands are all constant is evaluated instead, by its own meaning."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        # Keyed by identity; holding the operand keeps its id from being given to another.
        self._names: dict[int, tuple[Operand, str]] = {}
        self._values: dict[int, tuple[Operand, Value]] = {}

    def name_constant(self, operand: Operand, name: str) -> None:
        """Remember the user's name of a constant; the first one stays."""
        self._names.setdefault(id(operand), (operand, name))

    def emit(self, op: Op, operands: Sequence[Operand], origin: str) -> tuple[Operand, ...]:
        """The outputs of ``op``; constants when all operands are."""
        if operands and all(isinstance(o, Tensor | StoredConstant) for o in operands):
            return self._fold(op, [o.numpy() for o in operands if isinstance(o, Tensor | StoredConstant)], origin)
        values = [self.value(o, origin) for o in operands]
        return self.graph.insert(op, values, origin=origin).outputs

    def value(self, operand: Operand, origin: str) -> Value:
        """The operand as a value of the graph: a constant is put there once."""
        if isinstance(operand, Value):
            return operand
        known = self._values.get(id(operand))
        if known is None:
            known = (operand, self._materialize(operand, origin))
            self._values[id(operand)] = known
        return known[1]

    def _materialize(self, operand: Tensor | StoredConstant | ShapeConstant, origin: str) -> Value:
        name = self._names.get(id(operand), (operand, "constant"))[1]
        match operand:
            case Tensor():
                return self.graph.constant(operand, origin=origin, name=name)
            case StoredConstant():
                stored = self.graph.insert(Constant(operand.data, operand.quant), (), origin=origin, names=[name])
                return self.graph.insert(Dequantize(), stored.outputs, origin=origin).output
            case ShapeConstant():
                dims = sorted({str(d) for d in operand.dims() if isinstance(d, Dim)})
                raise ModelError(
                    f"dimension {', '.join(dims)} is used as a number, so it must be fixed",
                    where=origin,
                    hint=self.shape_hint(dims),
                )

    def _fold(self, op: Op, arrays: Sequence[np.ndarray], origin: str) -> tuple[Operand, ...]:
        types = [TensorType(DType.from_numpy(a.dtype), a.shape) for a in arrays]
        try:
            for type in op.infer(*types):
                limit_size(type.size, op.name)
            with torch.no_grad():
                results = run_op(op, types, [to_torch(a) for a in arrays])
        except ModelError as error:
            error.where = error.where or origin
            raise
        return tuple(Tensor.of(to_numpy(r)) for r in results)

    def require_constant(self, operand: Operand, what: str) -> None:
        """Stop the translation of a node unless ``operand`` is known now.

        Names the inputs that would have to be constants, unless those are data: float tensors of more than one axis.
        """
        if isinstance(operand, Value):
            inputs = sources(operand)
            data = [v.name for v in inputs if v.type.dtype.is_float and v.type.rank > 1]
            if data or not inputs:
                raise Refusal(f"{what} depends on the data{' of ' if data else ''}{', '.join(data)}")
            raise Unknown(tuple(v.name for v in inputs), what)

    def shape_hint(self, dims: Sequence[str]) -> str:
        """How to fix dimensions, by the inputs that have them."""
        shaped = [v for v in self.graph.inputs if not v.type.is_static]
        having = [v for v in shaped if any(str(d) in dims for d in v.type.shape)] or shaped
        examples = [f"--shape {v.name}={'x'.join(_example(d) for d in v.type.shape)}" for v in having]
        return "fix the shape of the input: " + " ".join(examples) + " (or shapes= in Python)"


def limit_size(count: int, what: str) -> None:
    """Refuse a constant that no memory would hold: a damaged shape, more likely than a meant one."""
    if count > MAX_CONSTANT:
        raise ModelError(f"{what} makes a constant of {count} elements", expected=f"at most {MAX_CONSTANT}")


def _example(dim: int | Dim) -> str:
    return f"<{dim.name}>" if isinstance(dim, Dim) else str(dim)


def sources(value: Value) -> tuple[Value, ...]:
    """The graph inputs that a value is computed from."""
    found: dict[Value, None] = {}
    seen: set[Value] = set()
    todo = [value]
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.producer is None:
            found[current] = None
        else:
            todo.extend(current.producer.inputs)
    return tuple(sorted(found, key=lambda v: v.index))


def type_of(operand: Operand) -> TensorType:
    """The type of what an operand means."""
    return operand.type
