"""The quantize kernel beside its definition, on every ISA level."""

from __future__ import annotations

import numpy as np
import pytest
from kernels.harness import Array, Case, run_kernels
from kernels.levels import every_level
from octavo.backends.tvm.isa import ISAS, Isa
from octavo.backends.tvm.kernels.quantize import QuantizeSpec


def _expected(x: Array, scale: float, zero_point: int, isa: Isa) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        t = x / np.float32(scale)
    t = np.where(np.isnan(t), np.float32(0), t)
    t = np.clip(t, isa.act_min - zero_point, isa.act_max - zero_point)
    return (np.rint(t).astype("int64") + zero_point).astype(isa.act_dtype)


@pytest.mark.parametrize("level", every_level())
def test_quantize_equals_its_definition(level: str) -> None:
    isa = ISAS[level]
    rng = np.random.default_rng(7)
    cases, expected = [], []
    for count, scale, shift in [(1, 0.1, 0), (37, 0.5, 3), (4096, 0.031, -128), (10007, 0.02, 127)]:
        x = rng.normal(0, 3, count).astype("float32")
        special = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 0.25, 0.75, -0.25], "float32")
        x[: min(8, count - 1)] = special[: min(8, count - 1)]
        spec = QuantizeSpec(count)
        zero_point = shift + isa.act_offset
        packed = spec.pack(isa, scale=np.array(scale, "float32"), zero_point=np.array(zero_point))
        cases.append(Case(spec, {"x": x, "out": np.zeros(count, isa.act_dtype), **packed}))
        expected.append(_expected(x, scale, zero_point, isa))
    for result, wanted in zip(run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted)
