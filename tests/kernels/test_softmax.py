"""Softmax kernels beside their exact definition, on every ISA level."""

from __future__ import annotations

import numpy as np
import pytest
from kernels.harness import Array, Case, run_kernels
from kernels.levels import every_level
from kernels.quantized import logical, random_stored, stored, zero_of
from kernels.strided_cases import extent, gapped, strided
from octavo.backends.tvm.isa import ISAS, Isa
from octavo.backends.tvm.kernels.softmax import SoftmaxSpec
from octavo.backends.tvm.kernels.strided import dense_strides
from octavo.ir.constants import Tensor
from octavo.ir.errors import ModelError
from octavo.ir.ops.integer import QSoftmax, multiplier
from octavo.ir.types import DType, TensorType, per_tensor

CASES = [
    SoftmaxSpec((2, 5, 128), 2),
    SoftmaxSpec((3, 77), 1),
    SoftmaxSpec((4, 9), 1),
    SoftmaxSpec((1, 1000), 1, out="f32"),
    SoftmaxSpec((2, 3, 70), 2, gapped((2, 3, 70), 5), gapped((2, 3, 70), 2)),
    SoftmaxSpec((2, 11, 6), 1),
    SoftmaxSpec((2, 6, 90), 1, out="f32"),
    SoftmaxSpec((5,), 0),
]


def softmax_case(spec: SoftmaxSpec, isa: Isa, rng: np.random.Generator) -> tuple[Case, Array]:
    dense = dense_strides(spec.shape)
    source, target = spec.x_strides or dense, spec.out_strides or dense
    x = random_stored(rng, isa, extent(spec.shape, source))
    quant, out_quant = per_tensor(float(rng.uniform(0.01, 0.2)), 3), per_tensor(1 / 256, -128)
    op = QSoftmax(spec.axis, QSoftmax.table(quant.scale[0], spec.length), out_quant if spec.out == "byte" else None)
    exact: Array = op.exact([TensorType(DType.I8, spec.shape, quant)], logical(strided(x, spec.shape, source), isa))
    arrays: dict[str, Array] = {"exponentials": op.exponentials.numpy()}
    if op.out is not None:
        arrays |= {"zero_point": zero_of(op.out, isa), "factor": np.array(multiplier([], op.out)[0])}
        exact = stored(exact, isa)
    out = np.full(extent(spec.shape, target) + 3, 77, "float32" if op.out is None else isa.act_dtype)
    wanted = out.copy()
    strided(wanted, spec.shape, target)[...] = exact
    return Case(spec, {"x": x, "out": out, **spec.pack(isa, **arrays)}), wanted


@pytest.mark.parametrize("level", every_level())
def test_softmax_equals_its_definition(level: str) -> None:
    isa, rng = ISAS[level], np.random.default_rng(31)
    cases, expected = zip(*[softmax_case(spec, isa, rng) for spec in CASES], strict=True)
    for case, result, wanted in zip(cases, run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")


@pytest.mark.parametrize("entry", [-1, (1 << 23) + 1])
def test_exponentials_that_three_bytes_do_not_hold_are_refused(entry: int) -> None:
    table = QSoftmax.table(0.1, 40).numpy().copy()
    table[0] = entry
    with pytest.raises(ModelError, match="exponentials from 0 to"):
        QSoftmax(1, Tensor.of(table)).infer(TensorType(DType.I8, (2, 40), per_tensor(0.1, 0)))
