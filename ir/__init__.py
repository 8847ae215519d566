"""The typed graph IR: ops, graph, text form, verifier, interpreter, importers.

Names are loaded when first used, so that what needs only the errors (the bundle loader) stays free of torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .constants import Tensor
    from .errors import OctavoError
    from .graph import Decision, Graph, Node, Precision, Value
    from .interpreter import run_graph, run_torch
    from .op import ExactOp, Op, Stage, all_ops, find_op, register_op
    from .text import load_graph, parse_graph, print_graph, save_graph
    from .types import Dim, DType, QuantParams, TensorType, per_channel, per_tensor
    from .verifier import verify

__all__ = [
    "DType",
    "Decision",
    "Dim",
    "ExactOp",
    "Graph",
    "Node",
    "OctavoError",
    "Op",
    "Precision",
    "QuantParams",
    "Stage",
    "Tensor",
    "TensorType",
    "Value",
    "all_ops",
    "find_op",
    "load_graph",
    "parse_graph",
    "per_channel",
    "per_tensor",
    "print_graph",
    "register_op",
    "run_graph",
    "run_torch",
    "save_graph",
    "verify",
]

_HOME = {
    "constants": ("Tensor",),
    "errors": ("OctavoError",),
    "graph": ("Decision", "Graph", "Node", "Precision", "Value"),
    "interpreter": ("run_graph", "run_torch"),
    "op": ("ExactOp", "Op", "Stage", "all_ops", "find_op", "register_op"),
    "text": ("load_graph", "parse_graph", "print_graph", "save_graph"),
    "types": ("DType", "Dim", "QuantParams", "TensorType", "per_channel", "per_tensor"),
    "verifier": ("verify",),
}


def __getattr__(name: str) -> object:
    for module, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
