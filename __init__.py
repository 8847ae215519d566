"""octavo folds a neural network into eight bits.

The names below are resolved on first use, so that ``import octavo`` and ``octavo.load`` need nothing beyond
numpy and the standard library: torch, onnx and TVM are imported only by the functions that use them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .backends.api import CompileResult, compile, optimize, trace
    from .backends.bundle.loader import Bundle, load
    from .ir.errors import OctavoError
    from .passes.training.module import from_torch, to_torch

__version__ = "0.1.0"
__all__ = [
    "Bundle",
    "CompileResult",
    "OctavoError",
    "__version__",
    "compile",
    "from_torch",
    "load",
    "optimize",
    "to_torch",
    "trace",
]

_HOME = {
    "Bundle": ".backends.bundle.loader",
    "CompileResult": ".backends.api",
    "OctavoError": ".ir.errors",
    "compile": ".backends.api",
    "from_torch": ".passes.training.module",
    "load": ".backends.bundle.loader",
    "optimize": ".backends.api",
    "to_torch": ".passes.training.module",
    "trace": ".backends.api",
}


def __getattr__(name: str) -> object:
    """Import a public name from the room that defines it."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'octavo' has no attribute {name!r}; it has {', '.join(sorted(__all__))}")
    value: object = getattr(import_module(home, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
