"""Conversions and broadcast arithmetic beside their exact definitions, on every ISA level."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from kernels.harness import Array, Case, run_kernels
from kernels.levels import every_level
from kernels.quantized import logical, random_quant, random_stored, stored, zero_of
from kernels.strided_cases import extent, gapped, strided
from octavo.backends.tvm.isa import ISAS, Isa
from octavo.backends.tvm.kernels.elementwise import BinaryOp, BinarySpec
from octavo.backends.tvm.kernels.epilogue import Epilogue
from octavo.backends.tvm.kernels.strided import dense_strides
from octavo.backends.tvm.kernels.unary import UnarySpec
from octavo.ir.ops.integer import QAdd, QMul, QSub, Requantize, multiplier
from octavo.ir.ops.quantize import Dequantize, Quantize
from octavo.ir.types import DType, QuantParams, TensorType, per_tensor

BINARY: dict[str, type[QAdd | QSub | QMul]] = {"add": QAdd, "sub": QSub, "mul": QMul}
BINARIES = [
    *(BinarySpec(op, (2, 7, 7, 24)) for op in ("add", "sub", "mul")),
    BinarySpec("add", (1, 10007)),
    BinarySpec("add", (1,)),
    BinarySpec("mul", (1, 9, 5, 70), b_strides=(70, 0, 0, 1)),
    BinarySpec("mul", (2, 33, 40), b_strides=(33, 1, 0), a_strides=gapped((2, 33, 40), 3)),
    *(BinarySpec(op, (49, 144), b_strides=(0, 1)) for op in ("mul", "sub")),
    BinarySpec("mul", (21, 40), a_strides=(0, 1), out_strides=(43, 1)),
    BinarySpec("add", (5, 70), b_strides=(0, 0), out_strides=(75, 1)),
    BinarySpec("sub", (4, 6, 5), (1, 4, 24), (30, 1, 6)),
    BinarySpec("add", (3, 90), epilogue=Epilogue("f32")),
    BinarySpec("mul", (3, 17), b_strides=(1, 0), epilogue=Epilogue("f32")),
]
UNARIES = [
    *(
        UnarySpec(op, shape)
        for op in ("quantize", "dequantize", "requantize", "clamp", "flip")
        for shape in [(4500,), (3,)]
    ),
    *(
        UnarySpec(op, (2, 5, 70), gapped((2, 5, 70), 6), gapped((2, 5, 70), 1))
        for op in ("quantize", "dequantize", "requantize", "clamp", "flip")
    ),
    UnarySpec("quantize", (1, 8, 37, 3), (888, 37, 1, 296), (1000, 117, 3, 1)),
    UnarySpec("quantize", (2, 2, 3, 11), (66, 33, 11, 1), (66, 1, 22, 2)),
    UnarySpec("quantize", (2, 4, 50, 40), out_strides=(8000, 1, 160, 4)),
    UnarySpec("quantize", (3, 4, 5), out_strides=(20, 1, 4)),
    *(UnarySpec(op, (3, 4, 5), (20, 1, 4)) for op in ("quantize", "dequantize", "requantize", "clamp", "flip")),
]


def _bounds(rng: np.random.Generator, out: QuantParams) -> tuple[tuple[float, float] | None, dict[str, Array]]:
    if rng.random() < 0.5:
        return None, {}
    low, high = sorted(int(v) for v in rng.integers(-128, 128, 2))
    zero = out.zero_point[0]
    return (low, high), {"lo": np.array(low - zero), "hi": np.array(high - zero)}


def binary_case(spec: BinarySpec, isa: Isa, rng: np.random.Generator) -> tuple[Case, Array]:
    dense = dense_strides(spec.shape)
    places = [strides or dense for strides in (spec.a_strides, spec.b_strides, spec.out_strides)]
    a, b = (random_stored(rng, isa, extent(spec.shape, place)) for place in places[:2])
    qa, qb, qo = (random_quant(rng) for _ in range(3))
    if spec.op == "mul":
        qo = per_tensor(qa.scale[0] * qb.scale[0] * 40, qo.zero_point[0])
    target = qo if spec.epilogue.out == "byte" else None
    clamp, bounds = _bounds(rng, qo)
    if spec.epilogue.out == "f32":
        clamp, bounds = (-0.25, 0.5), {"lo": np.array(-0.25, "float32"), "hi": np.array(0.5, "float32")}
    arrays: dict[str, Any] = {"a_zero_point": zero_of(qa, isa), "b_zero_point": zero_of(qb, isa), **bounds}
    if spec.op == "mul":
        arrays["multiplier"] = multiplier([qa, qb], target)[0]
    else:
        arrays |= {"a_multiplier": multiplier([qa], target)[0], "b_multiplier": multiplier([qb], target)[0]}
    if target is not None:
        arrays["zero_point"] = zero_of(target, isa)
    spec = spec.fitted(isa, arrays)
    out = np.full(extent(spec.shape, places[2]) + 5, 77, isa.act_dtype if target else "float32")
    wanted = out.copy()
    types = [TensorType(DType.I8, spec.shape, quant) for quant in (qa, qb)]
    operands = [logical(strided(flat, spec.shape, place), isa) for flat, place in zip((a, b), places, strict=False)]
    exact: Array = BINARY[spec.op](clamp, target).exact(types, *operands)
    strided(wanted, spec.shape, places[2])[...] = stored(exact, isa) if target else exact
    return Case(spec, {"a": a, "b": b, "out": out, **spec.pack(isa, **arrays)}), wanted


def unary_case(spec: UnarySpec, isa: Isa, rng: np.random.Generator) -> tuple[Case, Array]:
    dense = dense_strides(spec.shape)
    source, target = spec.x_strides or dense, spec.out_strides or dense
    x = random_stored(rng, isa, extent(spec.shape, source))
    if spec.op == "quantize":
        x = rng.normal(0, 3, x.size).astype("float32")
        x[: min(5, x.size)] = [np.nan, np.inf, -np.inf, 1e30, -1e30][: x.size]
    seen = strided(x, spec.shape, source)
    qx, qo = random_quant(rng), random_quant(rng)
    kind = TensorType(DType.I8, spec.shape, qx)
    arrays: dict[str, Any] = {"x_zero_point": zero_of(qx, isa), "zero_point": zero_of(qo, isa)}
    if spec.op == "quantize":
        with np.errstate(over="ignore", invalid="ignore"):
            exact = stored(Quantize(DType.I8, qo).exact([], seen), isa)
        arrays["scale"] = np.float32(qo.scale[0])
    elif spec.op == "dequantize":
        exact = Dequantize().exact([kind], logical(seen, isa))
        arrays["scale"] = np.float32(qx.scale[0])
    elif spec.op == "requantize":
        exact = stored(Requantize(qo).exact([kind], logical(seen, isa)), isa)
        arrays["multiplier"] = multiplier([qx], qo)[0]
    elif spec.op == "clamp":
        low, high = isa.act_min + 30, isa.act_max - 70
        exact, arrays = np.clip(seen, low, high), {"lo": np.array(low), "hi": np.array(high)}
    else:
        exact = (seen.view("uint8") ^ 0x80).view(seen.dtype)
    out = np.full(extent(spec.shape, target) + 5, 77, exact.dtype)
    wanted = out.copy()
    strided(wanted, spec.shape, target)[...] = exact
    return Case(spec, {"x": x, "out": out, **spec.pack(isa, **arrays)}), wanted


def drawn_binary(rng: np.random.Generator) -> BinarySpec:
    """Operands that lie in any order of axes, some broadcast along some of them."""
    shape = tuple(int(rng.choice([1, 2, 3, 5, 17, 40, 70])) for _ in range(int(rng.integers(1, 5))))

    def strides(gap: int, constant: float) -> tuple[int, ...]:
        found, step = [0] * len(shape), 1
        for axis in rng.permutation(len(shape)) if rng.random() < 0.4 else reversed(range(len(shape))):
            if rng.random() >= constant:
                found[axis] = step
                step = step * shape[axis] + gap
        return tuple(found)

    gap = int(rng.integers(0, 4))
    op: BinaryOp = ("add", "sub", "mul")[int(rng.integers(3))]
    out: Literal["byte", "f32"] = "f32" if rng.random() < 0.2 else "byte"
    return BinarySpec(op, shape, strides(gap, 0.2), strides(gap, 0.3), strides(gap, 0), Epilogue(out))


@pytest.mark.parametrize("level", every_level())
def test_broadcast_arithmetic_equals_its_definition(level: str) -> None:
    isa, rng = ISAS[level], np.random.default_rng(11)
    specs = [*BINARIES, *(drawn_binary(rng) for _ in range(20))]
    cases, expected = zip(*[binary_case(spec, isa, rng) for spec in specs], strict=True)
    for case, result, wanted in zip(cases, run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")


@pytest.mark.parametrize("level", every_level())
def test_conversions_equal_their_definition(level: str) -> None:
    isa, rng = ISAS[level], np.random.default_rng(12)
    cases, expected = zip(*[unary_case(spec, isa, rng) for spec in UNARIES], strict=True)
    for case, result, wanted in zip(cases, run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")
