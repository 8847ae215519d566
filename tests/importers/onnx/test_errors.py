"""Bad files and bad arguments: a clear error that names the place and the way out."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from importers.onnx.models import model, normal
from octavo.ir.errors import ModelError, UnsupportedError
from octavo.ir.importers.onnx import NeedsConstantError, import_onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper

CONV = "g (float[1, 3, 8, 8] x) => (float[1, 4, 8, 8] y) { y = Conv<pads: ints = [1, 1, 1, 1]>(x, w) }"


def conv() -> onnx.ModelProto:
    return model(CONV, weights={"w": normal(4, 3, 3, 3)})


# Files -------------------------------------------------------------------------------------------------------------


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read .*nothing\.onnx: No such file"):
        import_onnx(tmp_path / "nothing.onnx")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Is a directory"):
        import_onnx(tmp_path)


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.write_bytes(b"")
    with pytest.raises(ModelError, match="empty"):
        import_onnx(path)


@pytest.mark.parametrize("content", [b"not a protobuf at all", b"\x89PNG\r\n\x1a\n" + bytes(64), b"{}", b"\x00" * 100])
def test_foreign_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"not an ONNX file|holds no network"):
        import_onnx(path)


def test_every_truncation_is_an_error_or_a_smaller_model(tmp_path: Path) -> None:
    data = conv().SerializeToString()
    path = tmp_path / "cut.onnx"
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(ModelError):
            import_onnx(path)


def test_flipped_bytes_never_crash(tmp_path: Path) -> None:
    """Whatever a damaged file becomes: a graph, or an error for people."""
    data = bytearray(conv().SerializeToString())
    path = tmp_path / "damaged.onnx"
    numbers = np.random.default_rng(0)
    for _ in range(600):
        damaged = bytearray(data)
        for place in numbers.integers(0, min(len(data), 160), 2):
            damaged[place] = int(numbers.integers(0, 256))
        path.write_bytes(bytes(damaged))
        with contextlib.suppress(ModelError):
            import_onnx(path)


def test_another_protobuf(tmp_path: Path) -> None:
    path = tmp_path / "tensor.onnx"
    path.write_bytes(numpy_helper.from_array(normal(3), "t").SerializeToString())
    with pytest.raises(ModelError, match=r"not an ONNX file|holds no network"):
        import_onnx(path)


@pytest.mark.parametrize("opset", [5, 99])
def test_an_opset_out_of_range_names_the_range(opset: int) -> None:
    proto = conv()
    proto.opset_import[0].version = opset
    with pytest.raises(ModelError, match=rf"opset {opset}\n(.*\n)*.*expected: opset 6 to \d+\n.*version_converter"):
        import_onnx(proto)


def test_no_opset() -> None:
    proto = conv()
    del proto.opset_import[:]
    with pytest.raises(ModelError, match="which ONNX opset"):
        import_onnx(proto)


def test_weights_of_the_wrong_length() -> None:
    proto = conv()
    proto.graph.initializer[0].raw_data = b"1234"
    with pytest.raises(ModelError, match="initializer w"):
        import_onnx(proto)


# External data -----------------------------------------------------------------------------------------------------


def with_external_data(folder: Path) -> onnx.ModelProto:
    proto = model(CONV, weights={"w": normal(4, 3, 3, 3)})
    external_data_helper.convert_model_to_external_data(proto, location="weights.bin", size_threshold=0)
    onnx.save(proto, folder / "model.onnx")
    return onnx.load(folder / "model.onnx", load_external_data=False)


def relocated(folder: Path, **entries: str) -> Path:
    """The model with other entries about where its data is."""
    proto = with_external_data(folder)
    for entry in proto.graph.initializer[0].external_data:
        entry.value = entries.get(entry.key, entry.value)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data_is_read(tmp_path: Path) -> None:
    with_external_data(tmp_path)
    graph = import_onnx(tmp_path / "model.onnx")
    (weight,) = graph.constants().values()
    np.testing.assert_array_equal(weight.numpy(), normal(4, 3, 3, 3))


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "link.bin", "sub/../../weights.bin"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(432))
    folder = tmp_path / "model"
    folder.mkdir()
    path = relocated(folder, location=location)
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(ModelError, match=r"outside the model's folder\n.*where: initializer w of"):
        import_onnx(path)


def test_missing_external_data(tmp_path: Path) -> None:
    path = relocated(tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"cannot read external data weights\.bin"):
        import_onnx(path)


@pytest.mark.parametrize("entries", [{"length": "999999"}, {"offset": "-1"}, {"offset": "many"}])
def test_external_data_out_of_range(tmp_path: Path, entries: dict[str, str]) -> None:
    with pytest.raises(ModelError, match="initializer w"):
        import_onnx(relocated(tmp_path, **entries))


def test_a_loaded_model_without_its_external_data(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="pass the path of the model"):
        import_onnx(with_external_data(tmp_path))


# Weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_weights_name_the_initializer(value: float) -> None:
    weight = normal(4, 3, 3, 3)
    weight[1, 2, 0, 0] = value
    proto = model(CONV, weights={"w": weight})
    with pytest.raises(ModelError, match=r"initializer w holds 1 NaN or infinite value\(s\), first at \[1, 2, 0, 0\]"):
        import_onnx(proto)
    assert len(import_onnx(proto, allow_non_finite=True)) == 2


def test_an_infinite_mask_is_no_weight() -> None:
    proto = model(
        "g (float[2] x) => (float[2] y) { y = Add(x, mask) }", weights={"mask": np.array([0, -np.inf], np.float32)}
    )
    import_onnx(proto)


# Operators ---------------------------------------------------------------------------------------------------------


def test_all_unsupported_operators_come_at_once() -> None:
    proto = model(
        """g (float[2, 3] x) => (float[2, 3] y, float[2, 3] z) {
          a = com.acme.Frobnicate(x)
          b = com.acme.Frobnicate(a)
          c = Relu(b)
          d = RandomNormalLike(c)
          y = Add(d, c)
          e = NoSuchThing(x)
          z = Unique(e)
        }""",
        extra=', "com.acme" : 3',
    )
    with pytest.raises(UnsupportedError) as caught:
        import_onnx(proto)
    assert {op.name: op.places for op in caught.value.ops} == {
        "ai.onnx.NoSuchThing-21": ("NoSuchThing_of_e",),
        "ai.onnx.RandomNormalLike-21": ("RandomNormalLike_of_d",),
        "com.acme.Frobnicate-3": ("Frobnicate_of_a", "Frobnicate_of_b"),
        "ai.onnx.Unique-21": ("Unique_of_z",),
    }
    assert "com.acme.Frobnicate-3 x2 at Frobnicate_of_a, Frobnicate_of_b: no operator of that name" in str(caught.value)
    assert "a random result has no fixed meaning" in str(caught.value)


def test_loops_are_refused_with_a_reason() -> None:
    step = helper.make_graph(
        [helper.make_node("Identity", ["k"], ["ko"]), helper.make_node("Neg", ["v"], ["vo"])],
        "step",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("k", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [2]),
        ],
        [
            helper.make_tensor_value_info("ko", TensorProto.BOOL, []),
            helper.make_tensor_value_info("vo", TensorProto.FLOAT, [2]),
        ],
    )
    proto = model("g (float[2] x, int64 n) => (float[2] y) { y = Identity(x) }")
    proto.graph.node[0].CopyFrom(helper.make_node("Loop", ["n", "", "x"], ["y"], body=step))
    with pytest.raises(UnsupportedError, match="loops are not unrolled"):
        import_onnx(proto)


def test_element_types_out_of_scope_are_named() -> None:
    with pytest.raises(ModelError, match=r"element type STRING is not supported\n.*where: input x"):
        import_onnx(model("g (string[2] x) => (string[2] y) { y = Identity(x) }"))


def test_a_sequence_input_is_named() -> None:
    with pytest.raises(ModelError, match="x is a sequence, not a tensor"):
        import_onnx(model("g (seq(float[2]) x) => (int64 y) { y = SequenceLength(x) }"))


def test_shapes_that_do_not_fit_name_the_node() -> None:
    proto = model("g (float[2, 3] x) => (float[2, 3] y) { y = Add(x, w) }", weights={"w": normal(4, 4)})
    with pytest.raises(ModelError, match=r"do not broadcast\n.*where: Add_of_y"):
        import_onnx(proto)


@pytest.mark.parametrize(
    "body",
    [
        "y = Conv<strides: ints = [1]>(x, w)",
        "y = Conv<pads: ints = [1, 1, 1]>(x, w)",
        "y = Conv(x)",
        "y = Conv<group: int = 5>(x, w)",
        "y = Transpose<perm: ints = [0, 0, 1, 2]>(x)",
        "y = Concat<axis: int = 9>(x, x)",
        "y = Softmax<axis: int = 7>(x)",
        "y = Cast<to: int = 77>(x)",
        "y = Cast(x)",
        "y = MaxPool(x)",
        "y = MaxPool<kernel_shape: ints = [99, 99]>(x)",
        'y = Resize<mode: string = "sharp">(x, , s)',
        'y = Einsum<equation: string = "abcd->az">(x)',
    ],
)
def test_malformed_nodes_are_errors_for_people(body: str) -> None:
    proto = model(
        f"g (float[1, 3, 8, 8] x) => (float[N, C, H, W] y) {{ {body} }}",
        weights={"w": normal(4, 3, 3, 3), "s": np.ones(4, np.float32)},
    )
    with pytest.raises(ModelError) as caught:
        import_onnx(proto)
    assert caught.value.where


def test_a_value_nothing_makes() -> None:
    with pytest.raises(ModelError, match="ghost is read, but nothing makes it"):
        import_onnx(model("g (float[2] x) => (float[2] y) { y = Add(x, ghost) }"))


def test_an_output_nothing_makes() -> None:
    proto = conv()
    proto.graph.output[0].name = "nowhere"
    with pytest.raises(ModelError, match="nowhere is not made"):
        import_onnx(proto)


def test_a_cycle() -> None:
    proto = model("g (float[2] x) => (float[2] y) { a = Add(x, b) b = Neg(a) y = Relu(b) }")
    with pytest.raises(ModelError, match=r"[Cc]ycle"):
        import_onnx(proto)


# Arguments ---------------------------------------------------------------------------------------------------------


def test_shapes_of_unknown_inputs() -> None:
    with pytest.raises(ModelError, match=r"shape is given for z, which is not an input\n.*expected: one of x"):
        import_onnx(conv(), shapes={"z": (1, 3, 8, 8)})


@pytest.mark.parametrize("shape", [(1, 3, 8), (1, 3, 8, 9), (1, 3, -8, 8)])
def test_shapes_that_contradict_the_model(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="input x"):
        import_onnx(conv(), shapes={"x": shape})


def test_one_dimension_given_twice() -> None:
    proto = model("g (float[N] a, float[N] b) => (float[N] y) { y = Add(a, b) }")
    with pytest.raises(ModelError, match="dimension N is given as 2 and as 3"):
        import_onnx(proto, shapes={"a": (2,), "b": (3,)})


def test_a_needed_shape_names_the_input_and_the_option() -> None:
    proto = model(
        "g (float[N, 3, H, W] x) => (float[N, 4, A, B] y) {"
        ' y = Conv<auto_pad: string = "SAME_UPPER", strides: ints = [2, 2]>(x, w) }',
        weights={"w": normal(4, 3, 3, 3)},
    )
    with pytest.raises(ModelError, match=r"--shape x=<N>x3x<H>x<W>"):
        import_onnx(proto)
    assert import_onnx(proto, shapes={"x": ("N", 3, 9, 8)}).outputs[0].type.shape[1:] == (4, 5, 4)


def test_a_needed_constant_names_the_input() -> None:
    proto = model("g (float[2, 3] x, int64[2] shape) => (float[A, B] y) { y = Reshape(x, shape) }")
    with pytest.raises(NeedsConstantError, match=r"input\(s\) shape must be known") as caught:
        import_onnx(proto)
    assert caught.value.inputs == ("shape",)
    graph = import_onnx(proto, constants={"shape": np.array([3, -1])})
    assert graph.outputs[0].type.shape == (3, 2)


@pytest.mark.parametrize("array", [np.array([3.0, 2.0], np.float32), np.array([3, 2, 1]), np.array(3)])
def test_constants_of_another_type(array: np.ndarray) -> None:
    proto = model("g (float[2, 3] x, int64[2] shape) => (float[A, B] y) { y = Reshape(x, shape) }")
    with pytest.raises(ModelError, match=r"constant given for shape is .*\n.*expected: i64\[2\]"):
        import_onnx(proto, constants={"shape": array})


def test_an_input_without_a_shape_asks_for_one() -> None:
    proto = conv()
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ModelError, match="--shape x="):
        import_onnx(proto)
    assert import_onnx(proto, shapes={"x": (1, 3, 8, 8)}).outputs[0].type.shape == (1, 4, 8, 8)
