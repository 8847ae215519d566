"""ONNX files for other tools: what kinds of ops one holds, and the same network in a newer opset."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import version_converter

from ...errors import ModelError
from .functions import opset_versions
from .reader import read_model


def op_types(path: Path) -> frozenset[str]:
    """The types of all nodes of a file's main graph.

    Raises:
        ModelError: the file cannot be read as a network.
    """
    return frozenset(node.op_type for node in read_model(path).graph.node)


def raise_opset(source: Path, target: Path, opset: int) -> None:
    """Write the network to ``target`` in this opset, or in its own where that is newer.

    Raises:
        ModelError: the file cannot be read, or an op cannot be converted.
    """
    model = read_model(source)
    if opset_versions(model).get("", opset) < opset:
        try:
            model = version_converter.convert_version(model, opset)
        except RuntimeError as error:
            raise ModelError(f"cannot be converted to opset {opset}: {error}", where=str(source)) from error
    onnx.save(model, target)
