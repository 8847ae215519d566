"""ONNX models become graphs."""

from __future__ import annotations

from .api import import_onnx
from .errors import NeedsConstantError

__all__ = ["NeedsConstantError", "import_onnx"]
