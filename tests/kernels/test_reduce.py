"""Means of bytes beside their exact definition, on every ISA level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernels.harness import Array, Case, run_kernels
from kernels.levels import every_level
from kernels.quantized import logical, random_quant, random_stored, stored, zero_of
from kernels.strided_cases import extent, strided
from octavo.backends.tvm.isa import ISAS, Isa
from octavo.backends.tvm.kernels.reduce import ReduceMeanSpec
from octavo.backends.tvm.kernels.strided import dense_strides
from octavo.ir.ops.integer import QReduceMean, multiplier
from octavo.ir.types import DType, TensorType

CASES = [
    ReduceMeanSpec((1, 7, 7, 130), (1, 2)),
    ReduceMeanSpec((2, 5, 6, 19), (1, 2), (1000, 140, 21, 1), (25, 1)),
    ReduceMeanSpec((3, 9, 70), (2,)),
    ReduceMeanSpec((3, 9, 7), (2,)),
    ReduceMeanSpec((2, 4, 5, 6), (0, 2)),
    ReduceMeanSpec((2, 6, 33), (0, 1, 2)),
    ReduceMeanSpec((2, 8, 40), (1,), out="f32"),
    ReduceMeanSpec((40, 3, 17), (2, 0), out="f32"),
]


def mean_case(spec: ReduceMeanSpec, isa: Isa, rng: np.random.Generator) -> tuple[Case, Array]:
    source = spec.x_strides or dense_strides(spec.shape)
    x = random_stored(rng, isa, extent(spec.shape, source))
    seen = logical(strided(x, spec.shape, source), isa)
    quant, out_quant = random_quant(rng), random_quant(rng)
    target = out_quant if spec.out == "byte" else None
    axes = tuple(sorted(spec.axes))
    exact: Array = QReduceMean(axes, False, target).exact([TensorType(DType.I8, spec.shape, quant)], seen)
    shape = exact.shape
    place = spec.out_strides or dense_strides(shape)
    arrays: dict[str, Any] = {
        "x_zero_point": zero_of(quant, isa),
        "zero_point": zero_of(out_quant, isa),
        "multiplier": multiplier([quant], target, spec.count)[0],
    }
    out = np.full(extent(shape, place) + 5, 77, isa.act_dtype if target else "float32")
    wanted = out.copy()
    strided(wanted, shape, place)[...] = stored(exact, isa) if target else exact
    return Case(spec, {"x": x, "out": out, **spec.pack(isa, **arrays)}), wanted


@pytest.mark.parametrize("level", every_level())
def test_mean_equals_its_definition(level: str) -> None:
    isa, rng = ISAS[level], np.random.default_rng(13)
    cases, expected = zip(*[mean_case(spec, isa, rng) for spec in CASES], strict=True)
    for case, result, wanted in zip(cases, run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")
