"""Passes over the graph: their base class, registry and pipelines, the rewriter, and the passes themselves.

Names are loaded when first used; each built-in pass is imported only when a pipeline asks for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Exactness, Pass, PassContext
    from .pipeline import Pipeline
    from .registry import all_passes, find_pass, register_pass
    from .rewriting import Rewriter, pattern, rewrite

__all__ = [
    "Exactness",
    "Pass",
    "PassContext",
    "Pipeline",
    "Rewriter",
    "all_passes",
    "find_pass",
    "pattern",
    "register_pass",
    "rewrite",
]

_HOME = {
    "base": ("Exactness", "Pass", "PassContext"),
    "pipeline": ("Pipeline",),
    "registry": ("all_passes", "find_pass", "register_pass"),
    "rewriting": ("Rewriter", "pattern", "rewrite"),
}


def __getattr__(name: str) -> object:
    for module, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
