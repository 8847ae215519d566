"""Kernels by pmaddubsw, beside their exact definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from kernels.conv_cases import check_convs, conv_case, conv_spec
from kernels.harness import Case, run_kernels
from kernels.levels import every_level
from kernels.test_conv import POINTWISE, SPATIAL
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels.conv import ConvSpec
from octavo.backends.tvm.kernels.epilogue import Epilogue
from octavo.backends.tvm.kernels.maddubs import CHUNK, MOST_WEIGHT, MaddubsConvSpec, choose

Array = npt.NDArray[Any]

AVX2 = ISAS["avx2"]
LAYER = conv_spec((14, 14), (256, 64))
CONVS = [
    *(spec for spec in (*POINTWISE, *SPATIAL) if spec.groups == 1 and spec.in_channels % CHUNK == 0),
    LAYER,
    conv_spec((9, 9), (32, 20), (3, 3), full_range=True),
    conv_spec((7, 7), (132, 24), (3, 3), stride_h=2, stride_w=2),
    conv_spec((5, 17), (12, 8), (2, 3), pixel_gap=4),
]
LEVELS = every_level("avx2")


def _mixed(rng: np.random.Generator, spec: ConvSpec, shape: tuple[int, ...]) -> Array:
    """Weights as large as four, two or no neighbours may be, or too large, of one sign or both; seldom all alike."""
    limits = rng.choice([MOST_WEIGHT // 4, MOST_WEIGHT // 2, 127], (shape[0], -(-shape[1] // CHUNK), 1, 1))
    if rng.random() < 0.5:
        limits[...] = rng.choice([MOST_WEIGHT // 4, MOST_WEIGHT // 2, 127])
    signs = np.ones(shape, int) if rng.random() < 0.3 else rng.choice([-1, 1], shape)
    weights = signs * np.repeat(limits, CHUNK, axis=1)[:, : shape[1]]
    if spec.full_range:
        weights[rng.random(shape) < 0.01] = -128
    drawn: Array = weights.astype("int8")
    return drawn


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("seed", range(4))
def test_equals_its_definition(level: str, seed: int) -> None:
    check_convs(CONVS, level, seed, MaddubsConvSpec, draw=_mixed)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("limit", [MOST_WEIGHT // 4, MOST_WEIGHT // 2])
@pytest.mark.parametrize("sign", [-1, 1])
def test_no_word_saturates_at_the_bound(level: str, limit: int, sign: int) -> None:
    """Pixels of 255 all over, and weights that make the largest words that are let through."""
    spec = conv_spec((14, 14), (256, 64), epilogue=Epilogue(out="i32"))
    weight = np.full((64, 256, 1, 1), sign * limit, "int8")
    case, _ = conv_case(spec, AVX2, np.random.default_rng(1), MaddubsConvSpec, draw=lambda *_: weight)
    packed = MaddubsConvSpec(spec).pack(AVX2, **_arrays(weight))
    bright = np.full_like(case.arrays["x"], 255)
    (result,) = run_kernels([Case(case.spec, {**case.arrays, **packed, "x": bright})], level)
    assert (result["out"][: 14 * 14 * 64] == (255 - 3) * 256 * sign * limit).all()


def _arrays(weight: Array) -> dict[str, Array]:
    count = len(weight)
    arrays = {"weight": weight, "bias": np.zeros(count, "int32"), "x_zero_point": np.array(3)}
    return {**arrays, "zero_point": np.array(0), "multiplier": np.ones(count, "float32")}


def test_every_chunk_is_in_one_list_of_a_block_and_fits_its_words() -> None:
    weight = np.random.default_rng(5).normal(0, 27, (64, 256, 1, 1)).clip(-127, 127).astype("int8")
    kernel = choose(LAYER, AVX2, weight)
    assert kernel is not None
    assert kernel.conv == LAYER
    packed = kernel.pack(AVX2, **_arrays(weight))
    starts = packed["starts"]
    width = CHUNK * AVX2.lanes
    chunks = packed["weight"].astype(int).reshape(-1, width // 2, 2)
    for block in range(8):
        first, single, words, last = starts[3 * block : 3 * block + 4]
        paired = chunks[first:single].reshape(-1, 2, width // 2, 2).swapaxes(1, 2).reshape(-1, 4)
        for group in (paired, chunks[single:words].reshape(-1, 2)):
            assert np.maximum(group, 0).sum(axis=1).max(initial=0) <= MOST_WEIGHT
            assert np.minimum(group, 0).sum(axis=1).min(initial=0) >= -MOST_WEIGHT
        taps = packed["taps"][first:last]
        assert single - first >= 0.3 * (last - first)
        assert sorted([*taps[: words - first], *taps[words - first :: 2]]) == list(range(0, 256, CHUNK))


@pytest.mark.parametrize(
    ("level", "spec", "largest"),
    [
        ("avx2", LAYER, 127),
        ("avxvnni", LAYER, 10),
        ("neon", LAYER, 10),
        ("avx2", conv_spec((14, 14), (128, 32), groups=2), 10),
        ("avx2", conv_spec((14, 14), (3, 32), (3, 3)), 10),
        ("avx2", conv_spec((1, 1), (256, 64)), 10),
    ],
)
def test_other_convolutions_are_multiplied_as_before(level: str, spec: ConvSpec, largest: int) -> None:
    shape = (spec.groups * spec.out_channels, spec.in_channels, spec.kernel_h, spec.kernel_w)
    assert choose(spec, ISAS[level], np.full(shape, largest, "int8")) is None
