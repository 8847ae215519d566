"""Operators that ONNX defines by a function body, and functions that a model brings along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.defs
import onnx_graphsurgeon as gs
from onnx import helper, numpy_helper
from onnx_graphsurgeon.importers.onnx_importer import OnnxImporter

from ...types import Dim, TensorType
from .context import Context
from .errors import Refusal
from .operand import Operand

Edge = Any
"""A graphsurgeon tensor: named, but its untyped base class does not declare the name."""


@dataclass(frozen=True)
class Body:
    """A function as nodes."""

    nodes: tuple[gs.Node, ...]
    inputs: tuple[Edge, ...]
    outputs: tuple[Edge, ...]
    defaults: Mapping[str, Any]


def read(function: onnx.FunctionProto) -> Body:
    """The nodes of a function, its formal inputs and outputs, and the attributes that have defaults."""
    made = OnnxImporter.import_function(function)
    defaults = {name: value for name, value in made.attrs.items() if value is not None}
    return Body(tuple(made.nodes), tuple(made.inputs), tuple(made.outputs), defaults)


def default_attributes(function: onnx.FunctionProto, context: Context) -> dict[str, Any]:
    """The defaults that an operator's schema, rather than the body, gives its attributes."""
    if not onnx.defs.has(context.op_type, function.domain):
        return {}
    schema = onnx.defs.get_schema(context.op_type, context.version, function.domain)
    given = {name: a.default_value for name, a in schema.attributes.items() if a.default_value.name}
    return {name: _plain(helper.get_attribute_value(value)) for name, value in given.items()}


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def opsets(function: onnx.FunctionProto, outer: Mapping[str, int]) -> dict[str, int]:
    """The opset versions that hold inside a function."""
    return {**outer, **opset_versions(function)}


def opset_versions(proto: onnx.FunctionProto | onnx.ModelProto) -> dict[str, int]:
    """Domain to version."""
    return {("" if o.domain == "ai.onnx" else o.domain): o.version for o in proto.opset_import}


# The stubs of onnx.defs lack what OpSchema says about function bodies.
OpSchema = Any


def _schema(domain: str, name: str, version: int | None) -> OpSchema:
    if version is None:
        raise Refusal(f"the model does not say which version of domain {domain!r} it uses")
    try:
        return onnx.defs.get_schema(name, version, domain)
    except onnx.defs.SchemaError:
        known = onnx.defs.has(name, domain)
        raise Refusal(
            f"not part of opset {version}" if known else "no operator of that name is known to ONNX or octavo"
        ) from None


def require_body(domain: str, name: str, version: int | None) -> OpSchema:
    """The schema of an operator that has a function body; else :class:`Refusal`."""
    schema = _schema(domain, name, version)
    if not (schema.has_function or schema.has_context_dependent_function):
        raise Refusal("no translation")
    return schema


def body_of(context: Context, domain: str, version: int | None) -> onnx.FunctionProto:
    """The body by which ONNX defines the operator at hand, for these attributes and operand types."""
    schema = require_body(domain, context.op_type, version)
    assert version is not None
    if schema.has_function:
        fitting = [v for v in schema.function_opset_versions if v <= version]
        data = schema.get_function_with_opset_version(max(fitting)) if fitting else b""
    else:
        fitting = [v for v in schema.context_dependent_function_opset_versions if v <= version]
        data = b""
        if fitting:
            node, types = _node_proto(context, domain), [_type_proto(o) for o in context.operands]
            data = schema.get_context_dependent_function_with_opset_version(
                max(fitting), node.SerializeToString(), [t.SerializeToString() for t in types]
            )
    function = onnx.FunctionProto.FromString(data)
    if not function.node:
        raise Refusal("no translation, and no function body for these attributes and types")
    return function


def _node_proto(context: Context, domain: str) -> onnx.NodeProto:
    inputs = [f"in{i}" if o is not None else "" for i, o in enumerate(context.operands)]
    attributes: dict[str, Any] = {
        name: numpy_helper.from_array(np.asarray(value.values)) if isinstance(value, gs.Constant) else value
        for name, value in context.attributes.items()
    }
    if any(isinstance(value, gs.Graph) for value in attributes.values()):
        raise Refusal("no translation")
    node = helper.make_node(context.op_type, inputs, list(context.outputs), domain=domain)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return node


def _type_proto(operand: Operand | None) -> onnx.TypeProto:
    if operand is None:
        return onnx.TypeProto()
    kind: TensorType = operand.type
    return helper.make_tensor_type_proto(
        helper.np_dtype_to_tensor_dtype(kind.dtype.numpy), [d.name if isinstance(d, Dim) else d for d in kind.shape]
    )
