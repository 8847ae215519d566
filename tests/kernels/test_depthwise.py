"""Depthwise convolution kernels beside their exact definition, on every ISA level."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kernels.conv_cases import centred, conv_spec, random_bytes, random_params
from kernels.harness import Array, Case, run_kernels
from kernels.levels import every_level
from kernels.reference import finish, view
from octavo.backends.tvm.isa import ISAS, Isa
from octavo.backends.tvm.kernels.base import StridedView
from octavo.backends.tvm.kernels.depthwise import DepthwiseSpec, plan_depthwise
from octavo.backends.tvm.kernels.epilogue import Epilogue


def depthwise_spec(size: tuple[int, int], channels: int, kernel: tuple[int, int], **options: Any) -> DepthwiseSpec:
    """A depthwise convolution whose output has `size`; options as for `conv_spec`."""
    conv = conv_spec(size, (1, 1), kernel, groups=channels, **options)
    return DepthwiseSpec(
        conv.batch,
        *size,
        channels,
        conv.input,
        conv.output,
        *kernel,
        conv.stride_h,
        conv.stride_w,
        conv.dilation_h,
        conv.dilation_w,
        conv.full_range,
        conv.epilogue,
    )


CASES = [
    depthwise_spec((7, 7), 64, (3, 3)),
    depthwise_spec((5, 6), 32, (3, 3)),
    depthwise_spec((4, 8), 16, (3, 3), residual=True),
    depthwise_spec((9, 11), 96, (3, 3), stride_h=2, stride_w=2),
    depthwise_spec((6, 5), 144, (3, 3), batch=2),
    depthwise_spec((7, 10), 19, (5, 5), pixel_gap=5, out_gap=3),
    depthwise_spec((3, 4), 70, (5, 5), stride_h=2, stride_w=2, residual=True),
    depthwise_spec((5, 9), 33, (3, 2), dilation_h=2, dilation_w=3, out_gap=2),
    depthwise_spec((1, 40), 12, (1, 5)),
    depthwise_spec((1, 33), 24, (1, 9), stride_w=3),
    depthwise_spec((12, 1), 40, (7, 1)),
    depthwise_spec((4, 5), 1, (3, 3)),
    depthwise_spec((2, 2), 130, (9, 11)),
    depthwise_spec((1, 6), 17, (1, 80)),
    depthwise_spec((6, 6), 48, (3, 3), epilogue=Epilogue(table=True)),
    depthwise_spec((6, 6), 21, (3, 3), epilogue=Epilogue(out="i32"), out_gap=1),
    depthwise_spec((3, 7), 80, (3, 3), epilogue=Epilogue(out="f32")),
    depthwise_spec((4, 6), 16, (2, 2), full_range=True),
    depthwise_spec((3, 3), 8, (1, 1)),
    depthwise_spec((6, 8), 96, (3, 3), residual=True, batch=2),
    depthwise_spec((5, 6), 72, (5, 3), dilation_w=2, epilogue=Epilogue(table=True)),
]


def _accumulators(spec: DepthwiseSpec, x: Array, weight: Array, zero_point: int) -> Array:
    height = (spec.out_h - 1) * spec.stride_h + (spec.kernel_h - 1) * spec.dilation_h + 1
    width = (spec.out_w - 1) * spec.stride_w + (spec.kernel_w - 1) * spec.dilation_w + 1
    image = view(x, spec.input, (spec.batch, height, width, spec.channels)).astype("int64") - zero_point
    total = np.zeros((spec.batch, spec.out_h, spec.out_w, spec.channels), "int64")
    for row in range(spec.kernel_h):
        for column in range(spec.kernel_w):
            part = image[:, row * spec.dilation_h :, column * spec.dilation_w :]
            part = part[:, :: spec.stride_h, :: spec.stride_w][:, : spec.out_h, : spec.out_w]
            total += part * weight[:, 0, row, column]
    return total


def _extent(spec: DepthwiseSpec, place: StridedView, rows: int, columns: int) -> int:
    last = (spec.batch - 1) * place.batch + (rows - 1) * place.row + (columns - 1) * place.pixel
    return place.offset + last + spec.channels


def depthwise_case(spec: DepthwiseSpec, isa: Isa, rng: np.random.Generator) -> tuple[Case, Array]:
    """A case with random contents, and the whole output buffer as it must be afterwards."""
    lowest = -128 if spec.full_range else -127
    arrays: dict[str, Array] = {
        "weight": rng.integers(lowest, 128, (spec.channels, 1, spec.kernel_h, spec.kernel_w)).astype("int8"),
        "x_zero_point": np.array(rng.integers(isa.act_min, isa.act_max + 1)),
        **random_params(isa, rng),
    }
    rows = (spec.out_h - 1) * spec.stride_h + (spec.kernel_h - 1) * spec.dilation_h + 1
    columns = (spec.out_w - 1) * spec.stride_w + (spec.kernel_w - 1) * spec.dilation_w + 1
    x = random_bytes(rng, isa, _extent(spec, spec.input, rows, columns))
    if spec.full_range:
        arrays["weight"][...], x[...] = -128, isa.act_min
    acc = _accumulators(spec, x, arrays["weight"], int(arrays["x_zero_point"]))
    arrays |= centred(acc, rng)
    acc += arrays["bias"]
    spec = replace(spec, epilogue=spec.epilogue.fitted(isa, arrays))
    buffers: dict[str, Array] = {"x": x}
    residual = None
    if spec.epilogue.residual is not None:
        buffers["residual"] = random_bytes(rng, isa, _extent(spec, spec.epilogue.residual, spec.out_h, spec.out_w))
        residual = view(buffers["residual"], spec.epilogue.residual, acc.shape)
    size = _extent(spec, spec.output, spec.out_h, spec.out_w) + 9
    out = np.full(size, 77, {"byte": isa.act_dtype, "f32": "float32", "i32": "int32"}[spec.epilogue.out])
    expected = out.copy()
    view(expected, spec.output, acc.shape)[...] = finish(isa, spec.epilogue, acc, arrays, residual)
    packed = spec.pack(isa, **arrays)
    return Case(spec, {**buffers, **packed, "out": out}, splits=int(rng.integers(1, 4))), expected


def drawn_spec(rng: np.random.Generator) -> DepthwiseSpec:
    """Any depthwise convolution of moderate size."""
    height, width, kernel_h, kernel_w = (int(rng.integers(1, limit)) for limit in (8, 12, 6, 6))
    options: dict[str, Any] = {
        name: int(rng.integers(1, 3)) for name in ("stride_h", "stride_w", "dilation_h", "dilation_w", "batch")
    }
    options |= {"pixel_gap": int(rng.integers(0, 4)), "out_gap": int(rng.integers(0, 4))}
    channels = int(rng.choice([1, 3, 8, 16, 24, 31, 32, 48, 65, 96, 100, 144]))
    return depthwise_spec((height, width), channels, (kernel_h, kernel_w), residual=bool(rng.random() < 0.3), **options)


def _check(specs: list[DepthwiseSpec], level: str, rng: np.random.Generator) -> None:
    cases, expected = zip(*[depthwise_case(spec, ISAS[level], rng) for spec in specs], strict=True)
    for spec, result, wanted in zip(specs, run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {spec}")


@pytest.mark.parametrize("level", every_level())
def test_depthwise_equals_its_definition(level: str) -> None:
    _check(CASES, level, np.random.default_rng(5))


@pytest.mark.parametrize("level", every_level())
def test_drawn_depthwise_equals_its_definition(level: str) -> None:
    rng = np.random.default_rng(6)
    _check([drawn_spec(rng) for _ in range(20)], level, rng)


@pytest.mark.parametrize(
    ("size", "stride", "most"),
    [(7, 1, 8 / 3), (56, 1, 8 / 3), (28, 2, 4 / 3)],
)
def test_rows_of_a_tile_share_weights(size: int, stride: int, most: float) -> None:
    """Pairs of taps are (0, 1) and (2, none) in one row, (none, 0) and (1, 2) in the next, and those again."""
    spec = depthwise_spec((size, size), 192, (3, 3), stride_h=stride, stride_w=stride)
    case, _ = depthwise_case(spec, ISAS["avx2"], np.random.default_rng(0))
    assert case.arrays["weight"].nbytes <= most * 192 * 9 * 2


def test_rows_are_divided_until_a_first_level_cache_holds_what_tasks_read() -> None:
    spec = depthwise_spec((56, 56), 96, (3, 3), stride_h=2, stride_w=2)
    assert plan_depthwise(spec, ISAS["avx2"]).bytes_read < 32_768


def test_few_channels_fold_pixels_together() -> None:
    plan = plan_depthwise(depthwise_spec((5, 6), 32, (3, 3)), ISAS["avx512vnni"])
    assert (plan.geometry.fold, plan.geometry.channels, plan.geometry.w.count) == (2, 64, 3)


@pytest.mark.parametrize(("channels", "fold"), [(96, 2), (128, 1), (48, 1)])
def test_pixels_fold_together_where_less_of_a_block_is_empty(channels: int, fold: int) -> None:
    plan = plan_depthwise(depthwise_spec((28, 28), channels, (3, 3)), ISAS["avx512vnni"])
    assert plan.geometry.fold == fold
