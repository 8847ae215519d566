from __future__ import annotations

import numpy as np
import pytest
from octavo.ir import Graph
from octavo.ir.errors import PassError
from octavo.ir.op import Stage
from octavo.ir.types import f32
from octavo.passes import Exactness, PassContext, Pipeline
from octavo.passes.eliminate_dead import EliminateDead
from octavo.passes.observers import NumericsCheck, Print, Time, Verify, agree, describe_error, sqnr
from support.pass_graphs import ChangeFactor, relu_chain, scaled

FEEDS = [{"x": np.array([1.0, -2.0], np.float32)}]


class Close(ChangeFactor):
    exactness = Exactness.CLOSE


class Lossy(ChangeFactor):
    exactness = Exactness.LOSSY


class Breaking(ChangeFactor):
    """Leaves a graph that breaks the rules."""

    def apply(self, graph: Graph, context: PassContext) -> bool:
        node = next(node for node in graph.nodes if node.inputs)
        node.output.type = f32(7)
        return True


def test_a_pass_that_keeps_its_word_passes() -> None:
    Pipeline((ChangeFactor(1.0), Close(1.0 + 1e-6), EliminateDead())).run(scaled(2.0), None, [NumericsCheck(FEEDS)])


def test_a_pass_that_is_not_exact_is_found_with_the_first_value() -> None:
    with pytest.raises(PassError, match="change-factor claims to be exact but changed output y") as error:
        Pipeline((ChangeFactor(1.5),)).run(scaled(2.0), None, [NumericsCheck(FEEDS)])
    assert error.value.where == "first diverging value %product, made at scale"


def test_a_close_pass_has_a_tolerance() -> None:
    check = NumericsCheck(FEEDS, tolerance=1e-3)
    Pipeline((Close(1.0001),)).run(scaled(2.0), None, [check])
    with pytest.raises(PassError, match="claims to be close"):
        Pipeline((Close(1.01),)).run(scaled(2.0), None, [NumericsCheck(FEEDS, tolerance=1e-3)])


def test_a_lossy_pass_is_reported() -> None:
    lines: list[str] = []
    Pipeline((Lossy(1.5),)).run(scaled(2.0), None, [NumericsCheck(FEEDS, report=lines.append)])
    assert lines == ["change-factor: y SQNR 6.0 dB, largest error 1"]


def test_the_verifier_runs_after_every_pass() -> None:
    with pytest.raises(PassError, match="invalid after change-factor"):
        Pipeline((Breaking(1.0),)).run(scaled(2.0))
    Pipeline((Breaking(1.0),)).run(scaled(2.0), verify=False)


def test_the_verifier_may_hold_a_stage() -> None:
    Pipeline((EliminateDead(),)).run(scaled(2.0), None, [Verify(Stage.INTEGER)])


def test_times_make_a_table() -> None:
    lines: list[str] = []
    Pipeline.parse("canonicalize,eliminate-dead").run(relu_chain(3), None, [Time(lines.append)])
    table = lines[0].splitlines()
    assert [line.split()[0] for line in table] == ["pass", "canonicalize", "eliminate-dead", "total"]
    assert table[1].split()[-1] == "1"
    assert table[2].endswith("(unchanged)")


def test_graphs_are_printed_around_named_passes() -> None:
    lines: list[str] = []
    watch = Print(lines.append, frozenset({"canonicalize"}), frozenset({"eliminate-dead"}))
    Pipeline.parse("canonicalize,fuse,eliminate-dead").run(relu_chain(2), None, [watch])
    assert [line.splitlines()[0] for line in lines] == ["// before canonicalize", "// after eliminate-dead"]
    assert lines[0].count("relu(") == 2
    assert lines[1].count("relu(") == 1


def test_agreement() -> None:
    a = np.array([1.0, np.nan, np.inf], np.float32)
    assert agree(a, a.copy(), 0.0)
    assert agree(a, a.copy(), 1e-3)
    assert not agree(a, a.astype(np.float64), 1e-3)
    assert not agree(np.array([1, 2]), np.array([1, 3]), 0.9)
    assert sqnr(np.ones(4), np.ones(4)) == np.inf
    assert sqnr(np.ones(4), np.full(4, 1.1)) == pytest.approx(20.0)
    assert describe_error(np.ones(2), np.ones(3)) == "float64[3] instead of float64[2]"
