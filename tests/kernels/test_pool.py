"""Pooling kernels beside their exact definitions, on every ISA level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernels.harness import Array, Case, run_kernels
from kernels.levels import every_level
from kernels.quantized import logical, random_quant, random_stored, stored, zero_of
from kernels.reference import view
from octavo.backends.tvm.isa import ISAS, Isa
from octavo.backends.tvm.kernels.base import StridedView
from octavo.backends.tvm.kernels.pool import AvgPoolSpec, FloatAvgPoolSpec, MaxPoolSpec, Window
from octavo.ir.ops.integer import QAvgPool
from octavo.ir.types import DType, TensorType

WINDOWS = [
    (Window(1, 5, 6, 64, 3, 3, 2, 2), 0),
    (Window(2, 4, 5, 19, 2, 2, 2, 2), 3),
    (Window(1, 3, 3, 70, 3, 2, 1, 2, 2, 1), 1),
    (Window(1, 2, 3, 130, 6, 7), 0),
    (Window(1, 1, 9, 5, 1, 4, 1, 3), 2),
]


def _input(window: Window, gap: int) -> tuple[StridedView, tuple[int, int, int, int]]:
    height = (window.out_h - 1) * window.stride_h + (window.kernel_h - 1) * window.dilation_h + 1
    width = (window.out_w - 1) * window.stride_w + (window.kernel_w - 1) * window.dilation_w + 1
    pixel = window.channels + gap
    return StridedView(height * width * pixel, width * pixel, pixel, gap), (
        window.batch,
        height,
        width,
        window.channels,
    )


def _extent(place: StridedView, shape: tuple[int, int, int, int]) -> int:
    last = (shape[0] - 1) * place.batch + (shape[1] - 1) * place.row + (shape[2] - 1) * place.pixel
    return place.offset + last + shape[3]


def max_case(window: Window, gap: int, dtype: Any, isa: Isa, rng: np.random.Generator) -> tuple[Case, Array]:
    source, padded = _input(window, gap)
    shape = (window.batch, window.out_h, window.out_w, window.channels)
    target = StridedView.dense(window.out_h, window.out_w, window.channels)
    x = random_stored(rng, isa, _extent(source, padded))
    if dtype == "float32":
        x = rng.normal(0, 1, x.size).astype("float32")
    seen = view(x, source, padded)
    exact = np.full(shape, -np.inf if dtype == "float32" else isa.act_min, x.dtype)
    for r in range(window.kernel_h):
        for c in range(window.kernel_w):
            part = seen[:, r * window.dilation_h :: window.stride_h, c * window.dilation_w :: window.stride_w]
            exact = np.maximum(exact, part[:, : window.out_h, : window.out_w])
    out = np.full(_extent(target, shape) + 3, 77, x.dtype)
    wanted = out.copy()
    view(wanted, target, shape)[...] = exact
    return Case(MaxPoolSpec(window, source, target, dtype), {"x": x, "out": out}), wanted


@pytest.mark.parametrize("level", every_level())
def test_max_pool_finds_the_largest(level: str) -> None:
    isa, rng = ISAS[level], np.random.default_rng(19)
    made = [max_case(window, gap, dtype, isa, rng) for window, gap in WINDOWS for dtype in ("act", "float32")]
    for (case, wanted), result in zip(made, run_kernels([case for case, _ in made], level), strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")


def average_case(
    op: QAvgPool, shape: tuple[int, int, int, int], isa: Isa, rng: np.random.Generator
) -> tuple[Case, Array]:
    """`shape` is NCHW, before padding; the border that the op asks for holds the zero point."""
    batch, channels, height, width = shape
    quant = random_quant(rng)
    kind = TensorType(DType.I8, shape, quant)
    x = random_stored(rng, isa, batch * channels * height * width).reshape(batch, height, width, channels)
    exact: Array = op.exact([kind], logical(x, isa).transpose(0, 3, 1, 2))
    (top, bottom), (left, right) = op.padding
    border = ((0, 0), (top, bottom), (left, right), (0, 0))
    padded = np.pad(x, border, constant_values=int(zero_of(quant, isa)))
    out_shape = (batch, exact.shape[2], exact.shape[3], channels)
    window = Window(*out_shape, *op.pool, *op.stride)
    place = StridedView(out_shape[1] * out_shape[2] * (channels + 2), out_shape[2] * (channels + 2), channels + 2, 1)
    source = StridedView.dense(*padded.shape[1:])
    spec = AvgPoolSpec(window, source, place, "f32" if op.out is None else "byte")
    arrays: dict[str, Array] = {"factors": op.factors(kind, shape[2:]), "x_zero_point": zero_of(quant, isa)}
    if op.out is not None:
        arrays["zero_point"] = zero_of(op.out, isa)
        exact = stored(exact, isa)
    out = np.full(_extent(place, out_shape) + 3, 77, "float32" if op.out is None else isa.act_dtype)
    wanted = out.copy()
    view(wanted, place, out_shape)[...] = exact.transpose(0, 2, 3, 1)
    return Case(spec, {"x": padded, "out": out, **spec.pack(isa, **arrays)}), wanted


@pytest.mark.parametrize("level", every_level())
def test_average_pool_equals_its_definition(level: str) -> None:
    isa, rng = ISAS[level], np.random.default_rng(23)
    same = ((1, 1), (1, 1))
    pools = [
        (QAvgPool((3, 3), (1, 1), same, out=random_quant(rng)), (1, 64, 5, 6)),
        (QAvgPool((3, 3), (2, 2), same, True, out=random_quant(rng)), (2, 19, 7, 6)),
        (QAvgPool((2, 2), (2, 2), ((0, 1), (0, 1)), False, (1, 1), random_quant(rng)), (1, 7, 5, 5)),
        (QAvgPool((6, 6), (1, 1), ((0, 0), (0, 0))), (1, 66, 7, 7)),
    ]
    cases, expected = zip(*[average_case(op, shape, isa, rng) for op, shape in pools], strict=True)
    for case, result, wanted in zip(cases, run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")


def float_case(window: Window, gap: int, rng: np.random.Generator) -> tuple[Case, Array]:
    source, padded = _input(window, gap)
    shape = (window.batch, window.out_h, window.out_w, window.channels)
    target = StridedView.dense(window.out_h, window.out_w, window.channels)
    x: Array = rng.normal(0, 1, _extent(source, padded)).astype("float32")
    counts = rng.integers(1, 20, (window.out_h, window.out_w)).astype("float32")
    seen, total = view(x, source, padded), np.zeros(shape, "float32")
    for r in range(window.kernel_h):
        for c in range(window.kernel_w):
            part = seen[:, r * window.dilation_h :: window.stride_h, c * window.dilation_w :: window.stride_w]
            total = total + part[:, : window.out_h, : window.out_w]
    out = np.full(_extent(target, shape) + 3, 77, "float32")
    wanted = out.copy()
    view(wanted, target, shape)[...] = total / counts[..., None]
    spec = FloatAvgPoolSpec(window, source, target)
    return Case(spec, {"x": x, "out": out, **spec.pack(ISAS["avx2"], counts=counts)}), wanted


@pytest.mark.parametrize("level", every_level())
def test_float_average_pool_takes_the_stated_order(level: str) -> None:
    rng = np.random.default_rng(71)
    cases, expected = zip(*[float_case(window, gap, rng) for window, gap in WINDOWS], strict=True)
    for case, result, wanted in zip(cases, run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")
