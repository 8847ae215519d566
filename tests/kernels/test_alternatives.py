"""Whatever measuring may choose: every alternative of a kernel gives the same bytes as its definition says."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
from kernels.conv_cases import conv_case, conv_spec
from kernels.harness import Array, Case, run_kernels
from kernels.levels import every_level
from kernels.test_conv import random_spec
from kernels.test_depthwise import depthwise_case, depthwise_spec, drawn_spec
from octavo.backends.tune import alternatives_of
from octavo.backends.tvm.isa import ISAS, Isa
from octavo.backends.tvm.kernels.base import KernelSpec
from octavo.backends.tvm.kernels.conv import ConvSpec
from octavo.backends.tvm.kernels.conv_plan import plan_conv
from octavo.backends.tvm.kernels.depthwise import DepthwiseSpec, plan_depthwise
from octavo.backends.tvm.kernels.epilogue import Epilogue
from octavo.backends.tvm.kernels.winograd import WinogradSpec
from octavo.backends.tvm.kernels.winograd_tiles import TRANSFORMS

CONVS = [
    conv_spec((14, 14), (96, 64), residual=True),
    conv_spec((7, 7), (30, 200), (3, 3), out_gap=3),
    conv_spec((9, 11), (3, 40), (3, 3), stride_h=2, stride_w=2),
    conv_spec((6, 10), (20, 24), (3, 3), groups=2, batch=2, full_range=True),
    conv_spec((1, 1), (320, 170), epilogue=Epilogue(out="f32")),
    ConvSpec.matmul(37, 100, 90, Epilogue(table=True)),
]
DEPTHWISE = [
    depthwise_spec((7, 10), 130, (3, 3), residual=True),
    depthwise_spec((9, 11), 33, (5, 5), stride_h=2, stride_w=2, pixel_gap=3, out_gap=2),
    depthwise_spec((6, 8), 16, (3, 3), batch=2, epilogue=Epilogue(table=True)),
]


def _alternative(conv: ConvSpec, isa: Isa, index: int, size: int | None) -> KernelSpec:
    """One for a convolution, or for Winograd's filtering of it by tiles of `size`."""
    return alternatives_of(WinogradSpec(conv, size) if size else conv, isa)[index]


def _conv_cases(
    spec: ConvSpec, isa: Isa, rng: np.random.Generator, size: int | None = None
) -> list[tuple[Case, Array]]:
    count = len(alternatives_of(WinogradSpec(spec, size) if size else spec, isa))
    kernels = [partial(_alternative, isa=isa, index=index, size=size) for index in range(count)]
    return [conv_case(spec, isa, rng, kernel) for kernel in kernels]


def _depthwise_cases(spec: DepthwiseSpec, isa: Isa, rng: np.random.Generator) -> list[tuple[Case, Array]]:
    others = alternatives_of(spec, isa)
    return [depthwise_case(other, isa, rng) for other in others if isinstance(other, DepthwiseSpec)]


def _check(made: Sequence[tuple[Case, Array]], level: str) -> None:
    for result, (case, wanted) in zip(run_kernels([case for case, _ in made], level), made, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")


@pytest.mark.parametrize("level", every_level())
def test_convolutions_equal_their_definition(level: str) -> None:
    isa, rng = ISAS[level], np.random.default_rng(1)
    _check([case for spec in CONVS for case in _conv_cases(spec, isa, rng)], level)


@pytest.mark.parametrize("level", every_level("avx2", "avxvnni", "avx512vnni", "neon"))
def test_what_may_replace_winograds_filtering_equals_the_definition(level: str) -> None:
    spec = conv_spec((14, 9), (19, 40), (3, 3), residual=True, out_gap=3)
    made = _conv_cases(spec, ISAS[level], np.random.default_rng(2), max(TRANSFORMS))
    assert {type(case.spec) for case, _ in made} == {ConvSpec, WinogradSpec}
    _check(made, level)


@pytest.mark.parametrize("level", every_level())
def test_depthwise_convolutions_equal_their_definition(level: str) -> None:
    isa, rng = ISAS[level], np.random.default_rng(3)
    _check([case for spec in DEPTHWISE for case in _depthwise_cases(spec, isa, rng)], level)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("level", every_level())
def test_random_ones_equal_their_definition(level: str, seed: int) -> None:
    isa, rng = ISAS[level], np.random.default_rng(seed)
    made = [case for _ in range(4) for case in _conv_cases(random_spec(rng), isa, rng)]
    made += [case for _ in range(4) for case in _depthwise_cases(drawn_spec(rng), isa, rng)]
    _check(made, level)


# What a search relies on -------------------------------------------------------------------------------------------


def _kernels(isa: Isa) -> list[KernelSpec]:
    rng = np.random.default_rng(5)
    random = [*(random_spec(rng) for _ in range(40)), *(drawn_spec(rng) for _ in range(40))]
    winograd = [WinogradSpec(CONVS[1], 4)] if isa.name in {"avx2", "avxvnni", "avx512vnni", "neon"} else []
    return [*CONVS, *DEPTHWISE, *random, *winograd]


@pytest.mark.parametrize("level", ISAS)
def test_steps_and_operands_of_a_plan_stay_what_they_are(level: str) -> None:
    """A copy of an input is a step of its own, and is made for kernels that read beyond its end."""
    isa = ISAS[level]
    for spec in _kernels(isa):
        for other in spec.alternatives(isa):
            assert [arg for arg in other.args if arg.role != "scratch"] == [a for a in spec.args if a.role != "scratch"]
            assert other.macs == spec.macs
            assert {n for n, size in other.over_read(isa).items() if size} == {
                n for n, size in spec.over_read(isa).items() if size
            }


def _plan(spec: KernelSpec, isa: Isa) -> object:
    """What decides the code of a kernel."""
    if isinstance(spec, ConvSpec):
        return plan_conv(spec, isa)
    return plan_depthwise(spec, isa) if isinstance(spec, DepthwiseSpec) else spec


@pytest.mark.parametrize("level", ISAS)
def test_no_kernel_is_measured_twice(level: str) -> None:
    isa = ISAS[level]
    for spec in _kernels(isa):
        plans = [_plan(each, isa) for each in (spec, *spec.alternatives(isa))]
        assert len(set(plans)) == len(plans), spec


@pytest.mark.parametrize("level", ISAS)
def test_threads_find_as_much_to_share(level: str) -> None:
    """What is faster on one thread must not be slower on several."""
    isa = ISAS[level]
    for spec in _kernels(isa):
        assert all(other.tasks(isa) >= min(8, spec.tasks(isa)) for other in alternatives_of(spec, isa))


def test_a_layer_that_the_cost_model_cuts_several_ways_has_alternatives() -> None:
    isa = ISAS["avx512vnni"]
    assert len(alternatives_of(CONVS[0], isa)) >= 3
    assert len(alternatives_of(DEPTHWISE[0], isa)) >= 2


def test_amx_may_lose_to_vpdpbusd_and_the_other_way_round() -> None:
    isa = ISAS["amx"]
    for spec in (conv_spec((7, 7), (16, 16), (3, 3)), conv_spec((28, 28), (1, 16), (3, 3))):
        cuts = [other.cut for other in spec.alternatives(isa) if isinstance(other, ConvSpec)]
        assert {cut.dot.kind for cut in cuts if cut} == {"amx", "vnni"}
