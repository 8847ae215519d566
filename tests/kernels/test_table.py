"""Table lookups beside their definition, on every ISA level."""

from __future__ import annotations

import numpy as np
import pytest
from kernels.harness import Case, run_kernels
from kernels.levels import every_level
from kernels.quantized import logical, random_stored, stored
from kernels.strided_cases import extent, gapped, strided
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels.strided import dense_strides
from octavo.backends.tvm.kernels.table import TableSpec

CASES = [
    TableSpec((5000,)),
    TableSpec((3,)),
    TableSpec((4, 5, 70), gapped((4, 5, 70), 3), gapped((4, 5, 70), 9)),
    TableSpec((6, 7, 5), (35, 1, 7)),
    TableSpec((1001,), out="f32"),
    TableSpec((6, 13), (1, 6), out="f32"),
]


@pytest.mark.parametrize("level", every_level())
def test_table_equals_its_definition(level: str) -> None:
    isa, rng = ISAS[level], np.random.default_rng(29)
    cases, expected = [], []
    for spec in CASES:
        dense = dense_strides(spec.shape)
        source, target = spec.x_strides or dense, spec.out_strides or dense
        x = random_stored(rng, isa, extent(spec.shape, source))
        if spec.shape == (5000,):
            x[:256] = (np.arange(256) + isa.act_min).astype(isa.act_dtype)
        byte = spec.out == "byte"
        table = rng.integers(-128, 128, 256).astype("int8") if byte else rng.normal(0, 1, 256).astype("float32")
        exact = table[logical(strided(x, spec.shape, source), isa).astype("int64") + 128]
        out = np.full(extent(spec.shape, target) + 3, 77, isa.act_dtype if byte else "float32")
        wanted = out.copy()
        strided(wanted, spec.shape, target)[...] = stored(exact, isa) if byte else exact
        cases.append(Case(spec, {"x": x, "out": out, **spec.pack(isa, table=table)}))
        expected.append(wanted)
    for case, result, wanted in zip(cases, run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")
