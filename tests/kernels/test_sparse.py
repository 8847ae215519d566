"""Kernels that leave zero blocks of weights out, beside their exact definition, on every ISA level."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from kernels.conv_cases import block_mask, conv_case, conv_spec
from kernels.harness import run_kernels
from kernels.levels import every_level
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels.conv import ConvSpec
from octavo.backends.tvm.kernels.epilogue import Epilogue
from octavo.backends.tvm.kernels.sparse import SparseConvSpec, break_even, choose

Array = npt.NDArray[Any]

CONVS = [
    conv_spec((7, 7), (16, 24)),
    conv_spec((14, 14), (96, 64), residual=True),
    conv_spec((5, 9), (33, 17), pixel_gap=7, out_gap=6),
    conv_spec((3, 50), (8, 130), residual=True, out_gap=3),
    conv_spec((6, 6), (20, 40), stride_h=2, stride_w=2),
    conv_spec((2, 3), (5, 3), batch=3),
    ConvSpec.matmul(37, 100, 50),
    ConvSpec.matmul(1, 320, 100, Epilogue(out="f32")),
    ConvSpec.matmul(9, 64, 33, Epilogue(out="i32"), row_stride=80, out_stride=40),
    ConvSpec.matmul(13, 48, 21, Epilogue(table=True), full_range=True),
    conv_spec((8, 8), (3, 32), (3, 3), stride_h=2, stride_w=2),
    conv_spec((9, 11), (3, 10), (7, 7), pixel_gap=1),
    conv_spec((7, 7), (32, 48), (3, 3), residual=True),
    conv_spec((5, 13), (19, 21), (3, 2), dilation_h=2, dilation_w=3, out_gap=2),
    conv_spec((1, 40), (12, 20), (1, 5), stride_w=3),
    conv_spec((10, 20), (64, 64), (3, 3), epilogue=Epilogue(table=True)),
    conv_spec((4, 6), (16, 16), (1, 3), full_range=True),
    conv_spec((3, 3), (130, 5), (3, 3), epilogue=Epilogue(out="i32")),
]


def _check(specs: list[ConvSpec], level: str, seed: int, densities: tuple[float, ...]) -> None:
    isa, rng = ISAS[level], np.random.default_rng(seed)
    found = [conv_case(spec, isa, rng, float(rng.choice(densities))) for spec in specs]
    for spec, result, (_, wanted) in zip(specs, run_kernels([case for case, _ in found], level), found, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {spec}")


@pytest.mark.parametrize("level", every_level())
def test_equals_its_definition(level: str) -> None:
    _check(CONVS, level, 1, (0.1, 0.5, 0.9))


@pytest.mark.parametrize("level", every_level())
def test_weights_of_nothing_but_zeros_or_without_any(level: str) -> None:
    _check(CONVS[:3] + CONVS[-3:], level, 2, (0.0, 1.0))


# Choosing ----------------------------------------------------------------------------------------------------------

LAYER = conv_spec((14, 14), (128, 128), (3, 3))


def _with_blocks(density: float) -> Array:
    return np.full((128, 128, 3, 3), 7, "int8") * block_mask(LAYER, np.random.default_rng(1), density)


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
