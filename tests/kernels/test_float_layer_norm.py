"""Float layer norm kernels: their stated order of operations to the bit, on every ISA level."""

from __future__ import annotations

import numpy as np
import pytest
from kernels.harness import Array, Case, run_kernels
from kernels.levels import every_level
from kernels.quantized import logical, random_quant, random_stored, stored, zero_of
from kernels.strided_cases import extent, strided
from octavo.backends.tvm.isa import ISAS, Isa
from octavo.backends.tvm.kernels.float_layer_norm import FloatLayerNormSpec
from octavo.backends.tvm.kernels.strided import dense_strides

CASES = [
    FloatLayerNormSpec((5,), 384),
    FloatLayerNormSpec((2, 3), 70, (300, 75), (290, 90)),
    FloatLayerNormSpec((3, 11), 70, (900, 75), (1000, 90), x="byte", out="byte"),
    FloatLayerNormSpec((4,), 9, x="byte", out="byte"),
    FloatLayerNormSpec((7,), 48, x="byte"),
    FloatLayerNormSpec((3,), 200, out="byte"),
    FloatLayerNormSpec((2,), 3001, x="byte", out="byte", affine=False),
    FloatLayerNormSpec((2, 2), 64, affine=False),
    FloatLayerNormSpec((), 129),
]
EPSILON = np.float32(1e-5)


def lane_mean(values: Array) -> Array:
    """Means of the last axis in 64 lanes, halved until one is left."""
    count = values.shape[-1]
    lanes = np.zeros((*values.shape[:-1], 64), "float32")
    for at in range(0, count, 64):
        part = values[..., at : at + 64]
        lanes[..., : part.shape[-1]] += part
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    mean: Array = lanes / np.float32(count)
    return mean


def normalized(values: Array, gain: Array, shift: Array) -> Array:
    deviation = values - lane_mean(values)
    variance = lane_mean(deviation * deviation)
    result: Array = deviation * (np.float32(1) / np.sqrt(variance + EPSILON)) * gain + shift
    return result


def norm_case(spec: FloatLayerNormSpec, isa: Isa, rng: np.random.Generator) -> tuple[Case, Array]:
    shape = (*spec.rows, spec.length)
    dense = tuple(spec.length * stride for stride in dense_strides(spec.rows))
    source, target = ((*(strides or dense), 1) for strides in (spec.x_strides, spec.out_strides))
    quant, grid = random_quant(rng), random_quant(rng)
    arrays: dict[str, Array] = {"epsilon": np.array(EPSILON)}
    if spec.affine:
        arrays |= {name: rng.normal(0, 1, spec.length).astype("float32") for name in ("gain", "shift")}
    if spec.x == "byte":
        x = random_stored(rng, isa, extent(shape, source))
        arrays |= {"x_zero_point": zero_of(quant, isa), "x_scale": np.array(np.float32(quant.scale[0]))}
        bytes_seen = logical(strided(x, shape, source), isa)
        values = (bytes_seen.astype("float32") - quant.zero_point[0]) * np.float32(quant.scale[0])
    else:
        x = rng.normal(3, 2, extent(shape, source)).astype("float32")
        values = strided(x, shape, source)
    plain = np.ones(spec.length, "float32"), np.zeros(spec.length, "float32")
    exact = normalized(values, arrays.get("gain", plain[0]), arrays.get("shift", plain[1]))
    if spec.out == "byte":
        scale, zero = np.float32(grid.scale[0]), grid.zero_point[0]
        arrays |= {"out_scale": np.array(scale), "zero_point": zero_of(grid, isa)}
        exact = stored(np.rint(np.clip(exact / scale, -128 - zero, 127 - zero)) + zero, isa)
    out = np.full(extent(shape, target) + 3, 77, isa.act_dtype if spec.out == "byte" else "float32")
    wanted = out.copy()
    strided(wanted, shape, target)[...] = exact
    return Case(spec, {"x": x, "out": out, **spec.pack(isa, **arrays)}), wanted


@pytest.mark.parametrize("level", every_level())
def test_float_layer_norm_takes_the_stated_order(level: str) -> None:
    isa, rng = ISAS[level], np.random.default_rng(43)
    cases, expected = zip(*[norm_case(spec, isa, rng) for spec in CASES], strict=True)
    for case, result, wanted in zip(cases, run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")


@pytest.mark.parametrize("level", every_level())
def test_a_row_without_numbers_quantizes_to_the_zero_point(level: str) -> None:
    isa, spec = ISAS[level], FloatLayerNormSpec((2,), 40, out="byte")
    x = np.random.default_rng(47).normal(0, 1, (2, 40)).astype("float32")
    x[1, 7] = np.nan
    quant = random_quant(np.random.default_rng(53))
    arrays = {"gain": np.ones(40, "float32"), "out_scale": np.array(np.float32(0.02)), "epsilon": np.array(EPSILON)}
    constants = spec.pack(isa, zero_point=zero_of(quant, isa), **arrays)
    case = Case(spec, {"x": x.reshape(-1), "out": np.zeros(80, isa.act_dtype), **constants})
    (result,) = run_kernels([case], level)
    assert (result["out"].reshape(2, 40)[1] == zero_of(quant, isa)).all()
    assert (result["out"].reshape(2, 40)[0] != zero_of(quant, isa)).any()
