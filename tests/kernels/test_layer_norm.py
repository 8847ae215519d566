"""Layer norm kernels beside their exact definition, on every ISA level."""

from __future__ import annotations

import numpy as np
import pytest
from kernels.harness import Array, Case, run_kernels
from kernels.levels import every_level
from kernels.quantized import logical, random_quant, random_stored, stored, zero_of
from kernels.strided_cases import extent, strided
from octavo.backends.tvm.isa import ISAS, Isa
from octavo.backends.tvm.kernels.layer_norm import LayerNormSpec
from octavo.ir.constants import Tensor
from octavo.ir.ops.integer import QLayerNorm
from octavo.ir.types import DType, TensorType

CASES = [
    LayerNormSpec(5, 384),
    LayerNormSpec(3, 70, 75, 72),
    LayerNormSpec(4, 9),
    LayerNormSpec(1, 3001, out="f32"),
    LayerNormSpec(2, 64, out="f32"),
]


def norm_case(spec: LayerNormSpec, isa: Isa, rng: np.random.Generator) -> tuple[Case, Array]:
    shape = (spec.rows, spec.length)
    source, target = (spec.x_stride or spec.length, 1), (spec.out_stride or spec.length, 1)
    x = random_stored(rng, isa, extent(shape, source))
    strided(x, shape, source)[0] = isa.act_min + 9
    quant, out_quant = random_quant(rng), random_quant(rng)
    gain, shift = (rng.normal(0, 30, spec.length).astype("float32") for _ in range(2))
    op = QLayerNorm(1, 1e-5, Tensor.of(gain), Tensor.of(shift), out_quant if spec.out == "byte" else None)
    kind = TensorType(DType.I8, shape, quant)
    exact: Array = op.exact([kind], logical(strided(x, shape, source), isa))
    arrays: dict[str, Array] = {
        "gain": gain,
        "shift": shift,
        "bias": np.array(op.bias(kind)),
        "x_zero_point": zero_of(quant, isa),
    }
    if op.out is not None:
        arrays["zero_point"] = zero_of(op.out, isa)
        exact = stored(exact, isa)
    out = np.full(extent(shape, target) + 3, 77, "float32" if op.out is None else isa.act_dtype)
    wanted = out.copy()
    strided(wanted, shape, target)[...] = exact
    return Case(spec, {"x": x, "out": out, **spec.pack(isa, **arrays)}), wanted


@pytest.mark.parametrize("level", every_level())
def test_layer_norm_equals_its_definition(level: str) -> None:
    isa, rng = ISAS[level], np.random.default_rng(37)
    cases, expected = zip(*[norm_case(spec, isa, rng) for spec in CASES], strict=True)
    for case, result, wanted in zip(cases, run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")
