"""Calls that no input of the network decides: torch itself computes them, whatever op they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from ...graph import Value
from ...types import Dim
from .context import Complex, Context


class _Undecided(Exception):  # noqa: N818 - it never leaves this module
    """An operand depends on an input."""


def fold(ctx: Context, node: fx.Node, read: Callable[[fx.Node], Any]) -> bool:
    """Put the results of a call on constants into ``ctx.env``; False when an input or chance takes part in it."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded in target.tags:
        return False
    try:
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: _known(ctx, read(n)))
        with torch.no_grad():
            result = target(*args, **kwargs)
        ctx.env[node] = _constants(ctx, result)
    except (_Undecided, RuntimeError):
        return False
    return True


def _known(ctx: Context, operand: Any) -> Any:
    if isinstance(operand, tuple | list):
        return [_known(ctx, item) for item in operand]
    if isinstance(operand, Complex):
        return torch.complex(_known(ctx, operand.real), _known(ctx, operand.imaginary))
    if not isinstance(operand, Value):
        if isinstance(operand, Dim | torch.SymInt):
            raise _Undecided
        return operand
    array = ctx.known(operand)
    if array is None:
        raise _Undecided
    return torch.from_numpy(array.copy()).to(operand.type.dtype.torch)


def _constants(ctx: Context, result: Any) -> Any:
    if isinstance(result, tuple | list):
        return tuple(_constants(ctx, item) for item in result)
    if isinstance(result, torch.Tensor):
        return ctx.constants(result.contiguous())
    return result
