"""Kernels whose words hold the sums of four products, beside their exact definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from kernels.conv_cases import check_convs, conv_spec
from kernels.levels import every_level
from kernels.test_conv import POINTWISE, SPATIAL
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels.chained import CHUNK, MOST_WEIGHT, ChainedConvSpec, choose
from octavo.backends.tvm.kernels.conv import ConvSpec

Array = npt.NDArray[Any]

CONVS = [
    spec
    for spec in (*POINTWISE, *SPATIAL)
    if spec.groups == 1 and not spec.full_range and spec.in_channels * spec.kernel_h * spec.kernel_w > CHUNK
]
LAYER = conv_spec((14, 14), (256, 64))
NEON = [level for level in every_level() if "neon" in str(level)]


def _at_the_bound(rng: np.random.Generator, spec: ConvSpec, shape: tuple[int, ...]) -> Array:
    """Magnitudes of which any four have the largest sum that a word takes, in the last part of K sometimes more."""
    signs = rng.choice([-1, 1], shape) if rng.random() < 0.5 else np.full(shape, -1)
    weights = np.full(shape, MOST_WEIGHT // 4)
    _, channels, rows, columns = shape
    if channels * rows * columns >= 4 * CHUNK:
        large = rng.random(shape) < rng.choice([0, 0.003, 0.02])
        large[:, : channels // 2 if rows * columns == 1 else 0] = False
        large[..., : rows - 1, :] = False
        weights[large] = 127
    drawn: Array = (signs * weights).astype("int8")
    return drawn


@pytest.mark.parametrize("level", NEON)
@pytest.mark.parametrize("seed", range(3))
def test_equals_its_definition(level: str, seed: int) -> None:
    check_convs(CONVS, level, seed, ChainedConvSpec, draw=_at_the_bound)


def _words(weight: Array, packed: dict[str, Array]) -> Array:
    """The sums of magnitudes of the weights that each word of a pair of chunks adds up."""
    starts, chunks = packed["starts"], np.abs(packed["weight"].astype(int))
    width = chunks.size // len(packed["taps"])
    pairs = [
        chunks[first * width : (first + 2) * width].reshape(2, width // CHUNK, 2, CHUNK // 2).sum(axis=(0, 2))
        for block in range(0, len(starts) - 1, 2)
        for first in range(starts[block], starts[block + 1], 2)
    ]
    return np.array(pairs)


def _arrays(weight: Array) -> dict[str, Array]:
    count = len(weight)
    arrays = {"weight": weight, "bias": np.zeros(count, "int32"), "x_zero_point": np.array(3)}
    return {**arrays, "zero_point": np.array(0), "multiplier": np.ones(count, "float32")}


def test_pairs_are_of_chunks_whose_sums_fit_a_word() -> None:
    weight = np.random.default_rng(5).normal(0, 30, (64, 256, 1, 1)).clip(-127, 127).astype("int8")
    kernel = choose(LAYER, ISAS["neon"], weight)
    assert kernel is not None
    assert kernel.conv == LAYER
    packed = kernel.pack(ISAS["neon"], **_arrays(weight))
    sums = _words(weight, packed)
    assert len(sums) > 0.3 * len(packed["taps"])
    assert sums.max() <= MOST_WEIGHT
    assert sorted(packed["taps"][: packed["starts"][2]]) == list(range(0, 256, CHUNK))


@pytest.mark.parametrize(
    ("level", "spec", "largest"),
    [
        ("neon", LAYER, 127),
        ("dotprod", LAYER, 10),
        ("avx2", LAYER, 10),
        ("neon", conv_spec((14, 14), (256, 64), full_range=True), 10),
        ("neon", conv_spec((14, 14), (128, 32), groups=2), 10),
        ("neon", conv_spec((1, 1), (256, 64)), 10),
    ],
)
def test_other_convolutions_are_multiplied_as_before(level: str, spec: ConvSpec, largest: int) -> None:
    assert choose(spec, ISAS[level], np.full((64, spec.in_channels, 1, 1), largest, "int8")) is None
