"""3x3 convolutions by Winograd's filtering, beside their exact definition, on the levels that have it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from kernels.conv_cases import check_convs, conv_spec
from kernels.levels import every_level
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels import sparse
from octavo.backends.tvm.kernels.conv import ConvSpec
from octavo.backends.tvm.kernels.epilogue import Epilogue
from octavo.backends.tvm.kernels.winograd import TRANSFORMS, Transform, WinogradSpec, choose, exact
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


@pytest.mark.parametrize("size", TRANSFORMS)
@pytest.mark.parametrize("level", LEVELS)
def test_equals_its_definition(level: str, size: int) -> None:
    check_convs(CONVS, level, size, partial(WinogradSpec, size=size))


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(6))
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
    check_convs(specs, level, seed, partial(WinogradSpec, size=int(rng.choice(list(TRANSFORMS)))))


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=lambda transform: transform.size)
def test_transforms_multiply_the_convolution_by_their_total(transform: Transform) -> None:
    rng = np.random.default_rng(0)
    rows, columns, results = (np.array(m) for m in (transform.input, transform.filter, transform.output))
    patch, weight = rng.integers(-128, 256, [transform.patch] * 2), rng.integers(-128, 128, (3, 3))
    products = (columns @ weight @ columns.T) * (rows @ patch @ rows.T)
    places = np.lib.stride_tricks.sliding_window_view(patch, (3, 3))
    wanted = np.einsum("ijab,ab->ij", places, weight)
    np.testing.assert_array_equal(results @ products @ results.T, transform.total * wanted)
    assert transform.total >> transform.shift << transform.shift == transform.total
    assert transform.inverse * (transform.total >> transform.shift) % 2**32 == 1


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
        assert found == WinogradSpec(LAYER, 4)
        assert gain > 1.5


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
        conv_spec((7, 7), (512, 512), (3, 3)),
    ],
    ids=["stride", "dilation", "1x1", "5x5", "groups", "one pixel", "filters that take much memory"],
)
def test_other_convolutions_are_direct(spec: ConvSpec) -> None:
    channels = (spec.groups * spec.out_channels, spec.in_channels, spec.kernel_h, spec.kernel_w)
    assert choose(spec, ISAS["avx2"], np.ones(channels, "int8")) == (None, 1.0)


def test_weights_that_might_overflow_take_smaller_tiles() -> None:
    spec = conv_spec((28, 28), (128, 128), (3, 3))
    largest = np.full((128, 128, 3, 3), 127, "int8")
    assert choose(spec, ISAS["avx2"], largest)[0] == WinogradSpec(spec, 2)


@pytest.mark.parametrize(("level", "reach"), [("avx2", 255), ("neon", 128)])
def test_exact_bounds_every_sum_of_products(level: str, reach: int) -> None:
    transform = TRANSFORMS[4]
    limit = 2 ** (31 - transform.shift)
    assert transform.shift == 6
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
