"""Compiled networks in use: compiled again, beside each other, by several threads, with any number of threads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import octavo
import pytest
from e2e.bundles import Built, Feeds, build_all
from e2e.checking import differences, native_levels
from e2e.random_graphs import random_feeds
from e2e.samples import frozen, is_exact, seeds
from octavo.backends.bundle.manifest import FILE_NAME
from octavo.ir import Graph, run_graph

pytestmark = pytest.mark.skipif("avx2" not in native_levels(), reason="runs a native level of x86-64")
LEVEL = "avx2"
ROUNDS = 20


@pytest.fixture(scope="module")
def graphs() -> list[Graph]:
    return [graph for graph in map(frozen, seeds(0)) if is_exact(graph)][:2]


@pytest.fixture(scope="module")
def built(graphs: Sequence[Graph], tmp_path_factory: pytest.TempPathFactory) -> list[Built]:
    return build_all(graphs, [LEVEL], tmp_path_factory.mktemp("bundles"))


def _wrong(bundle: octavo.Bundle, graph: Graph, feeds: Feeds) -> list[str]:
    return differences(run_graph(graph, feeds), bundle.run(feeds))


def test_compiled_again_gives_the_same_files(built: list[Built], graphs: list[Graph], tmp_path: Path) -> None:
    again = build_all(graphs, [LEVEL], tmp_path)
    for first, second in zip(built, again, strict=True):
        files = {path.name: path.read_bytes() for path in first.folder.iterdir()}
        assert files == {path.name: path.read_bytes() for path in second.folder.iterdir()}
        assert FILE_NAME in files


def test_two_networks_of_one_prefix_side_by_side(built: list[Built]) -> None:
    with octavo.load(built[0].folder, level=LEVEL) as left, octavo.load(built[1].folder, level=LEVEL) as right:
        for seed in range(3):
            for each, bundle in zip(built, (left, right), strict=True):
                assert _wrong(bundle, each.graph, random_feeds(each.graph, seed)) == []


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_any_number_of_threads(built: list[Built], threads: int) -> None:
    with octavo.load(built[0].folder, level=LEVEL, threads=threads) as bundle:
        for seed in range(3):
            assert _wrong(bundle, built[0].graph, random_feeds(built[0].graph, seed)) == []


def test_runs_of_one_bundle_at_the_same_time(built: list[Built]) -> None:
    """Each thread has its own input; runs share the context, not a workspace."""
    graph = built[0].graph
    feeds = [random_feeds(graph, seed) for seed in range(4)]
    expected = [run_graph(graph, each) for each in feeds]
    with octavo.load(built[0].folder, level=LEVEL, threads=2) as bundle, ThreadPoolExecutor(4) as executor:
        runs = executor.map(lambda each: [bundle.run(each) for _ in range(ROUNDS)], feeds)
        for want, answers in zip(expected, runs, strict=True):
            assert [line for answer in answers for line in differences(want, answer)] == []


def test_an_input_may_lie_anywhere(built: list[Built]) -> None:
    """Strides and alignment of the caller's arrays change nothing."""
    graph = built[0].graph
    feeds = random_feeds(graph, 5)
    spread = {name: array.repeat(2, axis=-1)[..., ::2] for name, array in feeds.items()}
    with octavo.load(built[0].folder, level=LEVEL) as bundle:
        assert differences(run_graph(graph, feeds), bundle.run(spread)) == []
