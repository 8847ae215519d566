"""Float reductions, convolutions and matrix products: right, and the same bits on every ISA level."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from kernels.harness import Array, Case, run_kernels
from kernels.levels import every_level
from kernels.reference import view
from kernels.strided_cases import extent, strided
from octavo.backends.tvm.isa import ISAS, Isa
from octavo.backends.tvm.kernels.base import StridedView
from octavo.backends.tvm.kernels.float_conv import FloatConvSpec, FloatMatmulSpec
from octavo.backends.tvm.kernels.float_reduce import FloatReduceSpec, ReduceOp
from octavo.backends.tvm.kernels.strided import dense_strides

OPS: tuple[ReduceOp, ...] = ("sum", "mean", "max", "min")
REDUCTIONS = [
    *(FloatReduceSpec(op, (3, 5, 77), (2,)) for op in OPS),
    *(FloatReduceSpec(op, (2, 6, 7, 35), (1, 2)) for op in OPS),
    FloatReduceSpec("sum", (4, 9), (1,)),
    FloatReduceSpec("mean", (4, 3, 40), (0, 2)),
    FloatReduceSpec("sum", (500,), (0,)),
    FloatReduceSpec("max", (6, 5, 4), (1,), (1, 6, 30), (7, 1)),
]
DENSE = StridedView.dense
CONVS = [
    FloatConvSpec(1, 5, 8, 3, 40, DENSE(12, 18, 3), DENSE(5, 8, 40), 3, 3, 2, 2),
    FloatConvSpec(2, 4, 5, 7, 19, StridedView(1000, 63, 9, 1), StridedView(500, 110, 22, 2), 2, 3, 1, 1, 2, 1),
    FloatConvSpec(1, 3, 4, 5, 6, DENSE(3, 4, 15), DENSE(3, 4, 18), groups=3),
    FloatConvSpec(1, 4, 6, 1, 1, DENSE(6, 8, 37), DENSE(4, 6, 37), 3, 3, groups=37, residual=DENSE(4, 6, 37)),
    FloatConvSpec(1, 4, 6, 1, 1, DENSE(9, 13, 8), DENSE(4, 6, 8), 3, 3, 2, 2, groups=8),
    FloatConvSpec.linear(7, 50, 100),
    FloatConvSpec.linear(1, 33, 70, row_stride=40, out_stride=80),
]
MATMULS = [
    FloatMatmulSpec(3, 9, 20, 35),
    FloatMatmulSpec(2, 4, 7, 3, (40, 9), (0, 5), (30, 4)),
]


def _reduced(spec: FloatReduceSpec, x: Array) -> Array:
    """The definition: sixteen lanes over contiguous elements, or one sequential sum."""
    strides = spec.x_strides or dense_strides(spec.shape)
    seen = strided(x, spec.shape, strides)
    if spec.op in ("max", "min"):
        extreme: Array = (np.max if spec.op == "max" else np.min)(seen, axis=spec.axes)
        return extreme
    kept = [axis for axis in range(seen.ndim) if axis not in spec.axes]
    order = sorted(spec.axes, key=lambda axis: -strides[axis])
    rows = seen.transpose(*kept, *order).reshape(*(spec.shape[axis] for axis in kept), -1)
    if spec.along:
        length = spec.reduced.inner
        runs = rows.reshape(*rows.shape[:-1], -1, length)
        lanes = np.zeros((*rows.shape[:-1], 16), "float32")
        for run in range(runs.shape[-2]):
            for at in range(0, length, 16):
                part = runs[..., run, at : at + 16]
                lanes[..., : part.shape[-1]] += part
        width = 16
        while width > 1:
            width //= 2
            lanes = lanes[..., :width] + lanes[..., width:]
        total = lanes[..., 0]
    else:
        total = np.zeros(rows.shape[:-1], "float32")
        for at in range(rows.shape[-1]):
            total = total + rows[..., at]
    return total / np.float32(spec.count) if spec.op == "mean" else total


@pytest.mark.parametrize("level", every_level())
def test_reductions_take_the_stated_order(level: str) -> None:
    rng, cases, expected = np.random.default_rng(59), [], []
    for spec in REDUCTIONS:
        x: Array = rng.normal(0, 1, extent(spec.shape, spec.x_strides or dense_strides(spec.shape))).astype("float32")
        exact = np.asarray(_reduced(spec, x))
        place = spec.out_strides or dense_strides(exact.shape)
        out = np.full(extent(exact.shape, place) + 3, 77, "float32")
        wanted = out.copy()
        strided(wanted, exact.shape, place)[...] = exact
        cases.append(Case(spec, {"x": x, "out": out}))
        expected.append(wanted)
    for case, result, wanted in zip(cases, run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")


def conv_case(spec: FloatConvSpec, isa: Isa) -> tuple[Case, Array]:
    """A case and its result in float64, NaN where nothing may be stored."""
    rng = np.random.default_rng(61)
    channels = spec.groups * spec.out_channels
    weight = rng.normal(0, 1, (channels, spec.in_channels, spec.kernel_h, spec.kernel_w)).astype("float32")
    bias = rng.normal(0, 1, channels).astype("float32")
    height = (spec.out_h - 1) * spec.stride_h + (spec.kernel_h - 1) * spec.dilation_h + 1
    width = (spec.out_w - 1) * spec.stride_w + (spec.kernel_w - 1) * spec.dilation_w + 1
    shape = (spec.batch, height, width, spec.groups * spec.in_channels)
    strides = (spec.input.batch, spec.input.row, spec.input.pixel, 1)
    x = rng.normal(0, 1, spec.input.offset + extent(shape, strides)).astype("float32")
    image = view(x, spec.input, shape).astype("float64").reshape(*shape[:3], spec.groups, spec.in_channels)
    kernel = weight.reshape(spec.groups, spec.out_channels, spec.in_channels, spec.kernel_h, spec.kernel_w)
    total = np.zeros((spec.batch, spec.out_h, spec.out_w, spec.groups, spec.out_channels)) + bias.reshape(
        spec.groups, -1
    )
    for r in range(spec.kernel_h):
        for c in range(spec.kernel_w):
            part = image[:, r * spec.dilation_h :, c * spec.dilation_w :][:, :: spec.stride_h, :: spec.stride_w]
            total += np.einsum("nhwgi,goi->nhwgo", part[:, : spec.out_h, : spec.out_w], kernel[..., r, c])
    total = total.reshape(spec.batch, spec.out_h, spec.out_w, channels)
    buffers = {"x": x}
    if spec.residual is not None:
        buffers["residual"] = rng.normal(0, 1, total.size).astype("float32")
        total = total + buffers["residual"].reshape(total.shape)
    places = (spec.output.batch, spec.output.row, spec.output.pixel, 1)
    out = np.full(spec.output.offset + extent(total.shape, places) + 3, 77, "float32")
    wanted = np.full(out.shape, np.nan)
    view(wanted, spec.output, (spec.batch, spec.out_h, spec.out_w, channels))[...] = np.clip(total, -3, 4)
    packed = spec.pack(isa, weight=weight, bias=bias, lo=np.array(-3), hi=np.array(4))
    return Case(spec, {**buffers, **packed, "out": out}), wanted


def matmul_case(spec: FloatMatmulSpec) -> tuple[Case, Array]:
    rng = np.random.default_rng(67)
    shapes = [(spec.batch, spec.rows, spec.depth), (spec.batch, spec.depth, spec.columns)]
    shapes.append((spec.batch, spec.rows, spec.columns))
    given = (spec.x_strides, spec.y_strides, spec.out_strides)
    places = [(*pair, 1) if pair else dense_strides(shape) for pair, shape in zip(given, shapes, strict=True)]
    x, y, out = (rng.normal(0, 1, extent(*pair)).astype("float32") for pair in zip(shapes, places, strict=True))
    wanted = np.full(out.shape, np.nan)
    left, right = (strided(flat, *pair).astype("float64") for flat, *pair in zip((x, y), shapes, places, strict=False))
    strided(wanted, shapes[2], places[2])[...] = left @ right
    return Case(spec, {"x": x, "y": y, "out": out}), wanted


def _products(isa: Isa) -> list[tuple[Case, Array]]:
    return [*(conv_case(spec, isa) for spec in CONVS), *(matmul_case(spec) for spec in MATMULS)]


@functools.cache
def _bits() -> list[bytes]:
    return [r["out"].tobytes() for r in run_kernels([case for case, _ in _products(ISAS["avx2"])], "avx2")]


@pytest.mark.parametrize("level", every_level())
def test_products_are_right_and_the_same_everywhere(level: str) -> None:
    made = _products(ISAS[level])
    results = run_kernels([case for case, _ in made], level)
    for (case, wanted), result, bits in zip(made, results, _bits(), strict=True):
        stored = ~np.isnan(wanted)
        np.testing.assert_allclose(result["out"][stored], wanted[stored], 1e-4, 1e-4, err_msg=f"{level}: {case.spec}")
        np.testing.assert_array_equal(result["out"][~stored], np.asarray(case.arrays["out"])[~stored])
        assert result["out"].tobytes() == bits, f"{level}: {case.spec}"
