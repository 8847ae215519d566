"""Copy and border kernels on every ISA level."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from kernels.harness import Case, run_kernels
from kernels.levels import every_level
from kernels.reference import view
from kernels.strided_cases import extent, gapped, strided
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels.base import StridedView
from octavo.backends.tvm.kernels.border import BorderSpec
from octavo.backends.tvm.kernels.copy import CopySpec
from octavo.backends.tvm.kernels.strided import dense_strides

SHAPES = [(1, 3, 20, 31), (2, 70, 5, 9), (1, 33, 17), (40, 64), (3, 1, 2, 5, 2), (7,), (10000,)]
COPIES = [
    *(CopySpec(size, shape) for size, shape in zip((1, 2, 4, 8, 1, 4, 1), SHAPES, strict=True)),
    *(CopySpec(size, (5, 3, 23), gapped((5, 3, 23), 2), gapped((5, 3, 23), 9)) for size in (1, 4)),
    *(CopySpec.permuted(size, (2, 35, 6, 20), order) for size in (1, 4) for order in itertools.permutations(range(4))),
    *(CopySpec.permuted(size, (33, 50), (1, 0)) for size in (1, 2, 4, 8)),
    CopySpec.permuted(1, (1, 3, 20, 31), (0, 2, 3, 1)),
    CopySpec.permuted(4, (2, 3, 2, 3, 4, 5), (5, 2, 0, 4, 1, 3)),
    CopySpec(1, (6, 8, 10), (0, 10, 1)),
    CopySpec(4, (6, 8, 10), (8, 1, 0)),
]
BORDERS = [
    BorderSpec(1, 5, 6, 16, 1, 1, 1, 1, StridedView(7 * 8 * 16, 8 * 16, 16)),
    BorderSpec(2, 5, 6, 3, 0, 1, 2, 3, StridedView(7 * 10 * 3 + 5, 10 * 3, 3, 2)),
    BorderSpec(2, 3, 4, 24, 1, 2, 1, 0, StridedView(5 * 6 * 40, 6 * 40, 40, 8)),
    BorderSpec(1, 3, 4, 70, 2, 0, 0, 1, StridedView(5 * 400, 400, 70)),
    BorderSpec(1, 1, 9, 5, 0, 4, 0, 4, StridedView(17 * 5, 17 * 5, 5)),
    BorderSpec(1, 4, 4, 9, 1, 1, 1, 1, StridedView(36 * 9, 6 * 9, 9), "float32"),
    BorderSpec(2, 7, 7, 192, 1, 1, 1, 1, StridedView(81 * 192, 9 * 192, 192)),
    BorderSpec(1, 9, 4, 250, 2, 1, 1, 3, StridedView(12 * 2100, 2100, 250)),
    BorderSpec(1, 5, 6, 400, 2, 1, 1, 1, StridedView(8 * 8 * 410, 8 * 410, 410)),
]


@pytest.mark.parametrize("level", every_level())
def test_copy_moves_every_element(level: str) -> None:
    rng, cases, expected = np.random.default_rng(3), [], []
    for spec in COPIES:
        dense = dense_strides(spec.shape)
        source, target = spec.x_strides or dense, spec.out_strides or dense
        x = (
            rng.integers(0, 256, (extent(spec.shape, source), spec.element))
            .astype("uint8")
            .view(spec.dtype)
            .reshape(-1)
        )
        out = np.full(extent(spec.shape, target) + 3, 77, spec.dtype)
        wanted = out.copy()
        strided(wanted, spec.shape, target)[...] = strided(x, spec.shape, source)
        cases.append(Case(spec, {"x": x, "out": out}))
        expected.append(wanted)
    for case, result, wanted in zip(cases, run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")


@pytest.mark.parametrize("level", every_level())
def test_border_fills_nothing_else(level: str) -> None:
    isa, cases, expected = ISAS[level], [], []
    for spec in BORDERS:
        dtype = isa.act_dtype if spec.dtype == "act" else "float32"
        rows, columns = spec.top + spec.height + spec.bottom, spec.left + spec.width + spec.right
        out = np.full(spec.batch * spec.image.batch + spec.image.offset, 77, dtype)
        wanted = out.copy()
        seen = view(wanted, spec.image, (spec.batch, rows, columns, spec.channels))
        inner = seen[:, spec.top : spec.top + spec.height, spec.left : spec.left + spec.width].copy()
        seen[...] = 5
        seen[:, spec.top : spec.top + spec.height, spec.left : spec.left + spec.width] = inner
        cases.append(Case(spec, {"out": out, **spec.pack(isa, value=np.array(5))}, splits=3))
        expected.append(wanted)
    assert max(spec.parts for spec in BORDERS) > 3
    for case, result, wanted in zip(cases, run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")
