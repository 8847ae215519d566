"""3x3 convolutions by Winograd's filtering, beside their exact definition, on the levels that have it."""

from __future__ import annotations

from functools import partial
from typing import get_args

import numpy as np
import pytest
from kernels.conv_cases import check_convs, conv_case, conv_spec
from kernels.levels import every_level
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels import sparse
from octavo.backends.tvm.kernels.conv import ConvSpec
from octavo.backends.tvm.kernels.epilogue import Epilogue
from octavo.backends.tvm.kernels.winograd import Filters, WinogradSpec, choose, exact, filters_of
from octavo.backends.tvm.kernels.winograd_tiles import TRANSFORMS, Transform
from support.blocks import draw_blocks, spread_blocks

LEVELS = every_level("avx2", "avxvnni", "avx512vnni", "neon")

CONVS = [
    conv_spec((8, 8), (16, 16), (3, 3)),
    conv_spec((7, 9), (19, 21), (3, 3), residual=True, out_gap=3),
    conv_spec((14, 14), (32, 48), (3, 3), batch=2, epilogue=Epilogue(table=True)),
    conv_spec((1, 5), (5, 3), (3, 3), pixel_gap=2, epilogue=Epilogue(out="i32")),
    conv_spec((13, 18), (48, 70), (3, 3), epilogue=Epilogue(out="f32"), full_range=True),
    conv_spec((30, 3), (8, 130), (3, 3), residual=True, epilogue=Epilogue(table=True)),
    conv_spec((2, 2), (96, 1), (3, 3)),
]


FORMS = get_args(Filters)


@pytest.mark.parametrize("size", TRANSFORMS)
@pytest.mark.parametrize("level", LEVELS)
def test_equals_its_definition(level: str, size: int) -> None:
    for form in filters_of(ISAS[level]):
        check_convs(CONVS, level, size, partial(WinogradSpec, size=size, filters=form))


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(9))
@pytest.mark.parametrize("level", LEVELS)
def test_random_ones_equal_their_definition(level: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    specs = [
        conv_spec(
            (int(rng.integers(1, 40)), int(rng.integers(1, 40))),
            (int(rng.integers(1, 100)), int(rng.integers(1, 100))),
            (3, 3),
            residual=bool(rng.random() < 0.5),
            full_range=bool(rng.random() < 0.5),
            batch=int(rng.integers(1, 3)),
        )
        for _ in range(8)
    ]
    form = filters_of(ISAS[level])[seed % len(filters_of(ISAS[level]))]
    check_convs(specs, level, seed, partial(WinogradSpec, size=int(rng.choice(list(TRANSFORMS))), filters=form))


@pytest.mark.parametrize("rows", TRANSFORMS.values(), ids=lambda transform: transform.size)
@pytest.mark.parametrize("columns", TRANSFORMS.values(), ids=lambda transform: transform.size)
def test_transforms_multiply_the_convolution_by_their_totals(rows: Transform, columns: Transform) -> None:
    rng = np.random.default_rng(0)
    patch, weight = rng.integers(-128, 256, (rows.patch, columns.patch)), rng.integers(-128, 128, (3, 3))
    filters = np.array(rows.filter) @ weight @ np.array(columns.filter).T
    products = filters * (np.array(rows.input) @ patch @ np.array(columns.input).T)
    results = np.array(rows.output) @ products @ np.array(columns.output).T
    wanted = np.einsum("ijab,ab->ij", np.lib.stride_tricks.sliding_window_view(patch, (3, 3)), weight)
    np.testing.assert_array_equal(results, rows.total * columns.total * wanted)


def test_small_tiles_use_filters_of_large_ones() -> None:
    small, large = TRANSFORMS[2], TRANSFORMS[4]
    assert small.filter == large.filter[: small.patch]


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=lambda transform: transform.size)
def test_what_is_multiplied_has_sixteen_bits(transform: Transform) -> None:
    for matrix, low, high in ((transform.input, -128, 127), (transform.input, 0, 255), (transform.filter, -128, 127)):
        factors = np.array([np.outer(left, right) for left in matrix for right in matrix]).reshape(
            -1, len(matrix[0]) ** 2
        )
        above, below = np.maximum(factors, 0).sum(axis=1), np.maximum(-factors, 0).sum(axis=1)
        assert max((high * above - low * below).max(), (high * below - low * above).max()) < 2**15


# Choosing ----------------------------------------------------------------------------------------------------------

LAYER = conv_spec((28, 28), (128, 128), (3, 3))
WEIGHT = np.random.default_rng(0).normal(0, 30, (128, 128, 3, 3)).clip(-127, 127).astype("int8")


def test_where_words_are_multiplied_as_fast_as_bytes_it_is_chosen() -> None:
    for level in ("avx2", "neon"):
        found, gain = choose(LAYER, ISAS[level], WEIGHT)
        assert found is not None
        assert found.size == 4
        assert gain > 1.5


def test_what_only_some_processors_gain_counts_for_nothing() -> None:
    spec = conv_spec((7, 7), (160, 192), (3, 3))
    weight = np.ones((192, 160, 3, 3), "int8")
    assert choose(spec, ISAS["avx512vnni"], weight) == (WinogradSpec(spec, 4, "fused"), 1.0)


@pytest.mark.parametrize(
    ("level", "size", "channels", "filters"),
    [
        ("avx2", (56, 56), 64, "stored"),
        ("avx2", (14, 14), 512, "staged"),
        ("avx512vnni", (56, 56), 64, "stored"),
        ("avx512vnni", (28, 28), 256, "staged"),
        ("avx512vnni", (14, 14), 256, "fused"),
        ("avx512vnni", (7, 7), 512, "fused"),
    ],
)
def test_filters_that_take_much_memory_are_transformed_by_the_kernel(
    level: str, size: tuple[int, int], channels: int, filters: Filters
) -> None:
    """Those of few tiles in registers."""
    spec = conv_spec(size, (channels, channels), (3, 3))
    weight = np.ones((channels, channels, 3, 3), "int8")
    assert choose(spec, ISAS[level], weight)[0] == WinogradSpec(spec, 4, filters)
    case, _ = conv_case(spec, ISAS[level], np.random.default_rng(0), partial(WinogradSpec, size=4, filters=filters))
    assert case.arrays["weight"].nbytes >= (8 if filters == "stored" else 1) * weight.nbytes
    assert case.arrays["weight"].nbytes < (9 if filters == "stored" else 2) * weight.nbytes


@pytest.mark.parametrize(("length", "products"), [(12, 18**2), (13, 22**2), (14, 22**2), (15, 24**2), (16, 24**2)])
def test_what_large_tiles_leave_takes_small_ones(length: int, products: int) -> None:
    spec = WinogradSpec(conv_spec((length, length), (32, 32), (3, 3)), 4)
    assert sum(region.points * region.count for region in spec.regions) == products


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(14, 14), (12, 16), (5, 9), (18, 8), (2, 2)])
def test_bands_are_the_points_of_all_tiles(size: tuple[int, int], form: Filters) -> None:
    spec = WinogradSpec(conv_spec(size, (32, 32), (3, 3), batch=2), 4, form)
    wanted = {
        (tile, row, column)
        for region in spec.regions
        for tile in range(region.first, region.end)
        for row in range(region.rows.transform.patch)
        for column in range(region.columns.transform.patch)
    }
    found = [
        (tile, row, column)
        for band in spec.bands
        for tile in range(band.first, band.end)
        for row in band.rows
        for column in band.columns
    ]
    assert len(found) == len(set(found))
    assert set(found) == wanted


@pytest.mark.parametrize("level", ["amx", "dotprod", "i8mm"])
def test_where_bytes_are_multiplied_much_faster_it_is_not(level: str) -> None:
    assert choose(LAYER, ISAS[level], WEIGHT) == (None, 1.0)


@pytest.mark.parametrize(
    "spec",
    [
        conv_spec((28, 28), (128, 128), (3, 3), stride_h=2, stride_w=2),
        conv_spec((28, 28), (128, 128), (3, 3), dilation_h=2, dilation_w=2),
        conv_spec((28, 28), (128, 128), (1, 1)),
        conv_spec((28, 28), (128, 128), (5, 5)),
        conv_spec((28, 28), (64, 64), (3, 3), groups=2),
        conv_spec((1, 1), (128, 128), (3, 3)),
    ],
    ids=["stride", "dilation", "1x1", "5x5", "groups", "one pixel"],
)
def test_other_convolutions_are_direct(spec: ConvSpec) -> None:
    channels = (spec.groups * spec.out_channels, spec.in_channels, spec.kernel_h, spec.kernel_w)
    assert choose(spec, ISAS["avx2"], np.ones(channels, "int8")) == (None, 1.0)


def test_weights_that_might_overflow_take_smaller_tiles() -> None:
    spec = conv_spec((28, 28), (128, 128), (3, 3))
    largest = np.full((128, 128, 3, 3), 127, "int8")
    found = choose(spec, ISAS["avx2"], largest)[0]
    assert found is not None
    assert found.size == 2


@pytest.mark.parametrize(("level", "reach"), [("avx2", 255), ("neon", 128)])
def test_exact_bounds_every_sum_of_products(level: str, reach: int) -> None:
    transform = TRANSFORMS[4]
    assert transform.total**2 == 9 * 2**6
    limit = 2 ** (31 - 6)
    count = -(-limit // (127 * reach))
    weight = np.zeros((2, count, 3, 3), "int8")
    weight[1, :, 1, 1] = 127
    assert not exact(transform, ISAS[level], weight)
    weight[1, :2, 1, 1] = 0
    assert exact(transform, ISAS[level], weight)


def test_zeros_must_save_more_than_winograd_does() -> None:
    limit = sparse.break_even(LAYER, ISAS["avx2"])
    kept = draw_blocks(WEIGHT.shape, np.random.default_rng(1)) < 0.6
    weight = np.int8(7) * spread_blocks(kept, WEIGHT.shape)
    assert isinstance(sparse.choose(LAYER, ISAS["avx2"], weight)[0], sparse.SparseConvSpec)
    kernel, reason = sparse.choose(LAYER, ISAS["avx2"], weight, 3.0)
    assert kernel is LAYER
    assert reason.endswith(f"above the break-even of {limit / 3:.0%}")
