"""Python functions in exported graphs: access to tuples, arithmetic on sizes."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch

from ....graph import Value
from ....types import Dim
from ..context import Context, Refusal, translate

aten = torch.ops.aten


@translate(operator.getitem)
def getitem(ctx: Context, items: Any, index: int) -> Any:
    return items[index]


@translate(aten.sym_size.int)
def size(ctx: Context, x: Value, axis: int) -> int | Dim:
    return x.type.shape[axis]


@translate(aten.sym_numel.default)
def numel(ctx: Context, x: Value) -> int:
    return x.type.size


class UnknownSize:
    """A number computed from a symbolic dimension; harmless in shapes, which are read from the fake results."""


def _on_sizes(function: Callable[..., Any]) -> None:
    @translate(function)
    def compute(ctx: Context, *operands: Any) -> Any:
        """The result where it is a number or one dimension; the shapes that use it come from torch.export itself."""
        if any(isinstance(operand, Dim | UnknownSize) for operand in operands):
            return UnknownSize()
        return function(*operands)


for _function in (
    operator.add,
    operator.sub,
    operator.mul,
    operator.floordiv,
    operator.mod,
    operator.neg,
    operator.truediv,
    operator.pow,
    operator.eq,
    operator.ne,
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
    torch.sym_max,
    torch.sym_min,
    torch.sym_int,
    torch.sym_float,
    torch.sym_not,
):
    _on_sizes(_function)


@translate(
    aten._assert_scalar.default,
    aten.sym_constrain_range.default,
    aten.sym_constrain_range_for_size.default,
    aten._assert_tensor_metadata.default,
)
def assertion(ctx: Context, *_: Any, **__: Any) -> None:
    """Holds for the sizes that were traced; the graph's input types say the same."""


@translate(aten._assert_async.msg)
def assert_values(ctx: Context, *_: Any, **__: Any) -> None:
    raise Refusal("an assertion on tensor values cannot run inside a compiled graph")
