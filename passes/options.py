"""The options of a pass as text: how values of each field type are spelled, read and checked."""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..ir.errors import ParseError
from .base import Pass

_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-+:/@*=%|")
"""Characters of a string that needs no quotes."""


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a pass: a field with its kebab-case spelling."""

    field: str
    annotation: Any
    default: Any

    @property
    def spelling(self) -> str:
        return self.field.replace("_", "-")

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING

    def __str__(self) -> str:
        tail = "" if self.required else f" = {format_value(self.default)}"
        return f"{self.spelling}: {describe(self.annotation)}{tail}"


@functools.cache
def options_of(cls: type[Pass]) -> Mapping[str, Option]:
    """The options of a pass, by spelling."""
    hints = typing.get_type_hints(cls)
    found = [Option(f.name, hints[f.name], _default(f)) for f in dataclasses.fields(cls) if f.init]
    return {option.spelling: option for option in found}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def describe(annotation: Any) -> str:
    """A type as users read it: ``int``, ``minmax|percentile``, ``[int;...]``."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return "|".join(describe(a) for a in arguments)
    if origin is typing.Literal:
        return "|".join(map(str, arguments))
    if origin is tuple:
        return f"[{';'.join('...' if a is Ellipsis else describe(a) for a in arguments)}]"
    if annotation is type(None):
        return "none"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return "|".join(str(member.value) for member in annotation)
    return str(getattr(annotation, "__name__", annotation))


def format_value(value: object) -> str:
    """An option's value as text that :func:`parse_value` reads back."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case enum.Enum():
            return str(value.value)
        case int() | float():
            return repr(value)
        case tuple() | list() | frozenset():
            items = sorted(value) if isinstance(value, frozenset) else value
            return f"[{';'.join(map(format_value, items))}]"
        case _:
            return _quote(str(value))


def _quote(text: str) -> str:
    if text and set(text) <= _BARE and text not in ("none", "true", "false"):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def parse_value(text: str, annotation: Any) -> Any:
    """The value that ``text`` spells, of the annotated type.

    Raises:
        ParseError: it spells nothing of that type.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _parse_union(text, arguments, annotation)
    if origin is typing.Literal:
        for choice in arguments:
            if _unquote(text) == str(choice):
                return choice
        raise _wrong(text, annotation)
    if origin is tuple:
        return _parse_tuple(text, arguments, annotation)
    return _parse_simple(text, annotation)


def _parse_union(text: str, arguments: tuple[Any, ...], annotation: Any) -> Any:
    # Text comes last: it takes anything.
    for argument in sorted(arguments, key=lambda a: a is str):
        try:
            return parse_value(text, argument)
        except ParseError:
            continue
    raise _wrong(text, annotation)


def _parse_tuple(text: str, arguments: tuple[Any, ...], annotation: Any) -> tuple[Any, ...]:
    if not (text.startswith("[") and text.endswith("]")):
        raise _wrong(text, annotation)
    items = split_outside(text[1:-1], ";") if text[1:-1].strip() else []
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(parse_value(item.strip(), arguments[0]) for item in items)
    if len(items) != len(arguments):
        raise _wrong(text, annotation)
    return tuple(parse_value(item.strip(), a) for item, a in zip(items, arguments, strict=True))


def _parse_simple(text: str, annotation: Any) -> Any:
    try:
        if annotation is bool:
            return {"true": True, "false": False}[text]
        if annotation is type(None):
            return {"none": None}[text]
        if annotation in (int, float):
            return annotation(text)
        if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            return {str(m.value): m for m in annotation}[_unquote(text)]
        return Path(_unquote(text)) if annotation is Path else _unquote(text)
    except (KeyError, ValueError):
        raise _wrong(text, annotation) from None


def _unquote(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return text


def _wrong(text: str, annotation: Any) -> ParseError:
    return ParseError(f"{text!r} is not of type {describe(annotation)}")


def split_outside(text: str, separator: str) -> list[str]:
    """Split at ``separator`` where it stands outside quotes, braces and brackets."""
    pieces, start, depth, quoted, escaped = [], 0, 0, False, False
    for position, character in enumerate(text):
        if quoted:
            quoted = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            quoted = True
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        elif character == separator and depth == 0:
            pieces.append(text[start:position])
            start = position + 1
    return [*pieces, text[start:]]
