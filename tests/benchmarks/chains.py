"""A chain of many nodes, which shows how the cost of a compilation grows with the length of a network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

CHANNELS, SIZE = 16, 16
SHAPE = (1, CHANNELS, SIZE, SIZE)


def chain(length: int) -> onnx.ModelProto:
    """``length`` nodes in turn of a convolution, its clip, a residual addition, a sigmoid and a pooling.

    All convolutions have one shape and seeded weights of their own, and every activation stays between 0 and 7, so
    that only the number of nodes grows: the kernels of a long chain are those of a short one.
    """
    rng = np.random.default_rng(0)
    arrays = {"low": np.float32(0), "high": np.float32(6)} | {
        f"weight{at}": rng.normal(0, 0.2, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32) for at in range(0, length, 5)
    }
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, SHAPE) for name in ("t0", f"t{length}")]
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    graph = helper.make_graph([*_nodes(length)], "chain", ends[:1], ends[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def samples(count: int) -> NDArray[np.float32]:
    """Calibration inputs, normal."""
    return np.random.default_rng(1).normal(0, 1, (count, *SHAPE[1:])).astype(np.float32)


def _nodes(length: int) -> Iterator[onnx.NodeProto]:
    for at in range(length):
        given, made = [f"t{at}"], [f"t{at + 1}"]
        match at % 5:
            case 0:
                yield helper.make_node("Conv", [*given, f"weight{at}"], made, pads=[1] * 4)
            case 1:
                yield helper.make_node("Clip", [*given, "low", "high"], made)
            case 2:
                yield helper.make_node("Add", [*given, f"t{at - 2}"], made)
            case 3:
                yield helper.make_node("Sigmoid", given, made)
            case _:
                yield helper.make_node("MaxPool", given, made, kernel_shape=[3, 3], pads=[1] * 4)
