"""Reading ONNX files: what a damaged, foreign or untrusted file can hold becomes a clear error here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx.defs
from google.protobuf.message import DecodeError
from onnx import external_data_helper

from ...errors import ModelError
from .functions import opset_versions

OLDEST_OPSET = 6


def read_model(source: Path | str | onnx.ModelProto) -> onnx.ModelProto:
    """The model with all its data, checked to be one.

    Raises:
        ModelError: missing, truncated or foreign file; opset outside what octavo reads; external data that is
            missing, too short, or outside the model's folder.
    """
    if isinstance(source, onnx.ModelProto):
        model, where = source, "the given ModelProto"
        _load_external(model, None)
    else:
        path = Path(source)
        model, where = _parse(path), str(path)
        _load_external(model, path)
    _check(model, where)
    return model


def _parse(path: Path) -> onnx.ModelProto:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}", where=str(path)) from error
    if not data:
        raise ModelError("the file is empty", where=str(path), hint="export or download the model again")
    try:
        return onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ModelError(
            "this is not an ONNX file, or it is truncated or damaged",
            where=f"{path} ({len(data)} bytes)",
            expected="a protobuf ModelProto",
            hint="export or download the model again",
        ) from error


def _check(model: onnx.ModelProto, where: str) -> None:
    if not model.HasField("graph") or not model.graph.output:
        raise ModelError(
            "the file holds no network",
            where=where,
            expected="an ONNX ModelProto with a graph that has outputs",
            hint="a truncated file, or another kind of protobuf, can look like this",
        )
    if not all(isinstance(name, str) for name in _names(model)):
        raise ModelError("a name in the file is not text: the file is damaged", where=where)
    versions = opset_versions(model)
    if "" not in versions and any(node.domain in ("", "ai.onnx") for node in model.graph.node):
        raise ModelError("the model does not say which ONNX opset it uses", where=where)
    version, newest = versions.get("", OLDEST_OPSET), onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= version <= newest:
        raise ModelError(
            f"the model uses ONNX opset {version}",
            where=where,
            expected=f"opset {OLDEST_OPSET} to {newest}",
            hint="convert it with onnx.version_converter.convert_version, or export it again",
        )


# External data -----------------------------------------------------------------------------------------------------


def _load_external(model: onnx.ModelProto, path: Path | None) -> None:
    for tensor in _tensors(model):
        if not external_data_helper.uses_external_data(tensor):
            continue
        if path is None:
            raise ModelError(
                f"the data of {tensor.name} is in another file",
                where="the given ModelProto",
                hint="pass the path of the model instead, or load it with onnx.load",
            )
        _load_tensor(tensor, path)


def _load_tensor(tensor: onnx.TensorProto, path: Path) -> None:
    """Put the external bytes of ``tensor`` into it, having checked where they come from."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    where = f"initializer {tensor.name} of {path}"
    location = entries.get("location", "")
    folder = path.parent.resolve()
    file = (folder / location).resolve()
    if not location or Path(location).is_absolute() or not file.is_relative_to(folder):
        raise ModelError(
            f"external data at {location!r} lies outside the model's folder",
            where=where,
            expected=f"a file in {folder}",
            hint="move the data file beside the model and save the model again",
        )
    try:
        offset = int(entries.get("offset", "0"))
        size = file.stat().st_size
        length = int(entries.get("length") or size - offset)
        if offset < 0 or length < 0 or offset + length > size:
            raise ModelError(
                f"{location} has {size} bytes, but bytes {offset} to {offset + length} are asked for",
                where=where,
                hint="the data file is truncated or belongs to another model",
            )
        with file.open("rb") as stream:
            stream.seek(offset)
            tensor.raw_data = stream.read(length)
    except OSError as error:
        raise ModelError(
            f"cannot read external data {location}: {error.strerror or error}",
            where=where,
            hint="keep the data file beside the model",
        ) from error
    except ValueError as error:
        raise ModelError(f"malformed reference to external data: {error}", where=where) from error
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def _names(model: onnx.ModelProto) -> Iterator[object]:
    """Every name of the model; protobuf gives bytes for what is no UTF-8."""
    for opset in model.opset_import:
        yield opset.domain
    for function in model.functions:
        yield from (function.name, function.domain, *function.input, *function.output, *function.attribute)
        for node in function.node:
            yield from _node_names(node)
    yield from _graph_names(model.graph)


def _graph_names(graph: onnx.GraphProto) -> Iterator[object]:
    yield graph.name
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    for tensor in graph.initializer:
        yield tensor.name
    for node in graph.node:
        yield from _node_names(node)


def _node_names(node: onnx.NodeProto) -> Iterator[object]:
    yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
    for attribute in node.attribute:
        yield from (attribute.name, attribute.ref_attr_name)
        for graph in _subgraphs(attribute):
            yield from _graph_names(graph)


def _subgraphs(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of the model: initializers, attributes, subgraphs, functions."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for graph in _subgraphs(attribute):
            yield from _graph_tensors(graph)
