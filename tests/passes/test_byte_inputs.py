"""Networks whose inputs are bytes with a scale: every level reads them as the user stores them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import octavo
import pytest
from e2e.bundles import ARM_LEVELS, Job, build_all, run_jobs
from e2e.checking import x86_levels
from importers.onnx.models import Array, model, normal, reference
from octavo.ir import Graph
from octavo.ir.importers.onnx import import_onnx


def network(dtype: str) -> tuple[Graph, dict[str, Array], Array]:
    """A layer on bytes around a zero point: frozen graph, an input of full range, and the float answer."""
    body = f"""
    main ({dtype}[4, 8] q) => (float[4, 6] y) {{
      x = DequantizeLinear(q, s, z)
      y = MatMul(x, w)
    }}"""
    zero = np.array(3 if dtype == "int8" else 131, dtype)
    proto = model(body, weights={"w": normal(8, 6), "s": np.asarray(0.05, np.float32), "z": zero})
    info = np.iinfo(zero.dtype)
    feeds = {"q": np.random.default_rng(0).integers(info.min, info.max + 1, (4, 8)).astype(dtype)}
    return octavo.optimize(import_onnx(proto), calibration=[feeds]), feeds, reference(proto, feeds)[0]


def check(dtype: str, levels: Sequence[str], folder: Path) -> None:
    graph, feeds, expected = network(dtype)
    (built,) = build_all([graph], levels, folder)
    for level in levels:
        (answer,) = run_jobs([Job(built, level, feeds)], level)
        assert answer.trouble == ""
        np.testing.assert_allclose(answer.outputs["y"], expected, atol=0.03 * np.abs(expected).max())


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_x86_levels(dtype: str, tmp_path: Path) -> None:
    check(dtype, x86_levels(), tmp_path)


@pytest.mark.arm
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_arm_levels(dtype: str, tmp_path: Path) -> None:
    check(dtype, ARM_LEVELS, tmp_path)
