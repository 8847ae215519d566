"""Passes as texts: every case in tests/golden/passes runs its pipeline and must print what follows ``// becomes``.

A file is a list of cases, separated by lines of ``=``::

    // what the case shows
    // run: fuse
    graph @"main"(...) -> (...) { ... }
    // becomes
    graph @"main"(...) -> (...) { ... }
    // why a pattern left a node alone

``pytest --update-golden`` writes the second half. Beside the text, each case checks the verifier, that the text parses
back, that a second run changes nothing, and that the numbers stay what the passes promise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from octavo.ir import Graph, parse_graph, print_graph, verify
from octavo.ir.types import DType
from octavo.passes import PassContext, Pipeline
from octavo.passes.base import Remark
from octavo.passes.observers import NumericsCheck

FOLDER = Path(__file__).parents[1] / "golden" / "passes"
HEADER = "octavo.graph 1\n"
SEPARATOR = "=" * 100
BATCH = 2


@dataclass(frozen=True)
class Case:
    path: Path
    index: int
    title: str
    pipeline: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path.stem}: {self.title}"


def read_cases(path: Path) -> list[Case]:
    cases = []
    for index, text in enumerate(path.read_text(encoding="utf-8").split(SEPARATOR)):
        match = re.fullmatch(r"\s*// (.*?)\n// run: (.*?)\n(.*?)// becomes\n(.*)", text, re.DOTALL)
        assert match, f"case {index + 1} of {path.name} is malformed"
        cases.append(Case(path, index, *match.groups()))
    return cases


def write_case(case: Case, after: str) -> None:
    texts = case.path.read_text(encoding="utf-8").split(SEPARATOR)
    start = "\n" if case.index else ""
    texts[case.index] = f"{start}// {case.title}\n// run: {case.pipeline}\n{case.before}// becomes\n{after}"
    case.path.write_text(SEPARATOR.join(texts), encoding="utf-8")


def run_case(case: Case) -> tuple[Graph, str]:
    graph = parse_graph(HEADER + case.before)
    remarks: list[Remark] = []
    pipeline = Pipeline.parse(case.pipeline)
    check = NumericsCheck([random_feeds(pipeline.entered(graph), seed) for seed in range(2)])
    pipeline.run(graph, PassContext(explain=remarks.append), [check])
    lines = dict.fromkeys(f"// {remark}\n" for remark in remarks)
    return graph, print_graph(graph).removeprefix(HEADER) + "".join(lines)


def random_feeds(graph: Graph, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    feeds: dict[str, np.ndarray] = {}
    for value in graph.inputs:
        shape = [d if isinstance(d, int) else BATCH for d in value.type.shape]
        most = {DType.BOOL: 2, DType.U8: 256}.get(value.type.dtype)
        drawn = random.normal(0, 2, shape) if most is None else random.integers(0, most, shape)
        feeds[value.name] = np.asarray(drawn, value.type.dtype.numpy)
    return feeds


CASES = [case for path in sorted(FOLDER.glob("*.txt")) for case in read_cases(path)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case, request: pytest.FixtureRequest) -> None:
    graph, text = run_case(case)
    if request.config.getoption("--update-golden"):
        write_case(case, text)
    else:
        assert text == case.after
    printed = print_graph(graph)
    assert print_graph(parse_graph(printed)) == printed
    verify(graph)
    again = Pipeline.parse(case.pipeline).run(graph)
    assert not again
    assert print_graph(graph) == printed
