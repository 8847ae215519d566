"""Kernels that leave zero blocks of weights out, beside their exact definition, on every ISA level."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from kernels.conv_cases import check_convs, conv_spec
from kernels.levels import every_level
from kernels.test_conv import POINTWISE, SPATIAL
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels.sparse import BREAK_EVEN, SparseConvSpec, break_even, choose
from support.blocks import draw_blocks, spread_blocks

Array = npt.NDArray[Any]

CONVS = [spec for spec in (*POINTWISE, *SPATIAL) if spec.groups == 1]


@pytest.mark.parametrize("level", every_level())
def test_equals_its_definition(level: str) -> None:
    check_convs(CONVS, level, 1, SparseConvSpec, (0.1, 0.5, 0.9))


@pytest.mark.parametrize("level", every_level())
def test_weights_of_nothing_but_zeros_or_without_any(level: str) -> None:
    check_convs(CONVS[:3] + CONVS[-3:], level, 2, SparseConvSpec, (0.0, 1.0))


# Choosing ----------------------------------------------------------------------------------------------------------

LAYER = conv_spec((14, 14), (128, 128), (3, 3))


def _with_blocks(density: float) -> Array:
    shape = (128, 128, 3, 3)
    kept = draw_blocks(shape, np.random.default_rng(1)) < density
    return np.int8(7) * spread_blocks(kept, shape)


@pytest.mark.parametrize("level", ISAS)
def test_few_blocks_are_walked_and_stored_alone(level: str) -> None:
    isa, weight = ISAS[level], _with_blocks(0.1)
    kernel, reason = choose(LAYER, isa, weight)
    assert kernel == SparseConvSpec(LAYER)
    assert reason == "sparse kernel: 10% of 16x4 blocks"
    arrays = {"weight": weight, "bias": np.zeros(128, "int32"), "x_zero_point": np.array(3), "zero_point": np.array(0)}
    arrays["multiplier"] = np.ones(128, "float32")
    sparse, dense = (spec.pack(isa, **arrays)["weight"].nbytes for spec in (kernel, LAYER))
    assert sparse < 0.12 * dense


@pytest.mark.parametrize("level", ISAS)
def test_zeros_that_fill_no_blocks_stay(level: str) -> None:
    weight = np.full((128, 128, 3, 3), 7, "int8")
    weight[:, ::2] = 0
    kernel, reason = choose(LAYER, ISAS[level], weight)
    assert kernel is LAYER
    assert re.fullmatch(r"dense: 100% of 16x4 blocks is above the break-even of \d+%", reason)


def test_weights_almost_without_zeros_are_dense_without_a_word() -> None:
    assert choose(LAYER, ISAS["avx2"], _with_blocks(0.9)) == (LAYER, "")


def test_groups_are_dense() -> None:
    spec = conv_spec((5, 5), (8, 8), (3, 3), groups=4)
    assert choose(spec, ISAS["avx2"], np.zeros((32, 8, 3, 3), "int8"))[0] is spec


def test_blocks_of_more_channels_than_there_are_must_save_more() -> None:
    few, many = conv_spec((9, 9), (64, 4)), conv_spec((9, 9), (64, 32))
    assert break_even(few, ISAS["neon"]) == break_even(many, ISAS["neon"]) / 4
    assert break_even(few, ISAS["avx512vnni"]) == break_even(many, ISAS["avx512vnni"])


def test_tiles_are_never_slower_than_what_they_were_chosen_over() -> None:
    """Here tdpbusd takes 0.89 of the time of vpdpbusd, and that is what a sparse kernel at `BREAK_EVEN` takes."""
    first = conv_spec((112, 112), (3, 32), (3, 3), stride_h=2, stride_w=2)
    assert break_even(first, ISAS["amx"]) <= BREAK_EVEN["amx"]
