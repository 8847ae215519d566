"""The networks that other runtimes get are what their manuals advise, and answer like the float network."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from octavo.backends.bench import interleave, pair_ratio
from octavo.backends.bench.child import Runner
from octavo.backends.bench.peers import Arrays, Peer, PeerFiles, chosen_peers
from octavo.ir.errors import ModelError
from onnx import TensorProto, helper, numpy_helper
from support.onnx_runtime import exact_options

SHAPE = (1, 3, 12, 12)


def calls(count: int = 6) -> list[Arrays]:
    random = np.random.default_rng(0)
    return [(random.normal(size=SHAPE).astype(np.float32),) for _ in range(count)]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two convolutions in opset 11, with an open batch."""
    random = np.random.default_rng(1)
    weights = {"v": random.normal(size=(8, 3, 3, 3)) / 5, "w": random.normal(size=(4, 8, 1, 1)) / 3}
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *SHAPE[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, *SHAPE[2:]])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    path = tmp_path_factory.mktemp("peers") / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7), path)
    return path


@pytest.fixture(scope="module")
def files(network: Path) -> PeerFiles:
    return PeerFiles(network, calls, network.parent / "cache")


def answer(path: Path, arrays: Arrays) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, exact_options(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": arrays[0]})[0])


def sqnr(reference: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(reference**2) / np.sum((reference - other) ** 2)))


def test_onnxruntime_gets_unsigned_activations_and_weights_per_channel(files: PeerFiles) -> None:
    graph = onnx.load(files.path("qdq")).graph
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    activations = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert {constants[node.input[2]].dtype for node in activations} == {np.dtype(np.uint8)}
    weights = [
        n for n in graph.node if n.op_type == "DequantizeLinear" and constants.get(n.input[0], np.zeros(0)).ndim == 4
    ]
    assert [constants[node.input[0]].dtype for node in weights] == [np.dtype(np.int8)] * 2
    assert [constants[node.input[1]].size for node in weights] == [8, 4]
    inputs = calls(1)[0]
    assert sqnr(answer(files.source, inputs), answer(files.path("qdq"), inputs)) > 25


def test_activations_are_signed_where_asked(files: PeerFiles) -> None:
    signed = files.qdq(signed=True)
    graph = onnx.load(signed).graph
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    activations = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert {constants[node.input[2]].dtype for node in activations} == {np.dtype(np.int8)}
    inputs = calls(1)[0]
    assert sqnr(answer(files.source, inputs), answer(signed, inputs)) > 25


def test_files_are_made_once_for_the_same_data(files: PeerFiles, network: Path) -> None:
    again = PeerFiles(network, calls, files.folder)
    assert again.path("qdq") == files.path("qdq")
    assert PeerFiles(network, lambda: calls(3), files.folder).path("qdq") != files.path("qdq")
    assert again.path("given") == network


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("nncf") is None, reason="nncf is not installed: pip install 'octavo[bench]'"
)
def test_nncf_quantizes_every_convolution(files: PeerFiles) -> None:
    text = files.path("nncf").read_text(encoding="utf-8")
    assert text.count('type="Convolution"') == 2
    assert text.count('type="FakeQuantize"') >= 2
    assert text.count('element_type="i8"') == 2, "weights are stored in int8"


def test_a_file_that_cannot_be_quantized_is_named(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"\x00")
    with pytest.raises(ModelError, match="ONNX file") as caught:
        PeerFiles(damaged, calls, tmp_path).path("qdq")
    assert "damaged.onnx" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.onnx"]


def test_a_runner_answers_with_times(files: PeerFiles) -> None:
    peer = Peer("onnxruntime int8", "onnxruntime", "qdq")
    with Runner(peer, files.path("qdq"), calls(1)[0], threads=1) as runner:
        assert all(0 < runner.turn() < 10**9 for _ in range(3))
        assert runner.described.version == onnxruntime.__version__


def test_a_runner_says_why_it_cannot(files: PeerFiles) -> None:
    wrong = (np.zeros((1, 5), np.float32),)
    with pytest.raises(ModelError, match="onnxruntime does not run the model"):
        Runner(Peer("", "onnxruntime", "given"), files.source, wrong, threads=1)


@pytest.mark.parametrize(
    ("ops", "level", "forms"),
    [
        (("Conv", "Relu"), None, ["qdq", "given", "nncf", "qdq", "given"]),
        (("Conv", "Relu"), "avx2", ["qdq", "given", "nncf", "qdq"]),
        (("MatMul",), "amx", ["qdq", "given", "nncf", "qdq", "given", "dynamic"]),
        (("Conv", "QuantizeLinear"), None, ["given", "given"]),
    ],
)
def test_what_takes_part(ops: tuple[str, ...], level: str | None, forms: list[str]) -> None:
    assert [peer.form for peer in chosen_peers(("onnxruntime", "openvino"), frozenset(ops), level)] == forms


def test_turns_go_forwards_and_backwards() -> None:
    seen: list[str] = []

    def call(name: str) -> Callable[[], None]:
        return lambda: seen.append(name)

    times = interleave({"a": call("a"), "b": call("b")}, 2, lambda: len(seen) * 10**6)
    assert "".join(seen) == "ab" + "aabb" + "bbaa", "each is called once before, and twice in its turn"
    assert times == {"a": [1.0, 1.0], "b": [1.0, 1.0]}


def test_the_interval_of_a_ratio_holds_its_median() -> None:
    ratio = pair_ratio([2.0] * 10 + [4.0] * 21, [1.0] * 31)
    assert (ratio.low, ratio.median, ratio.high) == (4.0, 4.0, 4.0)
    spread = pair_ratio([float(n) for n in range(1, 32)], [1.0] * 31)
    assert (spread.low, spread.median, spread.high) == (11.0, 16.0, 22.0)
