"""Pixels beside the definition of `qimage`, on every ISA level; and which arithmetic is exact for all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels.harness import Array, Case, run_kernels
from kernels.levels import every_level
from kernels.quantized import stored, zero_of
from octavo.backends.tvm.isa import ISAS, Isa
from octavo.backends.tvm.kernels.image import Arithmetic, ImageSpec
from octavo.backends.tvm.kernels.staircase import fit_lines, reciprocal, steps_divide
from octavo.ir.ops.integer import QImage
from octavo.ir.types import per_tensor

IMAGENET = QImage((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 255.0, per_tensor(4.7579 / 255, -14))
HALVES = QImage((0.5,), (0.5,), 255.0, per_tensor(2 / 255, 0))
"""Pixels of -1..1 on the grid of that range: every pixel lies halfway between two bytes."""

STEPS: tuple[Arithmetic, ...] = ("steps", "short-steps")
SHAPES = [
    (1, 9, 224, 3, 0),
    (2, 5, 37, 3, 6),
    (1, 4, 28, 1, 2),
    (3, 28, 28, 1, 0),
    (1, 6, 7, 3, 3),
    (2, 3, 1, 3, 5),
    (1, 1, 1, 1, 0),
    (1, 3, 33, 4, 8),
    (1, 3, 40, 2, 4),
    (1, 2, 30, 5, 1),
]
"""Batch, height, width, channels, and bytes between rows."""


def image_spec(by: Arithmetic, batch: int, height: int, width: int, channels: int, gap: int) -> ImageSpec:
    row = width * channels + gap
    return ImageSpec(batch, height, width, channels, height * row + 2 * gap, row, by)


def drawn(rng: np.random.Generator, channels: int) -> QImage:
    mean, std = (tuple(rng.uniform(low, high, channels).tolist()) for low, high in ((0, 1), (0.1, 0.5)))
    return QImage(mean, std, 255.0, per_tensor(float(rng.uniform(0.005, 0.05)), int(rng.integers(-50, 50))))


def constants(spec: ImageSpec, op: QImage, isa: Isa) -> dict[str, Any]:
    if spec.by == "line":
        lines = fit_lines(op, spec.channels)
        assert lines is not None
        return {**lines, "zero_point": np.array(isa.act_offset)}
    assert steps_divide(op)
    high, low = reciprocal(op.std)
    common = np.concatenate([*reciprocal([op.scale]), *reciprocal(op.out.scale)])
    numbers = {"mean": np.array(op.mean), "std_high": high, "std_low": low, "common": common}
    return {**numbers, "zero_point": zero_of(op.out, isa)}


def image_case(spec: ImageSpec, op: QImage, isa: Isa, rng: np.random.Generator) -> tuple[Case, Array]:
    x = rng.integers(0, 256, (spec.batch, spec.height, spec.width, spec.channels)).astype("uint8")
    out = np.full((spec.batch, spec.batch_stride), 77, isa.act_dtype)
    wanted = out.copy()
    exact = stored(op.exact([], x).transpose(0, 2, 3, 1), isa).reshape(spec.batch, spec.height, -1)
    strides = (spec.batch_stride, spec.row_stride, 1)
    np.lib.stride_tricks.as_strided(wanted, exact.shape, strides)[...] = exact
    return Case(spec, {"x": x, "out": out, **spec.pack(isa, **constants(spec, op, isa))}), wanted


@pytest.mark.parametrize("level", every_level())
def test_pixels_equal_their_definition(level: str) -> None:
    isa, rng = ISAS[level], np.random.default_rng(5)
    pairs = [(image_spec("line", *shape), drawn(rng, shape[3])) for shape in SHAPES]
    pairs += [(image_spec("steps", *shape), drawn(rng, shape[3])) for shape in SHAPES]
    pairs += [(image_spec(by, 1, 16, 16, 3, 0), HALVES) for by in STEPS]
    pairs += [(image_spec("line", 1, 16, 16, 3, 0), IMAGENET)]
    cases, expected = zip(*[image_case(*pair, isa, rng) for pair in pairs], strict=True)
    for case, result, wanted in zip(cases, run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")


def line(lines: dict[str, Array]) -> Array:
    factor, shift = (lines[name][:, np.newaxis] for name in ("factor", "shift"))
    assert factor.dtype == shift.dtype == np.float32
    exact: Array = np.clip(np.rint((np.arange(256.0) * factor + shift).astype("float32")), -128, 127).astype("int8")
    return exact


numbers = st.floats(-2, 2).filter(lambda number: abs(number) > 0.01)


@given(st.floats(-1, 1), numbers, st.sampled_from([1.0, 255.0]), st.floats(1e-4, 1), st.integers(-128, 127))
def test_a_line_climbs_the_same_stairs(mean: float, std: float, scale: float, grid: float, zero: int) -> None:
    op = QImage((mean,), (std,), scale, per_tensor(grid, zero))
    lines = fit_lines(op, 1)
    assert lines is None or np.array_equal(line(lines), op.table(1))


def test_most_images_are_lines() -> None:
    rng = np.random.default_rng(1)
    assert all(fit_lines(drawn(rng, 3), 3) for _ in range(100))
    assert fit_lines(IMAGENET, 3)


def test_images_halfway_between_bytes_are_no_lines() -> None:
    assert fit_lines(HALVES, 3) is None
    assert steps_divide(HALVES)


def test_every_normal_quotient_is_two_products() -> None:
    rng = np.random.default_rng(2)
    assert all(steps_divide(drawn(rng, 3)) for _ in range(300))


@pytest.mark.parametrize("std", [1e-41, 3e38])
def test_quotients_out_of_range_are_not(std: float) -> None:
    assert not steps_divide(QImage((0.5,), (std,), 255.0, per_tensor(0.01, 0)))
