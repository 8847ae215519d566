"""Tasks of equal numbers are shares of equal size."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels.conv_cases import conv_spec
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels.base import CACHE_LINE, StridedView
from octavo.backends.tvm.kernels.conv_plan import ConvPlan, plan_conv
from octavo.backends.tvm.kernels.depthwise import DepthwisePlan, DepthwiseSpec, plan_depthwise
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


def _written(plan: DepthwisePlan, threads: int) -> list[dict[int, int]]:
    """For each thread how often it writes each line of the output, tile by tile and channel block by channel block."""
    w, h = plan.geometry.w, plan.geometry.h
    lines: list[dict[int, int]] = [{} for _ in range(threads)]
    bounds = [plan.tasks * thread // threads for thread in range(threads + 1)]
    for thread, (begin, end) in enumerate(pairwise(bounds)):
        for task in range(begin, end):
            rest, chunk = divmod(task, plan.channel_chunks)
            rest, stretch = divmod(rest, plan.stretches)
            row = min(rest * plan.rows, h.count - plan.rows)
            for block in range(plan.blocks)[chunk * plan.chunk_blocks :][: plan.chunk_blocks]:
                for tile in range(plan.pixel_tiles)[stretch * plan.chunk_tiles :][: plan.chunk_tiles]:
                    pixel = min(tile * plan.pixels, w.count - plan.pixels)
                    for y, x in product(range(row, row + plan.rows), range(pixel, pixel + plan.pixels)):
                        line = (y * h.out + x * w.out + plan.block_start(block)) // CACHE_LINE
                        lines[thread][line] = lines[thread].get(line, 0) + 1
    return lines


def _depthwise(out: tuple[int, int], channels: int, kernel: int, level: str) -> DepthwisePlan:
    padded = StridedView.dense(out[0] + kernel - 1, out[1] + kernel - 1, channels)
    dense = StridedView.dense(*out, channels)
    return plan_depthwise(DepthwiseSpec(1, *out, channels, padded, dense, kernel, kernel), ISAS[level])


@pytest.mark.parametrize("level", ISAS)
@pytest.mark.parametrize(("size", "channels"), [(112, 32), (56, 144), (28, 192), (14, 384), (14, 576), (7, 960)])
def test_two_threads_share_a_depthwise_convolution_evenly(level: str, size: int, channels: int) -> None:
    plan = _depthwise((size, size), channels, 3, level)
    shares = [sum(lines.values()) for lines in _written(plan, 2)]
    assert plan.tasks <= MOST_TASKS * 2
    assert max(shares) * 2 / sum(shares) <= 1.06


@pytest.mark.parametrize("level", ISAS)
@pytest.mark.parametrize(("out", "channels"), [((3, 96), 40), ((3, 96), 88), ((2, 96), 104), ((2, 96), 200)], ids=str)
def test_two_threads_write_different_lines_of_a_depthwise_convolution(
    level: str, out: tuple[int, int], channels: int
) -> None:
    left, right = _written(_depthwise(out, channels, 5, level), 2)
    assert min(len(left), len(right)) >= 0.45 * max(len(left), len(right))
    assert len(left.keys() & right.keys()) <= 0.05 * len(left.keys() | right.keys())
