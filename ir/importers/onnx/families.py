"""The translations, by family of operators."""

from __future__ import annotations

import importlib

MODULES = (
    "control",
    "conv",
    "elementwise",
    "index",
    "linear",
    "norm",
    "pool",
    "qoperator",
    "quant",
    "recurrent",
    "reduce",
    "refusals",
    "resize",
    "sampling",
    "shape",
)


def load() -> None:
    """Import every family; importing registers."""
    for module in MODULES:
        importlib.import_module(f".{module}", __package__)
