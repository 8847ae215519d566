"""Tasks of equal numbers are shares of equal size."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels.conv_cases import conv_spec
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels.base import StridedView
from octavo.backends.tvm.kernels.conv import ConvPlan, plan_conv
from octavo.backends.tvm.kernels.depthwise import DepthwiseSpec, plan_depthwise
from octavo.backends.tvm.kernels.division import MOST_TASKS, TASKS, best_division, lost, parts, sizes
from octavo.backends.tvm.kernels.maddubs import MaddubsConvSpec, plan_maddubs

#: Convolutions of networks for images: size, channels, kernel.
LAYERS: list[tuple[Any, ...]] = [
    ((112, 112), (16, 96)),
    ((56, 56), (96, 24)),
    ((28, 28), (128, 512)),
    ((14, 14), (64, 384)),
    ((14, 14), (384, 96)),
    ((14, 14), (1024, 256)),
    ((7, 7), (160, 960)),
    ((7, 7), (960, 320)),
    ((28, 28), (128, 128), (3, 3)),
    ((7, 7), (512, 512), (3, 3)),
]


@given(st.integers(1, 500), st.integers(1, 40))
def test_parts_are_even_and_cover_everything(count: int, fewest: int) -> None:
    for part in parts(count, fewest):
        assert sum(sizes(count, part)) == count
        assert part <= -(-count // fewest)


def test_what_is_lost_is_the_time_of_the_slowest() -> None:
    assert lost([1, 1, 1, 1], 4) == pytest.approx(0)
    # One thread loses nothing, two have 3 and 1 of 4, four wait for the 3.
    assert lost([1.5, 1.5, 0.5, 0.5], 4) == pytest.approx((1 + 1.5 + 1.5) / 3 - 1)
    assert lost([1, 1, 1, 1], 2) == pytest.approx(1)


def test_divisions_of_enough_tasks_come_before_cheaper_ones() -> None:
    assert best_division([("few", [8.0, 8.0]), ("many", [1.0] * TASKS)], 16) == "many"
    assert best_division([("few", [8.0, 8.0]), ("uneven", [12.0, 4.0])], 16) == "few"


def _shares(plan: ConvPlan, threads: int) -> list[int]:
    """Products of each thread, counted one by one."""
    lines, units = plan.batches.count * plan.outer.count, plan.inner.count
    shares = [0] * threads
    tasks = plan.channel_chunks * plan.pixel_chunks
    bounds = [tasks * thread // threads for thread in range(threads + 1)]
    for thread in range(threads):
        for task in range(bounds[thread], bounds[thread + 1]):
            chunk, pixels = divmod(task, plan.pixel_chunks)
            line, stretch = divmod(pixels, plan.inner_chunks)
            blocks = range(plan.blocks)[chunk * plan.chunk_blocks :][: plan.chunk_blocks]
            rows = range(lines)[line * plan.chunk_outer :][: plan.chunk_outer]
            width = plan.chunk_tiles * plan.tile.units
            shares[thread] += len(blocks) * len(rows) * len(range(units)[stretch * width :][:width])
    assert sum(shares) == plan.blocks * lines * units
    return shares


@pytest.mark.parametrize("level", ISAS)
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_two_threads_share_a_convolution_evenly(level: str, layer: tuple[Any, ...]) -> None:
    spec = conv_spec(*layer)
    plans = [plan_conv(spec, ISAS[level])]
    if level == "avx2":
        plans.append(plan_maddubs(MaddubsConvSpec(spec), ISAS[level]))
    for plan in plans:
        for threads, most in ((2, 1.05), (4, 1.15)):
            shares = _shares(plan, threads)
            assert max(shares) * threads / sum(shares) <= most, f"{threads} threads: {shares}"


@pytest.mark.parametrize("level", ISAS)
@pytest.mark.parametrize(("size", "channels"), [(112, 32), (56, 144), (28, 192), (14, 384), (14, 576), (7, 960)])
def test_two_threads_share_a_depthwise_convolution_evenly(level: str, size: int, channels: int) -> None:
    view = StridedView.dense(size + 2, size + 2, channels)
    spec = DepthwiseSpec(1, size, size, channels, view, StridedView.dense(size, size, channels), 3, 3)
    plan = plan_depthwise(spec, ISAS[level])
    lines = plan.row_tiles
    costs = sizes(plan.blocks, plan.chunk_blocks) * lines
    assert len(costs) == spec.tasks(ISAS[level]) <= MOST_TASKS * 2
    half = len(costs) // 2
    assert max(sum(costs[:half]), sum(costs[half:])) * 2 / sum(costs) <= 1.03
