"""Everything prints, and what prints parses; what does not parse says where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from octavo.ir import DType, Graph, Tensor, load_graph, parse_graph, per_channel, print_graph, save_graph, verify
from octavo.ir.constants import from_tensors
from octavo.ir.errors import ModelError, OctavoError, ParseError
from octavo.ir.ops.constant import Constant
from octavo.ir.ops.elementwise import Relu
from octavo.ir.text import parse_type
from octavo.ir.types import Dim, TensorType, f32
from support.random_graphs import graphs

GOOD = """octavo.graph 1
graph @"main"(%x: f32[?nx3]) -> ("y": %y) {
  %w: f32[3] = constant{data=dense("f32[3]", [0.5, "nan", "-inf"])}() @"weight"
  %y: f32[?nx3] = add{clamp=(0.0, 6.0)}(%x, %w) @"layer.0" !float("rule", "a \\"reason\\"")
}
"""


@settings(max_examples=150)
@given(graphs())
def test_graphs_print_and_parse(graph: Graph) -> None:
    verify(graph)
    text = print_graph(graph)
    parsed = parse_graph(text, from_tensors(graph.constants()))
    verify(parsed)
    assert print_graph(parsed) == text
    assert parsed.output_names == graph.output_names
    assert [n.decision for n in parsed.nodes] == [n.decision for n in graph.nodes]
    assert [n.op for n in parsed.nodes] == [n.op for n in graph.nodes]
    assert [v.type for v in parsed.values()] == [v.type for v in graph.values()]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(graphs())
def test_graphs_survive_files(tmp_path: Path, graph: Graph) -> None:
    path = tmp_path / "graph.octavo"
    path.with_suffix(".safetensors").unlink(missing_ok=True)
    save_graph(graph, path)
    loaded = load_graph(path)
    assert print_graph(loaded) == print_graph(graph)
    for digest, tensor in loaded.constants().items():
        assert tensor.numpy().tobytes() == graph.constants()[digest].numpy().tobytes()
        assert not tensor.numpy().flags.writeable


def test_the_form_in_full() -> None:
    assert print_graph(parse_graph(GOOD)) == GOOD


def test_comments_and_layout_are_free() -> None:
    loose = GOOD.replace("(%x, %w)", "(\n    %x,  // the input\n %w,)").replace("graph @", "\n\ngraph\n@")
    assert print_graph(parse_graph(loose)) == GOOD


def test_constants_above_64_elements_are_named() -> None:
    graph = Graph()
    data = np.arange(65, dtype=np.float32)
    graph.set_outputs([graph.constant(Tensor.of(data[:64]), name="small"), graph.constant(Tensor.of(data), name="big")])
    text = print_graph(graph)
    assert text.count("dense(") == text.count("sha256:") == 1
    with pytest.raises(ParseError, match="is not in the text") as caught:
        parse_graph(text)
    assert "load_graph" in (caught.value.hint or "")


def test_per_channel_parameters_are_named_once() -> None:
    graph = Graph()
    quant = per_channel([0.1, 0.2], [1, -1], 0)
    for value in (1, 2):
        graph.insert(Constant(Tensor.of(np.full(2, value, np.int8)), quant), [])
    text = print_graph(graph)
    assert text.count("#q0 = quant(axis=0, scale=[0.1, 0.2], zero_point=[1, -1])") == 1
    (first, second) = [v.type.quant for v in parse_graph(text).values()]
    assert first is second is quant


def test_float32_scales_print_short_and_exact() -> None:
    graph = Graph()
    graph.insert(Constant(Tensor.of(np.int8(1)), per_channel([1 / 3], None, 0)), [])
    assert "scale=[0.33333334]" in print_graph(graph)
    (value,) = parse_graph(print_graph(graph)).values()
    assert value.type.quant is not None
    assert value.type.quant.scale == (float(np.float32(1 / 3)),)


BROKEN = [
    ("", "line 1", "octavo.graph"),
    (GOOD.replace("octavo.graph 1", "octavo.graph 2"), "line 1", "newer than this octavo"),
    (GOOD.replace("octavo.graph", "some.graph"), "line 1", "some.graph"),
    (GOOD.replace("f32[?nx3])", "f33[?nx3])"), "line 2", "f33"),
    (GOOD.replace("(%x, %w)", "(%x, %v)"), "line 4", "%v is not defined"),
    (GOOD.replace("%y: f32", "%w: f32"), "line 4", "%w is defined twice"),
    (GOOD.replace("= add{", "= ad{"), "line 4", "no op is named ad"),
    (GOOD.replace("clamp=", "clip="), "line 4", "add has no attribute clip"),
    (GOOD.replace("(0.0, 6.0)", "(0.0, 6.0"), "line 4", ""),
    (GOOD.replace("(0.0, 6.0)", "0..5"), "line 4", ""),
    (GOOD.replace("(%x, %w)", "(%x)"), "line 4", "takes 2 operands"),
    (GOOD.replace('@"layer.0"', "@layer"), "line 4", "'layer'"),
    (GOOD.replace("!float", "!double"), "line 4", "double"),
    (GOOD.replace('"y": %y', '"y": %z'), "line", "%z is not defined"),
    (GOOD + "graph", "line 6", "end of text after the graph"),
    (GOOD[: GOOD.rindex("}")], "line", "end of text"),
    (GOOD.replace("[0.5,", "[0.5, 1.0,"), "line 3", ""),
    (GOOD.replace("[0.5,", "[x,"), "line 3", ""),
    (GOOD.replace("$", "") + "$", "line 6", "unexpected '$'"),
    (GOOD.replace('"f32[3]"', '"f32[?a]"'), "line 3", ""),
    (GOOD.replace("f32[3] =", "f32[3]<#q4> ="), "line 3", "#q4 is not defined"),
    (GOOD.replace("f32[3] =", "f32[3]<0.5:1> ="), "line 3", "quantization parameters on f32"),
    (GOOD.replace("f32[3] =", "f32[3]<0:0> ="), "line 3", "not a positive finite number"),
]


@pytest.mark.parametrize(("text", "where", "what"), BROKEN, ids=[str(i) for i in range(len(BROKEN))])
def test_errors_name_the_line(text: str, where: str, what: str) -> None:
    with pytest.raises(OctavoError) as caught:
        parse_graph(text)
    error = caught.value
    assert isinstance(error, ParseError)
    assert (error.where or "").startswith(where)
    assert what in f"{error.what} {error.expected}"


@settings(max_examples=200)
@given(graphs())
def test_damaged_texts_never_crash(graph: Graph) -> None:
    text = print_graph(graph)
    cut = len(text) * (len(graph) % 7 + 1) // 8
    for damaged in (text[:cut], text[:cut] + "?" + text[cut:], text[:cut] + text[cut + 1 :]):
        try:
            parse_graph(damaged, from_tensors(graph.constants()))
        except OctavoError as error:
            assert "line" in str(error) or "constant" in str(error)  # noqa: PT017 - both outcomes are right


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "graph.octavo"
    path.write_text(GOOD.replace("add", "ad"), encoding="utf-8")
    with pytest.raises(ParseError) as caught:
        load_graph(path)
    assert str(path) in (caught.value.where or "")
    assert "line 4" in (caught.value.where or "")


@pytest.mark.parametrize(
    ("text", "type"),
    [
        ("f32[]", f32()),
        ("bf16[1x2]", TensorType(DType.BF16, (1, 2))),
        ("bool[?batchx3x?w]", TensorType(DType.BOOL, (Dim("batch"), 3, Dim("w")))),
        ("u8[0x3]", TensorType(DType.U8, (0, 3))),
    ],
)
def test_types_print_and_parse(text: str, type: TensorType) -> None:
    assert parse_type(text) == type
    assert str(type) == text


def test_dimensions_that_cannot_be_read_back_are_refused() -> None:
    for name in ("x2", "3d", "a b", "", "maxx0"):
        with pytest.raises(ModelError, match="cannot name a dimension"):
            Dim(name)
    assert [Dim.named(text).name for text in ("x2", "3d", "a b", "")] == ["x_2", "d3d", "a_b", "dim"]


def test_an_empty_graph() -> None:
    graph = Graph("nothing")
    x = graph.add_input("x", f32(1))
    graph.set_outputs([x])
    assert print_graph(parse_graph(print_graph(graph))) == print_graph(graph)
    graph.insert(Relu(), [x])
    assert len(parse_graph(print_graph(graph))) == 1
