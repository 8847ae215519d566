"""Einstein sums of floats become matrix products with the same meaning."""

from __future__ import annotations

import numpy as np
import pytest
from octavo.ir import Graph, run_graph
from octavo.ir.ops.einsum import Einsum
from octavo.ir.types import f32
from octavo.passes.base import PassContext
from octavo.passes.canonicalize import Canonicalize

SIZES = dict(zip("abcdehijkn", (2, 3, 4, 5, 6, 2, 3, 4, 5, 7), strict=True))
EQUATIONS = [
    "ij,jk->ik",
    "ij,jk",
    "bij,bjk->bki",
    "bhid,bhjd->bhij",
    "bihd,bjhd->bhij",
    "bhij,bjhd->bihd",
    "abc,cd->abd",
    "ij,ij->i",
    "ij,ij->",
    "i,j->ji",
    "bi,bi->bi",
    "abc->cb",
    "ab,bc,cd->da",
    "ai,bi,ci->abc",
    "abc,bd->ad",
]


def _values(equation: str, shapes: list[tuple[int, ...]]) -> tuple[Graph, dict[str, np.ndarray]]:
    rng, graph = np.random.default_rng(5), Graph("einsum")
    inputs = [graph.add_input(f"x{number}", f32(*shape)) for number, shape in enumerate(shapes)]
    graph.set_outputs([graph.insert(Einsum(equation), inputs).output], ["y"])
    return graph, {v.name: rng.normal(size=v.type.static_shape).astype(np.float32) for v in inputs}


def _check(graph: Graph, feeds: dict[str, np.ndarray]) -> None:
    before = run_graph(graph, feeds)["y"]
    assert Canonicalize().apply(graph, PassContext())
    assert not any(isinstance(node.op, Einsum) for node in graph.nodes)
    after = run_graph(graph, feeds)["y"]
    assert after.shape == before.shape
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_meaning_stays(equation: str) -> None:
    terms = equation.partition("->")[0].split(",")
    _check(*_values(equation, [tuple(SIZES[letter] for letter in term) for term in terms]))


def test_ellipsis() -> None:
    _check(*_values("...ij,...jk->...ik", [(2, 3, 4, 5), (2, 3, 5, 6)]))
    _check(*_values("...i,io->...o", [(2, 3, 4), (4, 5)]))
    _check(*_values("...ij,...j", [(2, 4, 5), (2, 5)]))


@pytest.mark.parametrize(("equation", "shapes"), [("ii->i", [(3, 3)]), ("bi,bi->b", [(1, 3), (2, 3)])])
def test_diagonals_and_broadcasts_stay(equation: str, shapes: list[tuple[int, ...]]) -> None:
    graph, _ = _values(equation, shapes)
    Canonicalize().apply(graph, PassContext())
    assert any(isinstance(node.op, Einsum) for node in graph.nodes)
