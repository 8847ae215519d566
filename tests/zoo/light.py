"""The onnx package's ``light`` networks with weights worth computing with.

Those files carry the topology of nine classic networks and 0.02 in place of every weight. ``seeded_light_model``
draws He weights instead, and measures batch-norm statistics while a few seeded images flow through, so that
activations have natural ranges from the first layer to the last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor
from torch.nn import functional

from .cache import cached
from .images import seeded_images
from .packages import package_file

NAMES = (
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50",
    "shufflenet", "squeezenet", "vgg19", "zfnet512",
)  # fmt: skip
FloatArray = NDArray[np.float32]
Attributes = dict[str, Any]


def light_model_path(name: str) -> Path:
    """The onnx package's own file, with its constant weights."""
    if name not in NAMES:
        raise KeyError(f"no light network {name!r}; there are {', '.join(NAMES)}")
    return package_file("onnx", f"onnx/backend/test/data/light/light_{name}.onnx")


def light_file(name: str) -> Path:
    """The network of `seeded_light_model` as a file."""
    digest = hashlib.sha256(Path(__file__).read_bytes() + light_model_path(name).read_bytes()).hexdigest()
    return cached(f"{name}-{digest[:16]}.onnx", lambda path: onnx.save(seeded_light_model(name), path))


def seeded_light_model(name: str, seed: int = 0) -> onnx.ModelProto:
    """The network ``name`` with seeded weights as initializers: input [1, 3, 224, 224], output [1, 1000] or similar."""
    model = onnx.load(light_model_path(name))
    graph = model.graph
    shapes = _parameter_shapes(graph)
    kept = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    draw = np.random.Generator(np.random.Philox(seed))
    weights = {name: _draw(_role(name, kept), shape, draw) for name, shape in shapes.items()}
    integers = {i.name: numpy_helper.to_array(i) for i in graph.initializer if i.data_type == onnx.TensorProto.INT64}
    inputs = [i for i in graph.input if i.name not in shapes and i.name not in integers and _is_read(i.name, kept)]
    if any(node.op_type == "BatchNormalization" for node in kept):
        images = torch.from_numpy(seeded_images(4, 224, seed))
        values = {n: torch.from_numpy(a.copy()) for n, a in (weights | integers).items()}
        weights |= _measure(kept, {inputs[0].name: images} | values)
    read = {n: array for n, array in (weights | integers).items() if _is_read(n, kept)}
    replaced = helper.make_graph(
        kept, graph.name, inputs, list(graph.output), [numpy_helper.from_array(a, n) for n, a in read.items()]
    )
    return helper.make_model(replaced, opset_imports=list(model.opset_import), ir_version=8)


def _parameter_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Every float parameter: stored small ones, and those that a ConstantOfShape spells."""
    stored = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    shapes = {name: a.shape for name, a in stored.items() if a.dtype == np.float32}
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            shapes[node.output[0]] = tuple(int(d) for d in stored[node.input[0]])
    return shapes


def _is_read(name: str, nodes: Sequence[onnx.NodeProto]) -> bool:
    return any(name in node.input for node in nodes)


def _role(name: str, nodes: Sequence[onnx.NodeProto]) -> str:
    """What a parameter does for its reader, for example ``Conv.1`` or ``Mul``; scales go through an Unsqueeze."""
    reader = next((node for node in nodes if name in node.input), None)
    if reader is None:
        return "unread"
    if reader.op_type == "Unsqueeze":
        return _role(reader.output[0], nodes)
    if reader.op_type in ("Mul", "Add"):
        return reader.op_type
    return f"{reader.op_type}.{list(reader.input).index(name)}"


def _draw(role: str, shape: tuple[int, ...], draw: np.random.Generator) -> FloatArray:
    if role == "Conv.1":
        return draw.standard_normal(shape, np.float32) * np.float32((2 / prod(shape[1:])) ** 0.5)
    if role == "Gemm.1":  # stored as [outputs, inputs]
        return draw.standard_normal(shape, np.float32) * np.float32((2 / shape[-1]) ** 0.5)
    if role in ("BatchNormalization.1", "Mul"):
        return draw.uniform(0.6, 1.2, shape).astype(np.float32)
    if role == "BatchNormalization.4":
        return np.ones(shape, np.float32)
    return draw.standard_normal(shape, np.float32) * np.float32(0.1)


def _measure(nodes: Sequence[onnx.NodeProto], values: dict[str, Tensor]) -> dict[str, FloatArray]:
    """Run the network once; each batch norm takes the mean and variance of what reaches it."""
    measured: dict[str, FloatArray] = {}
    for node in nodes:
        attributes: Attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        inputs = [values[name] for name in node.input]
        if node.op_type == "BatchNormalization":
            variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
            inputs[3], inputs[4] = _short(mean), _short(variance.clamp(min=1e-3))
            measured |= {node.input[k]: inputs[k].numpy() for k in (3, 4)}
        values[node.output[0]] = MEANING[node.op_type](attributes, *inputs)
    return measured


def _short(values: Tensor) -> Tensor:
    """Keep 8 bits of each value, so that another CPU's summation order gives (nearly always) the same numbers."""
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp(torch.round(mantissa * 256) / 256, exponent)


def _conv(a: Attributes, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    return functional.conv2d(_padded(a, x, 0.0), w, b, a.get("strides", 1), 0, a.get("dilations", 1), a.get("group", 1))


def _padded(a: Attributes, x: Tensor, fill: float) -> Tensor:
    top, left, bottom, right = a.get("pads", (0, 0, 0, 0))
    return functional.pad(x, (left, right, top, bottom), value=fill)


def _max_pool(a: Attributes, x: Tensor) -> Tensor:
    return functional.max_pool2d(_padded(a, x, -torch.inf), a["kernel_shape"], a.get("strides", 1))


def _average_pool(a: Attributes, x: Tensor) -> Tensor:
    kernel, stride = a["kernel_shape"], a.get("strides", 1)
    total = functional.avg_pool2d(_padded(a, x, 0.0), kernel, stride)
    inside = functional.avg_pool2d(_padded(a, torch.ones_like(x), 0.0), kernel, stride)
    return total if a.get("count_include_pad") else total / inside


def _gemm(a: Attributes, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return x @ (w.T if a.get("transB") else w) + b


def _reshape(a: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    """The files spell batch 1; the measuring batch is larger."""
    wanted = [int(d) for d in shape]
    return x.reshape([x.shape[0], *wanted[1:]])


def _batch_norm(a: Attributes, x: Tensor, s: Tensor, b: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return functional.batch_norm(x, mean, variance, s, b, eps=float(a.get("epsilon", 1e-5)))


def _unsqueeze(a: Attributes, x: Tensor) -> Tensor:
    for axis in a["axes"]:
        x = x.unsqueeze(axis)
    return x


def _lrn(a: Attributes, x: Tensor) -> Tensor:
    return functional.local_response_norm(x, a["size"], a["alpha"], a["beta"], a.get("bias", 1.0))


def _sum(a: Attributes, *terms: Tensor) -> Tensor:
    return torch.stack(terms).sum(0)


MEANING: dict[str, Callable[..., Tensor]] = {
    "Add": lambda a, x, y: x + y,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Concat": lambda a, *parts: torch.cat(parts, a["axis"]),
    "Conv": _conv,
    "Dropout": lambda a, x: x,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda a, x: x.mean((2, 3), keepdim=True),
    "LRN": _lrn,
    "MaxPool": _max_pool,
    "Mul": lambda a, x, y: x * y,
    "Relu": lambda a, x: x.relu(),
    "Reshape": _reshape,
    "Softmax": lambda a, x: x.softmax(-1),
    "Sum": _sum,
    "Transpose": lambda a, x: x.permute(a["perm"]),
    "Unsqueeze": _unsqueeze,
}
