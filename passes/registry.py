"""Where passes are found by name: this package, decorators in user code, and entry points of other packages.

A built-in pass lives in the module of its own name, so that ``find_pass("fold-batchnorm")`` imports
``fold_batchnorm.py`` and nothing else.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TypeVar

from ..ir.errors import UsageError
from .base import Pass

ENTRY_POINTS = "octavo.passes"

_REGISTRY: dict[str, type[Pass]] = {}
PassType = TypeVar("PassType", bound=type[Pass])


def register_pass(cls: PassType) -> PassType:
    """Class decorator: make a pass known by its ``name``.

    Raises:
        UsageError: another class holds that name already.
    """
    known = _REGISTRY.get(cls.name)
    if known is not None and known.__qualname__ != cls.__qualname__:
        raise UsageError(f"a pass named {cls.name} exists already", where=f"{known.__module__}.{known.__qualname__}")
    _REGISTRY[cls.name] = cls
    return cls


def find_pass(name: str) -> type[Pass]:
    """The pass class of that name.

    Raises:
        UsageError: no such pass (close names are listed), or the package that offers it does not import.
    """
    if name in _REGISTRY:
        return _REGISTRY[name]
    if is_builtin(name):
        importlib.import_module(f".{name.replace('-', '_')}", __package__)
    elif name in (offered := _offered()):
        _load(offered[name])
    if name not in _REGISTRY:
        raise _unknown(name)
    return _REGISTRY[name]


def load_passes(path: Path) -> tuple[type[Pass], ...]:
    """Run a Python file that registers passes; returns those it registered.

    Raises:
        UsageError: the file cannot be read, fails while it runs, or registers no pass.
    """
    # A name of its own: two files called passes.py are two modules, and neither hides an installed one.
    name = f"octavo_loaded_{hashlib.sha256(bytes(path.absolute())).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError("passes cannot be loaded from it", where=str(path), expected="a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"the file fails: {type(error).__name__}: {error}", where=str(path)) from error
    found = tuple(cls for cls in _REGISTRY.values() if cls.__module__ == name)
    if not found:
        hint = "put @register_pass before the class"
        raise UsageError("the file registers no pass", where=str(path), hint=hint)
    return found


def is_builtin(name: str) -> bool:
    """Whether a pass of that name is octavo's own; imports nothing."""
    module = name.replace("-", "_")
    return "-".join(module.split("_")) == name and module in _own_modules()


def all_passes() -> Iterator[type[Pass]]:
    """Every pass: built in, registered so far, or offered by an installed package, by name."""
    _load_own()
    for name, entry in _offered().items():
        if name not in _REGISTRY:
            _load(entry)
    return iter([_REGISTRY[name] for name in sorted(_REGISTRY)])


def _load_own() -> None:
    for module in _own_modules():
        importlib.import_module(f".{module}", __package__)


def _own_modules() -> list[str]:
    package = importlib.import_module(__package__ or "")
    return [info.name for info in pkgutil.iter_modules(package.__path__)]


def _offered() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def _load(entry: EntryPoint) -> None:
    """Import a pass of another package and register it under its entry point's name."""
    package = entry.dist.name if entry.dist else "an installed package"
    try:
        cls = entry.load()
    except Exception as error:
        raise UsageError(
            f"pass {entry.name} of package {package} does not import: {type(error).__name__}: {error}",
            where=f"entry point {entry.name} = {entry.value}",
            hint=f"repair or uninstall {package}",
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, Pass) and getattr(cls, "name", None) == entry.name):
        raise UsageError(
            f"entry point {entry.name} of package {package} is not a pass of that name",
            where=f"{entry.name} = {entry.value}",
            expected="a subclass of octavo.passes.Pass whose name is the entry point's",
        )
    register_pass(cls)


def _unknown(name: str) -> UsageError:
    _load_own()
    known = sorted({*_REGISTRY, *_offered()})
    close = difflib.get_close_matches(name, known, 3)
    hint = f"did you mean {' or '.join(close)}?" if close else None
    return UsageError(f"no pass is named {name!r}", expected=f"one of {', '.join(known)}", hint=hint)
