"""A function of one element made of others, as one op: between int8 values it is rounded once, not at each step."""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..errors import ModelError
from ..op import Op, arity, find_op, register_op
from .elementwise import Unary

VARIABLE = "x"


@dataclass(frozen=True)
class Call:
    """One op of a function's body, with its operands: calls, numbers, or None for the variable."""

    op: Op
    operands: tuple[Call | float | None, ...]


Expression = Call | float | None
"""An expression over one variable, which is None."""


@register_op
@dataclass(frozen=True)
class Function(Unary):
    """``body`` at every element: calls of ops on ``x`` and numbers, as in ``mul(hard_swish(x), 0.5)``.

    Attributes of an op follow its operands by name: ``clamp(x, low=0.0, high=inf)``.
    """

    body: str

    name: ClassVar[str] = "function"

    def __post_init__(self) -> None:
        parse_body(self.body)

    @property
    def expression(self) -> Expression:
        """The body as a tree."""
        return parse_body(self.body)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return _evaluate(self.expression, x)


def _evaluate(expression: Expression, x: torch.Tensor) -> torch.Tensor:
    match expression:
        case None:
            return x
        case Call(op=op, operands=operands):
            result = op.run(*(_evaluate(operand, x) for operand in operands))
            assert isinstance(result, torch.Tensor)
            return result
        case _:
            return torch.tensor(expression, dtype=x.dtype)


@functools.lru_cache(maxsize=4096)
def parse_body(body: str) -> Expression:
    """The tree of a body.

    Raises:
        ModelError: the text is no such expression, or names an op or attribute that does not exist.
    """
    try:
        return _parse(ast.parse(body, mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{body!r} is no function of x", expected="calls of ops, as in mul(hard_swish(x), 0.5)"
        ) from error


def _parse(node: ast.expr) -> Expression:
    match node:
        case ast.Name(id="x"):
            return None
        case ast.Call(func=ast.Name(id=name), args=operands, keywords=keywords):
            cls = find_op(name)
            if not arity(cls).admits(len(operands)):
                raise ValueError(name)
            attributes: Mapping[str, object] = {str(k.arg): _literal(k.value) for k in keywords}
            return Call(cls(**attributes), tuple(map(_parse, operands)))
        case _:
            number = _literal(node)
            if not isinstance(number, float | int):
                raise ValueError(ast.dump(node))
            return float(number)


def _literal(node: ast.expr) -> object:
    match node:
        case ast.Name(id="inf"):
            return float("inf")
        case ast.UnaryOp(op=ast.USub(), operand=ast.Name(id="inf")):
            return float("-inf")
        case _:
            value: object = ast.literal_eval(node)
            return value


def format_body(expression: Expression) -> str:
    """The text of a tree; :func:`parse_body` reads it back."""
    match expression:
        case None:
            return VARIABLE
        case Call(op=op, operands=operands):
            attributes = [f"{name}={value!r}" for name, value in _attributes(op).items()]
            return f"{op.name}({', '.join([*map(format_body, operands), *attributes])})"
        case _:
            return repr(expression)


def _attributes(op: Op) -> dict[str, object]:
    """The attributes that differ from their defaults."""
    fields = type(op).__dataclass_fields__
    return {name: getattr(op, name) for name, f in fields.items() if f.init and getattr(op, name) != f.default}


def substitute(outer: Expression, inner: Expression) -> Expression:
    """``outer`` with ``inner`` in the place of its variable."""
    match outer:
        case None:
            return inner
        case Call(op=op, operands=operands):
            return Call(op, tuple(substitute(operand, inner) for operand in operands))
        case _:
            return outer


def size(expression: Expression) -> int:
    """How many ops an expression calls."""
    return 1 + sum(map(size, expression.operands)) if isinstance(expression, Call) else 0
