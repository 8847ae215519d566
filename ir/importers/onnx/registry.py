"""Which function translates which ONNX operator, from which opset version on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .context import Context
    from .operand import Operand

Translation = Callable[["Context"], "Operand | tuple[Operand | None, ...]"]
Key = tuple[str, str]

_TRANSLATIONS: dict[Key, list[tuple[int, Translation]]] = {}
_REFUSALS: dict[Key, str] = {}


def translate(*names: str, since: int = 1, domain: str = "") -> Callable[[Translation], Translation]:
    """Decorator: this function translates these operators, as defined from opset ``since`` of ``domain`` on."""

    def register(function: Translation) -> Translation:
        for name in names:
            versions = _TRANSLATIONS.setdefault((domain, name), [])
            versions.append((since, function))
            versions.sort(key=lambda entry: entry[0])
        return function

    return register


def refuse(*names: str, reason: str, domain: str = "") -> None:
    """These operators (``*``: all of the domain) are not translated, nor their function bodies, for a stated reason."""
    for name in names:
        _REFUSALS[domain, name] = reason


def find_translation(domain: str, name: str, version: int) -> Translation | None:
    """The newest translation that is not newer than ``version``."""
    fitting = [function for since, function in _TRANSLATIONS.get((domain, name), []) if since <= version]
    return fitting[-1] if fitting else None


def find_refusal(domain: str, name: str) -> str | None:
    """Why the operator is out of scope, if it is."""
    return _REFUSALS.get((domain, name)) or _REFUSALS.get((domain, "*"))


def translated_operators() -> tuple[Key, ...]:
    """Every (domain, name) with a translation of its own, sorted."""
    return tuple(sorted(_TRANSLATIONS))
