"""Where extreme elements are, on every ISA level."""

from __future__ import annotations

import numpy as np
import pytest
from kernels.harness import Array, Case, run_kernels
from kernels.levels import every_level
from kernels.quantized import random_stored
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels.argmax import ArgMaxSpec

CASES = [
    ArgMaxSpec((3, 1000), 1),
    ArgMaxSpec((2, 9, 5), 1, "float32"),
    ArgMaxSpec((2, 9, 5), 1, "float32", smallest=True),
    ArgMaxSpec((4, 40), -1, "int64", last=True),
    ArgMaxSpec((4, 40), 0, "int32", smallest=True, last=True),
    ArgMaxSpec((500,), 0),
]


@pytest.mark.parametrize("level", every_level())
def test_argmax_finds_the_place(level: str) -> None:
    isa, rng, cases, expected = ISAS[level], np.random.default_rng(79), [], []
    for spec in CASES:
        count = int(np.prod(spec.shape))
        x: Array = random_stored(rng, isa, count) if spec.dtype == "act" else rng.integers(-9, 9, count)
        x = x.reshape(spec.shape).astype(isa.act_dtype if spec.dtype == "act" else spec.dtype)
        seen = np.flip(x, spec.axis) if spec.last else x
        place = (np.argmin if spec.smallest else np.argmax)(seen, axis=spec.axis)
        wanted = np.asarray(x.shape[spec.axis] - 1 - place if spec.last else place).reshape(-1)
        cases.append(Case(spec, {"x": x, "out": np.full(wanted.size, 77, "int64")}))
        expected.append(wanted)
    for case, result, wanted in zip(cases, run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")
