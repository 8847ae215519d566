"""The entry point of the ONNX importer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, numpy_helper
from onnx_graphsurgeon.logger import G_LOGGER
from onnx_graphsurgeon.util.exception import OnnxGraphSurgeonException

from ...constants import Tensor
from ...errors import ModelError
from ...graph import Graph
from ...types import Dim, Shape, TensorType, format_shape
from .attributes import element_type
from .functions import opset_versions
from .importer import MALFORMED, Importer, Scope
from .reader import read_model

_WEIGHT_READERS = {
    "BatchNormalization", "Conv", "ConvTranspose", "GRU", "Gemm", "InstanceNormalization", "LSTM",
    "LayerNormalization", "MatMul", "PRelu", "RNN",
}  # fmt: skip


def import_onnx(
    model: Path | str | onnx.ModelProto,
    *,
    shapes: Mapping[str, Sequence[int | str]] | None = None,
    constants: Mapping[str, np.ndarray] | None = None,
    name: str | None = None,
    allow_non_finite: bool = False,
) -> Graph:
    """A graph that computes what the ONNX model computes.

    Args:
        model: a file, or a loaded model; opset 7 to the newest that the ``onnx`` package knows.
        shapes: shapes of inputs by name; a string names a dimension that stays symbolic.
        constants: inputs by name that become constants, e.g. the ``shape`` input of a Reshape.
        name: of the graph; the model's own unless given.
        allow_non_finite: accept NaN and infinite weights.

    Raises:
        ModelError: the file cannot be read as a network, or the arguments do not fit it.
        UnsupportedError: operations without translation, all at once.
        NeedsConstantError: inputs whose values must be known at compile time.
    """
    proto = read_model(model)
    if not allow_non_finite:
        _reject_non_finite(proto)
    given = dict(constants or {})
    with G_LOGGER.suppress(G_LOGGER.CRITICAL + 1):
        surgeon = _read_nodes(proto)
        graph = Graph(name or proto.graph.name or "main")
        importer = Importer(graph, {(_plain(f.domain), f.name): f for f in proto.functions})
        scope = Scope({}, opset_versions(proto))
        _add_inputs(proto, graph, scope, dict(shapes or {}), given)
        importer.add_constants(surgeon.tensors().values(), scope)
        importer.translate(surgeon.nodes, scope)
        return importer.finish(surgeon.outputs, scope)


def _plain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _read_nodes(proto: onnx.ModelProto) -> gs.Graph:
    """The nodes in an order in which they can run."""
    try:
        surgeon = gs.import_onnx(proto)
        if not _is_sorted(proto.graph):
            surgeon.toposort()
    except (OnnxGraphSurgeonException, *MALFORMED) as error:
        raise ModelError(f"the graph cannot be read: {error}", where=proto.graph.name) from error
    return surgeon


def _is_sorted(graph: onnx.GraphProto) -> bool:
    made = {v.name for v in graph.input} | {t.name for t in graph.initializer} | {""}
    made |= {t.values.name for t in graph.sparse_initializer}
    for node in graph.node:
        if not made.issuperset(node.input):
            return False
        made.update(node.output)
    return True


# Inputs ------------------------------------------------------------------------------------------------------------


def _add_inputs(
    proto: onnx.ModelProto,
    graph: Graph,
    scope: Scope,
    shapes: dict[str, Sequence[int | str]],
    constants: dict[str, np.ndarray],
) -> None:
    """Inputs become values, or the constants that were given for them."""
    initialized = {t.name for t in proto.graph.initializer} | {t.values.name for t in proto.graph.sparse_initializer}
    inputs = [v for v in proto.graph.input if v.name not in initialized]
    names = [v.name for v in inputs]
    for what, wanted in (("shape", shapes), ("constant", constants)):
        unknown = [n for n in wanted if n not in names]
        if unknown:
            raise ModelError(
                f"a {what} is given for {', '.join(unknown)}, which is not an input",
                expected=f"one of {', '.join(names) or 'none: the model has no inputs'}",
            )
    dims = _fixed_dims(inputs, shapes)
    for value in inputs:
        type = _input_type(value, shapes.get(value.name), dims)
        if value.name in constants:
            scope.values[value.name] = _bind(value.name, type, constants[value.name])
        else:
            scope.values[value.name] = graph.add_input(value.name, type)


def _fixed_dims(inputs: Sequence[onnx.ValueInfoProto], shapes: Mapping[str, Sequence[int | str]]) -> dict[str, int]:
    """What the given shapes say about the named dimensions of the model."""
    fixed: dict[str, int] = {}
    for value in inputs:
        declared = value.type.tensor_type.shape.dim
        for dim, given in zip(declared, shapes.get(value.name, ()), strict=False):
            if _is_named(dim) and isinstance(given, int) and fixed.setdefault(dim.dim_param, given) != given:
                raise ModelError(
                    f"dimension {dim.dim_param} is given as {fixed[dim.dim_param]} and as {given}",
                    where=f"input {value.name}",
                )
    return fixed


def _input_type(value: onnx.ValueInfoProto, given: Sequence[int | str] | None, dims: Mapping[str, int]) -> TensorType:
    where = f"input {value.name}"
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise ModelError(
            f"{value.name} is a {(kind or 'value of no type').replace('_type', '')}, not a tensor", where=where
        )
    tensor = value.type.tensor_type
    dtype = element_type(tensor.elem_type, where)
    declared = [_dim(value.name, axis, d, dims) for axis, d in enumerate(tensor.shape.dim)]
    if not tensor.HasField("shape"):
        if given is None:
            raise ModelError(
                f"the model does not say the shape of {value.name}", where=where, hint=f"--shape {value.name}=..."
            )
        return TensorType(dtype, _shape(given, where))
    if given is None:
        return TensorType(dtype, tuple(declared))
    return TensorType(dtype, _merge(tuple(declared), _shape(given, where), where))


def _shape(given: Sequence[int | str], where: str) -> Shape:
    if any(isinstance(d, int) and d < 0 for d in given):
        raise ModelError(f"shape {tuple(given)} has a negative dimension", where=where)
    return tuple(Dim.named(d) if isinstance(d, str) else int(d) for d in given)


def _merge(declared: Shape, given: Shape, where: str) -> Shape:
    fits = len(declared) == len(given) and all(
        isinstance(d, Dim) or d == g for d, g in zip(declared, given, strict=True)
    )
    if not fits:
        raise ModelError(
            f"shape {format_shape(given)} does not fit",
            where=where,
            expected=f"what the model says: {format_shape(declared)}",
        )
    return given


def _dim(name: str, axis: int, dim: onnx.TensorShapeProto.Dimension, fixed: Mapping[str, int]) -> int | Dim:
    if _is_named(dim):
        return fixed.get(dim.dim_param, Dim.named(dim.dim_param))
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return int(dim.dim_value)
    return Dim.named(f"{name}_{axis}")


def _is_named(dim: onnx.TensorShapeProto.Dimension) -> bool:
    """Whether equal names mean equal sizes: exporters also write ``?`` for anything unknown."""
    return bool(re.search("[A-Za-z]", dim.dim_param))


def _bind(name: str, type: TensorType, array: np.ndarray) -> Tensor:
    array = np.asarray(array)
    fits = array.dtype == type.dtype.numpy and array.ndim == type.rank
    if not fits or any(isinstance(d, int) and d != n for d, n in zip(type.shape, array.shape, strict=True)):
        raise ModelError(f"the constant given for {name} is {array.dtype}{list(array.shape)}", expected=str(type))
    return Tensor.of(array)


# Weights -----------------------------------------------------------------------------------------------------------


def _reject_non_finite(proto: onnx.ModelProto) -> None:
    """NaN is never meant; infinities are, in masks, but not in what is multiplied."""
    weights = {n for node in proto.graph.node if node.op_type in _WEIGHT_READERS for n in node.input}
    for tensor in proto.graph.initializer:
        if tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16):
            continue
        array = _array(tensor).astype(np.float64, copy=False)
        bad = ~np.isfinite(array) if tensor.name in weights else np.isnan(array)
        if bad.any():
            place = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ModelError(
                f"initializer {tensor.name} holds {int(bad.sum())} NaN or infinite value(s), first at {list(place)}",
                where=f"initializer {tensor.name}",
                hint="repair the weights, or pass allow_non_finite (--allow-non-finite)",
            )


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"the data of initializer {tensor.name} is damaged: {error}", where=tensor.name) from error
