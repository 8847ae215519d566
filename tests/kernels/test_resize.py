"""Resampling and gathering kernels beside their exact definitions, on every ISA level."""

from __future__ import annotations

import numpy as np
import pytest
from kernels.harness import Array, Case, run_kernels
from kernels.levels import every_level
from kernels.quantized import logical, random_quant, random_stored, stored, zero_of
from kernels.reference import view
from octavo.backends.tvm.isa import ISAS, Isa
from octavo.backends.tvm.kernels.base import StridedView
from octavo.backends.tvm.kernels.gather import GatherSpec
from octavo.backends.tvm.kernels.resize import BilinearSpec, FloatLinearSpec, NearestSpec
from octavo.ir.ops.integer import QResize, multiplier
from octavo.ir.types import DType, TensorType

NEAREST = [
    NearestSpec(1, 6, 8, 64, 1, StridedView.dense(3, 4, 64), StridedView.dense(6, 8, 64)),
    NearestSpec(2, 5, 7, 19, 1, StridedView(3 * 4 * 21, 4 * 21, 21, 1), StridedView(5 * 7 * 23, 7 * 23, 23, 2)),
    NearestSpec(1, 4, 4, 3, 4, StridedView.dense(2, 9, 3), StridedView.dense(4, 4, 3)),
    NearestSpec(1, 4, 4, 300, 2, StridedView.dense(2, 2, 300), StridedView.dense(4, 4, 300)),
]


@pytest.mark.parametrize("level", every_level())
def test_nearest_picks_pixels(level: str) -> None:
    rng, cases, expected = np.random.default_rng(41), [], []
    for spec in NEAREST:
        height, width = spec.input.batch // spec.input.row, spec.input.row // spec.input.pixel
        dtype = f"int{8 * spec.element}" if spec.element > 1 else "uint8"
        x = rng.integers(0, 256, spec.batch * spec.input.batch + spec.input.offset).astype(dtype)
        rows, columns = rng.integers(0, height, spec.out_h), rng.integers(0, width, spec.out_w)
        seen = view(x, spec.input, (spec.batch, height, width, spec.channels))
        out = np.full(spec.batch * spec.output.batch + spec.output.offset, 77, dtype)
        wanted = out.copy()
        shape = (spec.batch, spec.out_h, spec.out_w, spec.channels)
        view(wanted, spec.output, shape)[...] = seen[:, rows][:, :, columns]
        cases.append(Case(spec, {"x": x, "out": out, **spec.pack(ISAS[level], rows=rows, columns=columns)}))
        expected.append(wanted)
    for case, result, wanted in zip(cases, run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")


def bilinear_case(op: QResize, shape: tuple[int, ...], isa: Isa, rng: np.random.Generator) -> tuple[Case, Array]:
    """`shape` is NCHW."""
    batch, channels, height, width = shape
    quant = random_quant(rng)
    x = random_stored(rng, isa, batch * channels * height * width).reshape(batch, height, width, channels)
    exact: Array = op.exact([TensorType(DType.I8, shape, quant)], logical(x, isa).transpose(0, 3, 1, 2))
    arrays: dict[str, Array] = {"x_zero_point": zero_of(quant, isa)}
    resampled = op.resampled(shape)
    for axis, name in ((2, "row"), (3, "column")):
        index = np.arange(op.size[axis])
        same = np.stack([index, index], 1), np.stack([np.ones_like(index), np.zeros_like(index)], 1)
        arrays[f"{name}s"], arrays[f"{name}_weights"] = op.taps(axis, shape[axis]) if axis in resampled else same
    arrays["multiplier"] = np.array(multiplier([quant], op.out, 2.0 ** (11 * len(resampled)))[0])
    out_h, out_w = op.size[2:]
    place = StridedView(out_h * out_w * (channels + 3), out_w * (channels + 3), channels + 3, 2)
    source = StridedView.dense(height, width, channels)
    spec = BilinearSpec(batch, out_h, out_w, channels, source, place, "f32" if op.out is None else "byte")
    if op.out is not None:
        arrays["zero_point"] = zero_of(op.out, isa)
        exact = stored(exact, isa)
    out = np.full(batch * place.batch + 2, 77, "float32" if op.out is None else isa.act_dtype)
    wanted = out.copy()
    view(wanted, place, (batch, out_h, out_w, channels))[...] = exact.transpose(0, 2, 3, 1)
    return Case(spec, {"x": x, "out": out, **spec.pack(isa, **arrays)}), wanted


@pytest.mark.parametrize("level", every_level())
def test_bilinear_equals_its_definition(level: str) -> None:
    isa, rng = ISAS[level], np.random.default_rng(43)
    resizes = [
        (QResize((1, 64, 10, 12), (1, 1, 0.5, 0.5), (0, 0, -0.25, -0.25), random_quant(rng)), (1, 64, 5, 6)),
        (QResize((2, 19, 7, 5), (1, 1, 0.7, 1.2), (0, 0, 0.1, 0.0), random_quant(rng)), (2, 19, 5, 6)),
        (QResize((1, 130, 4, 9), (1, 1, 1, 0.5), (0, 0, 0, 0.0), random_quant(rng)), (1, 130, 4, 5)),
        (QResize((1, 5, 9, 4), (1, 1, 0.5, 1), (0, 0, 0.25, 0.0)), (1, 5, 5, 4)),
    ]
    cases, expected = zip(*[bilinear_case(op, shape, isa, rng) for op, shape in resizes], strict=True)
    for case, result, wanted in zip(cases, run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")


def linear_case(channels: int, rng: np.random.Generator) -> tuple[Case, Array]:
    """Float32 in the order that the specification states."""
    source, target = StridedView.dense(4, 6, channels), StridedView(7 * 100 * 9, 9 * 100, 100, 2)
    spec = FloatLinearSpec(2, 7, 9, channels, source, target)
    x: Array = rng.normal(0, 1, (2, 4, 6, channels)).astype("float32")
    rows, columns = rng.integers(0, 4, (7, 2)), rng.integers(0, 6, (9, 2))
    row_weights, column_weights = (rng.uniform(0, 1, (size, 2)).astype("float32") for size in (7, 9))
    parts = x[:, rows][:, :, :, columns]
    mixed = parts[:, :, :, :, 0] * column_weights[:, :1] + parts[:, :, :, :, 1] * column_weights[:, 1:]
    exact = mixed[:, :, 0] * row_weights[:, :1, None] + mixed[:, :, 1] * row_weights[:, 1:, None]
    out = np.full(2 * target.batch, 77, "float32")
    wanted = out.copy()
    view(wanted, target, (2, 7, 9, channels))[...] = exact
    tables = {"rows": rows, "columns": columns, "row_weights": row_weights, "column_weights": column_weights}
    return Case(spec, {"x": x, "out": out, **spec.pack(ISAS["avx2"], **tables)}), wanted


@pytest.mark.parametrize("level", every_level())
def test_float_linear_takes_the_stated_order(level: str) -> None:
    rng = np.random.default_rng(73)
    cases, expected = zip(*[linear_case(channels, rng) for channels in (5, 64, 37)], strict=True)
    for case, result, wanted in zip(cases, run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")


GATHERS = [
    GatherSpec(1, 1, 50, 20, 384),
    GatherSpec(4, 1, 50, 20, 37, "int32"),
    GatherSpec(2, 3, 5, 7, 1, "int32"),
    GatherSpec(8, 2, 4, 9, 3, "int64", (20, 4), (40, 4)),
]


@pytest.mark.parametrize("level", every_level())
def test_gather_picks_rows(level: str) -> None:
    rng, cases, expected = np.random.default_rng(47), [], []
    for spec in GATHERS:
        dtype = spec.args[0].dtype
        source = spec.x_strides or (spec.size * spec.inner, spec.inner)
        target = spec.out_strides or (spec.count * spec.inner, spec.inner)
        x = rng.integers(0, 100, spec.outer * source[0]).astype(dtype)
        indices = rng.integers(-spec.size, spec.size, spec.count).astype(spec.index)
        out = np.full(spec.outer * target[0] + 3, 77, dtype)
        wanted = out.copy()
        for outer in range(spec.outer):
            for position, index in enumerate(indices):
                start, place = (
                    outer * source[0] + (index % spec.size) * source[1],
                    outer * target[0] + position * target[1],
                )
                wanted[place : place + spec.inner] = x[start : start + spec.inner]
        cases.append(Case(spec, {"x": x, "indices": indices, "out": out}))
        expected.append(wanted)
    for case, result, wanted in zip(cases, run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")
