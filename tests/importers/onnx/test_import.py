"""What graphs look like after import: names, shapes, constants, functions, branches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from importers.onnx.models import assert_matches, model, normal, run
from octavo.ir import Dim, Graph, parse_graph, print_graph
from octavo.ir.constants import from_tensors
from octavo.ir.importers.onnx import import_onnx
from octavo.ir.op import Op
from octavo.ir.ops.conv import Conv
from octavo.ir.ops.reduce import ReduceMean
from onnx import parser


def ops(graph: Graph) -> list[Op]:
    return [node.op for node in graph.nodes if node.op.name != "constant"]


def names(graph: Graph) -> list[str]:
    return [op.name for op in ops(graph)]


# Names -------------------------------------------------------------------------------------------------------------


def test_nodes_and_values_keep_the_names_of_the_model() -> None:
    proto = model("g (float[2] x) => (float[2] out) { [first] hidden = Relu(x) out = Neg(hidden) }")
    graph = import_onnx(proto)
    assert [(n.op.name, n.origin, n.output.name) for n in graph.nodes] == [
        ("relu", "first", "hidden"),
        ("neg", "Neg_of_out", "out"),
    ]
    assert graph.name == "g"
    assert graph.output_names == ("out",)


def test_names_that_do_not_print_are_spelled_so_that_they_do() -> None:
    proto = model("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "input:0"
    proto.graph.output[0].name = proto.graph.node[0].output[0] = "net/output 0"
    graph = import_onnx(proto)
    text = print_graph(graph)
    assert print_graph(parse_graph(text, from_tensors(graph.constants()))) == text
    assert graph.output_names == ("net/output 0",)


def test_weights_keep_their_names() -> None:
    proto = model(
        "g (float[1, 3, 8, 8] x) => (float[1, 4, 6, 6] y) { y = Conv(x, conv1_weight) }",
        weights={"conv1_weight": normal(4, 3, 3, 3)},
    )
    assert "conv1_weight" in [v.name for v in import_onnx(proto).values()]


def test_a_shared_weight_is_one_constant() -> None:
    proto = model("g (float[2] x) => (float[2] y) { a = Add(x, w) y = Mul(a, w) }", weights={"w": normal(2)})
    assert [n.op.name for n in import_onnx(proto).nodes].count("constant") == 1


# Structure ---------------------------------------------------------------------------------------------------------


def test_initializers_among_the_inputs_are_constants() -> None:
    proto = model("g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }", weights={"w": normal(2)})
    assert [v.name for v in import_onnx(proto).inputs] == ["x"]


def test_nodes_out_of_order_are_sorted() -> None:
    proto = model("g (float[2] x) => (float[2] y) { a = Relu(x) b = Neg(a) y = Exp(b) }")
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))
    assert names(import_onnx(proto)) == ["relu", "neg", "exp"]


def test_dead_nodes_leave_nothing() -> None:
    proto = model("g (float[2] x) => (float[2] y) { unused = Exp(x) y = Neg(x) }")
    assert names(import_onnx(proto)) == ["neg"]


def test_an_output_may_be_an_input_or_a_constant() -> None:
    proto = model(
        "g (float[2] x) => (float[2] y, float[2] z) { y = Identity(x) z = Identity(w) }", weights={"w": normal(2)}
    )
    y, z = run(import_onnx(proto), {"x": normal(2, seed=1)})
    np.testing.assert_array_equal(y, normal(2, seed=1))
    np.testing.assert_array_equal(z, normal(2))


def test_a_file_imports_like_the_model(tmp_path: Path) -> None:
    proto = model("g (float[2] x) => (float[2] y) { y = Add(x, w) }", weights={"w": normal(2)})
    onnx.save(proto, tmp_path / "m.onnx")
    for source in (tmp_path / "m.onnx", str(tmp_path / "m.onnx")):
        assert print_graph(import_onnx(source)) == print_graph(import_onnx(proto))


def test_a_given_name() -> None:
    proto = model("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    assert import_onnx(proto, name="mine").name == "mine"


# Functions and branches --------------------------------------------------------------------------------------------

FUNCTIONS = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
g (float[2, 3] x) => (float[2, 3] y) {
  [outer] y = local.twice<slope: float = 0.5>(x)
}
<opset_import: ["" : 18, "local" : 1], domain: "local">
twice<slope>(a) => (c) {
  b = local.leaky<alpha: float = @slope>(a)
  [second] c = local.leaky<alpha: float = @slope>(b)
}
<opset_import: ["" : 18], domain: "local">
leaky<alpha>(v) => (w) { w = LeakyRelu<alpha: float = @alpha>(v) }
"""


def test_local_functions_are_inlined_with_their_attributes() -> None:
    graph = assert_matches(parser.parse_model(FUNCTIONS), {"x": normal(2, 3)})
    assert [(n.op.name, n.origin) for n in graph.nodes] == [
        ("leaky_relu", "outer/leaky_of_b/LeakyRelu_of_w"),
        ("leaky_relu", "outer/second/LeakyRelu_of_w"),
    ]


def test_a_constant_condition_chooses_a_branch() -> None:
    for chosen, expected in ((True, "exp"), (False, "neg")):
        proto = model(
            """g (float[2] x) => (float[2] y) {
              y = If(c) <then_branch = t () => (float[2] a) { a = Exp(x) },
                         else_branch = e () => (float[2] b) { b = Neg(x) }>
            }""",
            weights={"c": np.asarray(chosen)},
        )
        assert names(assert_matches(proto, {"x": normal(2)})) == [expected]


def test_a_branch_on_a_shape_is_constant() -> None:
    proto = model(
        """g (float[2, 3] x) => (float[N, M] y) {
          s = Shape(x)
          n = Gather(s, zero)
          c = Equal(n, two)
          y = If(c) <then_branch = t () => (float[2, 3] a) { a = Exp(x) },
                     else_branch = e () => (float[3, 2] b) { b = Transpose(x) }>
        }""",
        weights={"zero": np.asarray(0), "two": np.asarray(2)},
    )
    assert names(assert_matches(proto, {"x": normal(2, 3)})) == ["exp"]


# Shapes ------------------------------------------------------------------------------------------------------------

DYNAMIC = """
g (float[batch, 3, 8, 8] x) => (float[batch, 10] y) {
  c = Conv<strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]>(x, w)
  r = Relu(c)
  p = GlobalAveragePool(r)
  s = Shape(p)
  n = Gather<axis: int = 0>(s, zero)
  nv = Unsqueeze(n, zeros)
  shape = Concat<axis: int = 0>(nv, minus)
  f = Reshape(p, shape)
  y = Gemm<transB: int = 1>(f, fw, fb)
}"""


def dynamic() -> onnx.ModelProto:
    weights = {
        "w": normal(4, 3, 3, 3), "zero": np.asarray(0), "zeros": np.array([0]), "minus": np.array([-1]),
        "fw": normal(10, 4), "fb": normal(10),
    }  # fmt: skip
    return model(DYNAMIC, weights=weights)


def test_a_symbolic_batch_stays() -> None:
    proto = dynamic()
    graph = assert_matches(proto, {"x": normal(3, 3, 8, 8)})
    assert graph.inputs[0].type.shape == (Dim("batch"), 3, 8, 8)
    assert graph.outputs[0].type.shape == (Dim("batch"), 10)
    assert names(graph) == ["conv", "relu", "reduce_mean", "reshape", "linear"]
    assert_matches(proto, {"x": normal(5, 3, 8, 8)})


def test_shapes_fix_dimensions_and_all_of_the_same_name() -> None:
    graph = import_onnx(dynamic(), shapes={"x": (2, 3, 8, 8)})
    assert graph.outputs[0].type.shape == (2, 10)
    both = model("g (float[N] a, float[N] b) => (float[N] y) { y = Add(a, b) }")
    assert [v.type.shape for v in import_onnx(both, shapes={"a": (4,)}).inputs] == [(4,), (4,)]


def test_unnamed_dimensions_are_distinct() -> None:
    proto = model("g (float[N, 3, N2, 8] x) => (float[A, B, C, D] y) { y = Relu(x) }")
    for axis in (0, 2):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "?"
    shape = import_onnx(proto).inputs[0].type.shape
    assert shape == (Dim("x_0"), 3, Dim("x_2"), 8)


@pytest.mark.parametrize("kind", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_automatic_padding(kind: str, stride: int) -> None:
    proto = model(
        f'g (float[1, 3, 9, 8] x) => (float[N, C, H, W] y) {{ y = Conv<auto_pad: string = "{kind}",'
        f" strides: ints = [{stride}, {stride}]>(x, w) }}",
        weights={"w": normal(4, 3, 3, 2)},
    )
    (op,) = ops(assert_matches(proto, {"x": normal(1, 3, 9, 8)}))
    assert isinstance(op, Conv)


# Forms -------------------------------------------------------------------------------------------------------------


def test_global_average_pooling_is_a_mean() -> None:
    (op,) = ops(import_onnx(model("g (float[1, 3, 4, 5] x) => (float[1, 3, 1, 1] y) { y = GlobalAveragePool(x) }")))
    assert op == ReduceMean((2, 3), keep=True)


def test_a_matmul_with_a_constant_is_linear() -> None:
    proto = model("g (float[2, 7, 5] x) => (float[2, 7, 6] y) { y = MatMul(x, w) }", weights={"w": normal(5, 6)})
    assert names(assert_matches(proto, {"x": normal(2, 7, 5)})) == ["linear"]


@pytest.mark.parametrize("transposed", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("bias", [(), (6,), (1, 6), (2, 6), (2, 1)])
def test_gemm(transposed: tuple[int, int], bias: tuple[int, ...]) -> None:
    a, b = ((2, 5), (5, 2))[transposed[0]], ((5, 6), (6, 5))[transposed[1]]
    proto = model(
        f"g (float[{a[0]}, {a[1]}] x) => (float[2, 6] y) {{ y = Gemm<transA: int = {transposed[0]},"
        f" transB: int = {transposed[1]}, alpha: float = 0.5, beta: float = 2.0>(x, w, b) }}",
        weights={"w": normal(*b), "b": np.asarray(normal(*bias) if bias else np.float32(0.3))},
    )
    assert_matches(proto, {"x": normal(*a)})


def test_shape_arithmetic_leaves_no_nodes() -> None:
    proto = model(
        """g (float[2, 3, 4] x) => (float[A, B] y) {
          s = Shape(x)
          a = Slice(s, one, three)
          p = ReduceProd<keepdims: int = 1>(a)
          shape = Concat<axis: int = 0>(minus, p)
          y = Reshape(x, shape)
        }""",
        weights={"one": np.array([1]), "three": np.array([3]), "minus": np.array([-1])},
    )
    assert names(assert_matches(proto, {"x": normal(2, 3, 4)})) == ["reshape"]


def test_importing_twice_gives_the_same_text() -> None:
    assert print_graph(import_onnx(dynamic())) == print_graph(import_onnx(dynamic()))
