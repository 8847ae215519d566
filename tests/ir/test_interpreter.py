"""The interpreter runs graphs, frees what nobody reads any more, and refuses wrong inputs by name."""

from __future__ import annotations

import weakref
from collections.abc import Mapping

import ml_dtypes
import numpy as np
import pytest
import torch
from octavo.ir import DType, Graph, TensorType, Value, per_tensor, run_graph, run_torch
from octavo.ir.errors import InputError
from octavo.ir.interpreter import to_numpy, to_torch
from octavo.ir.ops.cast import Identity
from octavo.ir.ops.elementwise import Add, Clamp, Neg, Relu, apply_clamp
from octavo.ir.ops.quantize import Dequantize, Quantize
from octavo.ir.ops.scan import TopK
from octavo.ir.ops.shape import Expand, Reshape
from octavo.ir.types import Dim, f32


def long_chain(length: int) -> Graph:
    graph = Graph()
    value = graph.add_input("x", f32(4))
    for _ in range(length):
        value = graph.insert(Neg(), [value]).output
    graph.set_outputs([value], ["y"])
    return graph


def test_results_have_the_users_names() -> None:
    graph = long_chain(3)
    x = np.arange(4, dtype=np.float32)
    assert list(run_graph(graph, {"x": x})) == ["y"]
    np.testing.assert_array_equal(run_graph(graph, {"x": x})["y"], -x)


def test_memory_is_freed_after_the_last_use() -> None:
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def watch(value: Value, tensor: torch.Tensor) -> None:
        nonlocal most
        alive.append(weakref.ref(tensor))
        most = max(most, sum(ref() is not None for ref in alive))

    run_torch(long_chain(50), [torch.ones(4)], watch)
    assert len(alive) == 51
    assert most <= 4, "a chain needs its input, one operand and one result at a time"


def test_unread_results_are_not_kept() -> None:
    graph = Graph()
    x = graph.add_input("x", f32(2, 5))
    best = graph.insert(TopK(2, 1), [x]).outputs[0]
    graph.insert(Relu(), [x])
    graph.set_outputs([best, x, best], ["a", "b", "c"])
    feed = np.arange(10, dtype=np.float32).reshape(2, 5)
    got = run_graph(graph, {"x": feed})
    np.testing.assert_array_equal(got["a"], got["c"])
    np.testing.assert_array_equal(got["b"], feed)


def test_inputs_are_not_changed() -> None:
    graph = Graph()
    graph.set_outputs([graph.insert(Identity(), [graph.add_input("x", f32(2))]).output], ["y"])
    x = np.ones(2, np.float32)
    run_graph(graph, {"x": x})["y"][:] = 7
    assert x.tolist() == [1, 1]


WRONG: list[tuple[Mapping[str, np.ndarray], str]] = [
    ({}, "x is missing"),
    ({"x": np.zeros((3, 4), np.float32), "z": np.zeros(1)}, "no input is named z"),
    ({"X": np.zeros((3, 4), np.float32)}, "no input is named X; x is missing"),
    ({"x": np.zeros((3, 4))}, "input x has dtype float64"),
    ({"x": np.zeros((3, 5), np.float32)}, r"input x has shape \[3x5\]"),
    ({"x": np.zeros(4, np.float32)}, r"input x has shape \[4\]"),
]


@pytest.mark.parametrize(("feeds", "what"), WRONG, ids=[what for _, what in WRONG])
def test_wrong_feeds_are_named(feeds: Mapping[str, np.ndarray], what: str) -> None:
    graph = Graph()
    graph.set_outputs([graph.insert(Relu(), [graph.add_input("x", f32(Dim("n"), 4))]).output])
    with pytest.raises(InputError, match=what) as caught:
        run_graph(graph, feeds)
    assert caught.value.expected


def test_unknown_dimensions_take_their_size_from_the_inputs() -> None:
    graph = Graph()
    n, m = Dim("n"), Dim("m")
    x = graph.add_input("x", f32(n, m, 2))
    bias = graph.add_input("bias", f32(1, 1))
    flat = graph.insert(Reshape((m, n, 2)), [x]).output
    wide = graph.insert(Expand((m, n, 2)), [graph.insert(Reshape((1, 1, 1)), [bias]).output]).output
    graph.set_outputs([graph.insert(Add(), [flat, wide]).output, wide], ["sum", "wide"])
    x_feed = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    got = run_graph(graph, {"x": x_feed, "bias": np.ones((1, 1), np.float32)})
    np.testing.assert_array_equal(got["sum"], x_feed.reshape(2, 3, 2) + 1)
    assert got["wide"].shape == (2, 3, 2)


def test_one_dimension_has_one_size() -> None:
    graph = Graph()
    x, y = (graph.add_input(name, f32(Dim("n"))) for name in "xy")
    graph.set_outputs([graph.insert(Add(), [x, y]).output])
    with pytest.raises(InputError, match=r"\?n is 2 and 3 at once"):
        run_graph(graph, {"x": np.zeros(2, np.float32), "y": np.zeros(3, np.float32)})


def test_exact_ops_run_in_numpy_between_torch_ops() -> None:
    graph = Graph()
    x = graph.add_input("x", f32(5))
    q = graph.insert(Quantize(DType.I8, per_tensor(0.5, 1)), [x]).output
    graph.set_outputs([q, graph.insert(Relu(), [graph.insert(Dequantize(), [q]).output]).output], ["q", "y"])
    got = run_graph(graph, {"x": np.array([0.25, 0.75, -9, 99, np.nan], np.float32)})
    assert got["q"].tolist() == [1, 3, -17, 127, 1]
    assert got["y"].tolist() == [0, 1, 0, 63, 0]


@pytest.mark.parametrize("dtype", list(DType))
def test_arrays_go_to_torch_and_back(dtype: DType) -> None:
    array = np.array([[0, 1], [1, 3]]).astype(dtype.numpy)
    tensor = to_torch(array)
    assert tensor.dtype is dtype.torch
    back = to_numpy(tensor)
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()
    tensor.zero_()
    assert array.any(), "nothing is shared"


def test_bfloat16_computes() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.BF16, (2,)))
    graph.set_outputs([graph.insert(Add(), [x, x]).output], ["y"])
    got = run_graph(graph, {"x": np.array([1.5, -2], ml_dtypes.bfloat16)})["y"]
    assert got.dtype == ml_dtypes.bfloat16
    assert got.astype(np.float32).tolist() == [3, -4]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int32])
@pytest.mark.parametrize(
    "bounds", [(-1.0, 1.0), (2.0, 1.0), (2.0, 2.0), (-np.inf, 1.0), (1.0, np.inf), (-np.inf, np.inf)]
)
def test_clamps_are_those_of_torch(bounds: tuple[float, float], dtype: torch.dtype) -> None:
    """Of bounds that cross the upper one holds, as in torch and ONNX."""
    x = torch.tensor([-3, 0, 2, 3]).to(dtype)
    finite = [None if np.isinf(bound) else bound for bound in bounds]
    wanted = x if finite == [None, None] else torch.clamp(x, *finite)
    assert Clamp(*bounds).run(x).tolist() == wanted.tolist()
    assert not dtype.is_floating_point or apply_clamp(x, bounds).tolist() == wanted.tolist()
