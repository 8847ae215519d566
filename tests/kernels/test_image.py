"""Quantizing NCHW images to NHWC bytes, on every ISA level."""

from __future__ import annotations

import numpy as np
import pytest
from kernels.harness import Case, run_kernels
from kernels.levels import every_level
from kernels.quantized import random_quant, stored, zero_of
from kernels.reference import view
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels.base import StridedView
from octavo.backends.tvm.kernels.image import QuantizeImageSpec
from octavo.ir.ops.quantize import Quantize
from octavo.ir.types import DType

CASES = [
    QuantizeImageSpec(1, 3, 8, 37, StridedView(8 * 39 * 3, 39 * 3, 3, 4)),
    QuantizeImageSpec(2, 1, 5, 16, StridedView.dense(5, 16, 1)),
    QuantizeImageSpec(1, 2, 3, 20, StridedView.dense(3, 20, 2)),
    QuantizeImageSpec(1, 4, 4, 18, StridedView.dense(4, 18, 4)),
    QuantizeImageSpec(2, 3, 4, 5, StridedView.dense(4, 5, 3)),
    QuantizeImageSpec(1, 3, 4, 19, StridedView(4 * 19 * 4, 19 * 4, 4)),
    QuantizeImageSpec(1, 7, 3, 21, StridedView.dense(3, 21, 7)),
]


@pytest.mark.parametrize("level", every_level())
def test_image_equals_quantize(level: str) -> None:
    isa, rng = ISAS[level], np.random.default_rng(17)
    cases, expected = [], []
    for spec in CASES:
        x = rng.normal(0, 2, (spec.batch, spec.channels, spec.height, spec.width)).astype("float32")
        x[0, 0, 0, :3] = [np.nan, np.inf, -1e30]
        quant = random_quant(rng)
        with np.errstate(over="ignore"):
            exact = stored(Quantize(DType.I8, quant).exact([], x), isa)
        out = np.full(spec.batch * spec.output.batch + spec.output.offset + 3, 77, isa.act_dtype)
        wanted = out.copy()
        view(wanted, spec.output, (spec.batch, spec.height, spec.width, spec.channels))[...] = exact.transpose(
            0, 2, 3, 1
        )
        packed = spec.pack(isa, scale=np.array(quant.scale[0], "float32"), zero_point=zero_of(quant, isa))
        cases.append(Case(spec, {"x": x, "out": out, **packed}))
        expected.append(wanted)
    for case, result, wanted in zip(cases, run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")
