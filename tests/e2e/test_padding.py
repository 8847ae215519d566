"""Padding by what lies at the edge: reflections, repetitions and wrapping, of floats and of int8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from e2e.bundles import ARM_LEVELS, Array, Job, build_all, run_jobs
from e2e.checking import x86_levels
from octavo.ir import DType, Graph, TensorType, run_graph
from octavo.ir.ops.shape import Pad
from octavo.ir.types import per_tensor

SHAPE = (2, 3, 5, 6)
TYPES = (TensorType(DType.F32, SHAPE), TensorType(DType.I8, SHAPE, per_tensor(0.5, 3)))
FEW = ((0, 0), (0, 0), (2, 1), (0, 3))
ROUND = ((0, 0), (1, 2), (7, 11), (13, 0))
"""Longer than the axes: positions are reflected more than once."""


def network() -> tuple[Graph, dict[str, Array]]:
    """Every mode and amount side by side."""
    random = np.random.default_rng(0)
    graph = Graph("pad")
    inputs = [graph.add_input(f"x{number}", type) for number, type in enumerate(TYPES)]
    feeds = {v.name: random.integers(-128, 128, SHAPE).astype(v.type.dtype.numpy) for v in inputs}
    modes = [(amounts, mode) for amounts in (FEW, ROUND) for mode in ("reflect", "edge", "wrap")]
    outputs = [graph.insert(Pad(amounts, 0.0, mode), [x]).output for x in inputs for amounts, mode in modes]
    graph.set_outputs(outputs, [f"y{number}" for number in range(len(outputs))])
    return graph, feeds


def check(levels: Sequence[str], folder: Path) -> None:
    graph, feeds = network()
    expected = run_graph(graph, feeds)
    (built,) = build_all([graph], levels, folder)
    for level in levels:
        (answer,) = run_jobs([Job(built, level, feeds)], level)
        assert not answer.trouble
        for name, want in expected.items():
            np.testing.assert_array_equal(answer.outputs[name], want, f"{name} on {level}")


def test_x86_levels(tmp_path: Path) -> None:
    check(x86_levels(), tmp_path)


@pytest.mark.arm
def test_arm_levels(tmp_path: Path) -> None:
    check(ARM_LEVELS, tmp_path)
