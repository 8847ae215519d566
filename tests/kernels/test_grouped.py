"""Grouped convolutions of few channels, beside the exact definition of the groups one by one."""

from __future__ import annotations

from functools import partial

import pytest
from kernels.conv_cases import check_convs, conv_spec
from kernels.levels import every_level
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels.conv_plan import plan_conv
from octavo.backends.tvm.kernels.epilogue import Epilogue
from octavo.backends.tvm.kernels.grouped import choose

SPECS = [
    conv_spec((9, 11), (4, 4), (3, 3), groups=32),
    conv_spec((7, 7), (8, 8), (3, 3), groups=6, stride_h=2, stride_w=2, residual=True),
    conv_spec((6, 5), (16, 8), (1, 3), groups=4, full_range=True),
    conv_spec((5, 8), (1, 2), (7, 7), groups=24, stride_h=2, stride_w=2),
    conv_spec((5, 8), (1, 3), (3, 3), groups=5, pixel_gap=3, out_gap=2),
    conv_spec((4, 9), (2, 2), (3, 3), groups=10, dilation_h=2, dilation_w=2),
    conv_spec((4, 9), (3, 5), (2, 2), groups=4),
    conv_spec((3, 17), (12, 4), (3, 1), groups=9, batch=2, epilogue=Epilogue(out="f32")),
    conv_spec((3, 6), (64, 2), groups=8, epilogue=Epilogue(table=True)),
    conv_spec((6, 6), (24, 24), (3, 3), groups=3),
    conv_spec((20, 20), (32, 32), (3, 3), groups=4),
    conv_spec((18, 16), (48, 48), (3, 3), groups=3, residual=True),
]


@pytest.mark.parametrize("level", every_level())
@pytest.mark.parametrize("seed", range(2))
def test_equals_its_definition(level: str, seed: int) -> None:
    check_convs(SPECS, level, seed, partial(choose, isa=ISAS[level]))


def test_vectors_are_full() -> None:
    spec = choose(conv_spec((9, 11), (4, 4), (3, 3), groups=32), ISAS["avx512vnni"])
    assert (spec.groups, spec.out_channels, spec.in_channels, spec.shared) == (8, 16, 4, 4)
    spec = choose(conv_spec((5, 8), (1, 2), (7, 7), groups=24), ISAS["dotprod"])
    assert (spec.groups, spec.out_channels, spec.in_channels, spec.joined) == (6, 8, 4, 4)


def test_a_task_has_all_groups_where_their_results_share_cache_lines() -> None:
    isa = ISAS["avx512vnni"]
    few, many = (conv_spec((20, 20), (width, width), (3, 3), groups=4) for width in (32, 64))
    assert [plan_conv(spec, isa).inside for spec in (few, many)] == [True, False]


@pytest.mark.parametrize("level", every_level())
def test_zeros_between_groups_are_no_products(level: str) -> None:
    for spec in SPECS:
        assert choose(spec, ISAS[level]).macs == spec.macs


def test_full_groups_stay_as_they_are() -> None:
    for spec in (conv_spec((6, 6), (32, 32), (3, 3), groups=3), conv_spec((6, 6), (3, 4), (3, 3))):
        assert choose(spec, ISAS["avx512vnni"]) == spec
