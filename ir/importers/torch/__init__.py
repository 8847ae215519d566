"""Import PyTorch models: modules, traced graphs and exported programs become a :class:`~octavo.ir.graph.Graph`."""

from __future__ import annotations

from .importer import import_torch

__all__ = ["import_torch"]
