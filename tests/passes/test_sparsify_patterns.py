"""Patterns of zeros: units go whole, the least important ones, as many as were asked for."""

from __future__ import annotations

import numpy as np
import octavo
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from octavo.backends.tvm.isa import get_isa
from octavo.backends.tvm.kernels.base import StridedView
from octavo.backends.tvm.kernels.conv import ConvSpec
from octavo.backends.tvm.kernels.conv_plan import plan_conv
from octavo.backends.tvm.kernels.packing import pack_weights
from octavo.ir.errors import UsageError
from octavo.ir.ops.constant import Constant
from octavo.ir.ops.conv import Conv
from octavo.ir.ops.matmul import MatMul
from octavo.passes.pruning.sparsity import choose_zeros, find_layers, parse_pattern
from support.sparse import sparsify, traced
from torch import nn

IMPORTANCES = st.integers(0, 1 << 32).map(np.random.default_rng)
SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 9))


@settings(max_examples=60)
@given(
    random=IMPORTANCES, shapes=st.lists(SHAPES, min_size=1, max_size=3), ratio=st.floats(0, 0.99), levels=st.booleans()
)
@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("text", ["single", "block:4x1", "block:1x4", "block:2x3"])
def test_the_ratio_is_reached_within_one_unit(
    text: str,
    scope: str,
    random: np.random.Generator,
    shapes: list[tuple[int, int, int]],
    ratio: float,
    levels: bool,
) -> None:
    importances = [random.integers(3, size=s).astype(float) if levels else random.random(s) for s in shapes]
    zeros = choose_zeros(importances, parse_pattern(text), ratio, scope)  # type: ignore[arg-type]
    largest = {"single": 1, "block:4x1": 4, "block:1x4": 4, "block:2x3": 6}[text]
    for layers in [zeros] if scope == "global" else [[layer] for layer in zeros]:
        count, size = sum(int(z.sum()) for z in layers), sum(z.size for z in layers)
        # The best unit of each layer stays, whatever the ratio.
        assert ratio * size - largest * len(layers) <= count <= ratio * size + 1e-6
    assert all(not z.all() for z in zeros)


@settings(max_examples=100)
@given(random=IMPORTANCES, shape=SHAPES, kept=st.integers(1, 3), more=st.integers(1, 3))
def test_every_group_has_its_zeros_and_the_largest_survive(
    random: np.random.Generator, shape: tuple[int, int, int], kept: int, more: int
) -> None:
    importance, group = random.random(shape), kept + more
    (zeros,) = choose_zeros([importance], parse_pattern(f"{kept}:{group}"), 1 - kept / group, "local")
    for start in range(0, shape[2], group):
        part, gone = importance[..., start : start + group], zeros[..., start : start + group]
        assert ((~gone).sum(-1) == min(kept, part.shape[-1])).all()
        assert (np.where(gone, part, -1).max(-1) <= np.where(gone, 2, part).min(-1)).all()


@settings(max_examples=60)
@given(random=IMPORTANCES, shape=SHAPES, ratio=st.floats(0, 0.99), height=st.integers(1, 4), width=st.integers(1, 4))
def test_blocks_go_whole_or_stay(
    random: np.random.Generator, shape: tuple[int, int, int], ratio: float, height: int, width: int
) -> None:
    importance = random.random(shape)
    (zeros,) = choose_zeros([importance], parse_pattern(f"block:{height}x{width}"), ratio, "local")
    flat, sizes = zeros.reshape(shape[0], -1), importance.reshape(shape[0], -1)
    blocks = [
        (flat[i : i + height, j : j + width], np.sqrt(np.square(sizes[i : i + height, j : j + width]).mean()))
        for i in range(0, flat.shape[0], height)
        for j in range(0, flat.shape[1], width)
    ]
    assert all(block.all() or not block.any() for block, _ in blocks)
    gone = [norm for block, norm in blocks if block.any()]
    left = [norm for block, norm in blocks if not block.any()]
    assert max(gone, default=0) <= min(left)


@pytest.mark.parametrize("text", ["single", "2:4", "block:4x1"])
def test_a_higher_ratio_keeps_the_zeros_of_a_lower_one(text: str) -> None:
    pattern, importance = parse_pattern(text), np.random.default_rng(0).random((8, 9, 8))
    before = np.zeros(importance.shape, bool)
    for ratio in (0.1, 0.25, 0.4, 0.5):
        (zeros,) = choose_zeros([np.where(before, 0, importance)], pattern, ratio, "local")
        assert not (before & ~zeros).any()
        assert ratio * importance.size - 4 < zeros.sum() <= ratio * importance.size
        before = zeros


@pytest.mark.parametrize("text", ["1:999999999", "block:999999999x1", "block:1x999999999"])
def test_patterns_larger_than_a_layer_are_as_large_as_it_is(text: str) -> None:
    importance = np.random.default_rng(0).random((4, 2, 6))
    pattern = parse_pattern(text)
    (zeros,) = choose_zeros([importance], pattern, pattern.most if pattern.most < 1 else 0.99, "local")
    gone = {"1:999999999": zeros.sum(2), "block:999999999x1": zeros.sum(0), "block:1x999999999": zeros.sum((1, 2))}
    whole = {"1:999999999": [5], "block:999999999x1": [0, 4], "block:1x999999999": [0, 12]}
    assert sorted(set(gone[text].flat)) == whole[text]


@pytest.mark.parametrize(
    "text", ["", "2:2", "0:4", "5:4", "block:0x4", "block:4", "2:4x", "random", f"1:{'9' * 5000}", f"block:{10**30}x1"]
)
def test_patterns_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="no pattern of zeros"):
        parse_pattern(text)


class Aligned(nn.Module):
    """Layers whose sizes blocks of 16x4 divide."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.grouped = nn.Conv2d(8, 32, 3), nn.Conv2d(32, 64, (1, 3), groups=2)
        self.linear, self.matrix = nn.Linear(64, 32), nn.Parameter(torch.randn(32, 48))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.linear(self.grouped(self.plain(x)).mean((2, 3))) @ self.matrix
        return y


def test_a_block_is_outputs_by_input_channels_as_kernels_load_them() -> None:
    torch.manual_seed(0)
    graph = octavo.trace(Aligned().eval(), (torch.zeros(1, 8, 8, 8),))
    assert not any("divide" in line for line in sparsify(graph, "ratio=0.75,pattern=block:16x4"))
    isa = get_isa("avx512vnni")
    for layer in find_layers(graph).found:
        assert isinstance(layer.weight.op, Constant)
        array = layer.weight.op.data.numpy()
        weight = array.T if isinstance(layer.node.op, MatMul) else array
        whole = weight.reshape(*weight.shape[:2], -1)
        # By its definition: 16 output channels, 4 input channels, one place of the kernel.
        blocks = whole.reshape(len(whole) // 16, 16, whole.shape[1] // 4, 4, -1)
        dead = (blocks == 0).all((1, 3))
        assert np.array_equal(dead, (blocks == 0).any((1, 3)))
        assert np.count_nonzero(dead) == dead.size * 3 // 4
        # By the order in which the kernel loads them: 64 bytes are 4 steps of the sum for 16 channels.
        conv = layer.node.op if isinstance(layer.node.op, Conv) else None
        groups, (height, width) = (conv.groups, array.shape[2:]) if conv else (1, (1, 1))
        view = StridedView(1 << 16, 1 << 12, groups * whole.shape[1])
        outputs = len(whole) // groups
        spec = ConvSpec(1, 4, 4, whole.shape[1], outputs, view, view, height, width, groups=groups)
        rows = np.sign(whole).astype(np.int8).swapaxes(1, 2).reshape(groups, outputs, -1)
        plan = plan_conv(spec, isa)
        packed = pack_weights(isa, plan.dot, plan.runs, rows, (plan.blocks, plan.tile.vectors)).reshape(-1, 64)
        assert packed.any(1).sum() == np.count_nonzero(~dead)
        assert packed.all(1).sum() == np.count_nonzero(~dead)


def test_layers_that_blocks_do_not_divide_are_reported() -> None:
    lines = sparsify(traced(), "ratio=0.5,pattern=block:4x4")
    assert [line.partition("; ")[2] for line in lines[:-1]] == [
        "8 outputs by 3 input channels do not divide into blocks of 4x4",
        "6 outputs of each group by 4 input channels do not divide into blocks of 4x4",
        "1 outputs of each group by 1 input channels do not divide into blocks of 4x4",
        "3 outputs of each group by 6 input channels do not divide into blocks of 4x4",
        "16 outputs by 54 input channels do not divide into blocks of 4x4",
        "5 outputs by 16 input channels do not divide into blocks of 4x4",
    ]
    remark, *_ = sparsify(traced(), "ratio=0.5,pattern=block:8x27")
    assert remark == "stem keeps its weights: all of them are no more than one block of 8x27"
