"""Random networks through every pass that promises to keep the numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from octavo.ir import Graph, Op, Value, parse_graph, print_graph
from octavo.ir.constants import Tensor, from_tensors
from octavo.ir.ops.cast import Identity
from octavo.ir.ops.conv import Conv, ConvTranspose
from octavo.ir.ops.elementwise import Add, Clamp, Div, HardSigmoid, LeakyRelu, Mul, Neg, Relu, Sigmoid, Sub
from octavo.ir.ops.norm import BatchNorm, Softmax
from octavo.ir.ops.pool import AvgPool, MaxPool
from octavo.ir.ops.reduce import ReduceMean
from octavo.ir.ops.shape import Concat, Pad, Reshape, Slice, Transpose
from octavo.ir.types import f32
from octavo.passes import Exactness, Pipeline, all_passes
from octavo.passes.observers import NumericsCheck

UNARY: tuple[Op, ...] = (
    Identity(),
    Relu(),
    Clamp(-0.5, 0.75),
    Clamp(0.0, 6.0),
    LeakyRelu(0.1),
    Sigmoid(),
    HardSigmoid(),
    Neg(),
    Softmax(1),
)
BINARY: tuple[Op, ...] = (Add(), Add((-1.0, 1.0)), Mul(), Sub())


@dataclass
class Builder:
    """Grows a random network of images (N, C, H, W)."""

    random: np.random.Generator
    graph: Graph
    values: list[Value]

    def constant(self, *shape: int, low: float = -1.0) -> Value:
        return self.graph.constant(Tensor.of(self.random.uniform(low, 1.0, shape).astype(np.float32)))

    def emit(self, op: Op, *inputs: Value) -> None:
        self.values.append(self.graph.insert(op, inputs, origin=f"n{len(self.values)}").output)

    def pick(self, like: Value | None = None) -> Value:
        # The latest values most of all, so that chains form.
        fitting = [v for v in self.values if like is None or v.type == like.type]
        return fitting[max(len(fitting) - 1 - int(self.random.geometric(0.6)), 0)]

    def step(self) -> None:
        x = self.pick()
        actions = (self.unary, self.binary, self.scale, self.conv, self.norm, self.pool, self.move, self.up)
        actions[self.random.integers(len(actions))](x)

    def unary(self, x: Value) -> None:
        self.emit(UNARY[self.random.integers(len(UNARY))], x)

    def binary(self, x: Value) -> None:
        self.emit(BINARY[self.random.integers(len(BINARY))], *([x, self.pick(x)][:: self.random.choice([1, -1])]))

    def scale(self, x: Value) -> None:
        channels = x.type.static_shape[1]
        shape = [(), (1,), (channels, 1, 1), (1, channels, 1, 1)][self.random.integers(4)]
        constant = self.constant(*shape, low=0.5)
        op = (Add(), Mul(), Sub(), Div())[self.random.integers(4)]
        self.emit(op, *((constant, x) if isinstance(op, Add | Mul) and self.random.random() < 0.5 else (x, constant)))

    def conv(self, x: Value) -> None:
        channels, height, width = x.type.static_shape[1:]
        groups = channels if self.random.random() < 0.3 else 1
        outputs, size = int(self.random.integers(1, 3)) * groups, min(int(self.random.integers(1, 4)), height, width)
        padding = int(self.random.integers(2)) if size > 1 else 0
        weight = self.constant(outputs, channels // groups, size, size)
        biases = [self.constant(outputs)] if self.random.random() < 0.5 else []
        self.emit(Conv((1, 1), ((padding, padding),) * 2, (1, 1), groups), x, weight, *biases)

    def up(self, x: Value) -> None:
        if x.type.size > 1000:
            return
        weight = self.constant(x.type.static_shape[1], 2, 2, 2)
        self.emit(ConvTranspose((2, 2), ((0, 0), (0, 0)), (0, 0), (1, 1)), x, weight)

    def norm(self, x: Value) -> None:
        channels = x.type.static_shape[1]
        parameters = [self.constant(channels) for _ in range(3)]
        self.emit(BatchNorm(0.01), x, *parameters, self.constant(channels, low=0.1))

    def pool(self, x: Value) -> None:
        height, width = x.type.static_shape[2:]
        size = min(2, height, width)
        kind = self.random.integers(4)
        if kind == 0:
            self.emit(AvgPool((height, width), (1, 1), ((0, 0), (0, 0)), (1, 1)), x)
        elif kind == 1:
            self.emit(ReduceMean((2, 3), True), x)
        else:
            window = (size, size), (1, 1), ((0, size - 1), (size - 1, 0)), (1, 1)
            self.emit(MaxPool(*window) if kind == 2 else AvgPool(*window), x)

    def move(self, x: Value) -> None:
        batch, channels, height, width = x.type.static_shape
        kind = self.random.integers(6)
        if kind == 0:
            self.emit(Pad(((0, 0), (0, 0), (1, 0), (0, 1))), x)
        elif kind == 1:
            self.emit(Transpose((0, 1, 3, 2)), x)
        elif kind == 2:
            self.emit(Reshape((batch, channels, width, height)), x)
        elif kind == 3 and channels <= 6:
            self.emit(Concat(1), x, self.pick(x))
        elif kind == 4 and height > 2:
            self.emit(Slice((0, 0, 1, 0), (batch, channels, height, width), (1, 1, 1, 1)), x)
        else:
            self.emit(Slice((0,) * 4, (batch, channels, height, width), (1,) * 4), x)


def random_network(seed: int, size: int) -> Graph:
    random = np.random.default_rng(seed)
    graph = Graph()
    builder = Builder(random, graph, [graph.add_input("x", f32(1, 3, 5, 5))])
    for _ in range(size):
        builder.step()
    outputs = dict.fromkeys([builder.values[-1], builder.pick(), builder.pick()])
    graph.set_outputs(list(outputs), [f"y{i}" for i in range(len(outputs))])
    return graph


def feeds(seed: int) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    return [{"x": random.normal(0, 1, (1, 3, 5, 5)).astype(np.float32)} for _ in range(2)]


def check(graph: Graph, text: str, seed: int) -> None:
    before = print_graph(graph)
    Pipeline.parse(text).run(graph, None, [NumericsCheck(feeds(seed), tolerance=2e-4)])
    after = print_graph(graph)
    assert print_graph(parse_graph(after, from_tensors(graph.constants()))) == after, before


PASSES = sorted(c.name for c in all_passes() if c.exactness is not Exactness.LOSSY and c.name != "calibrate")


@pytest.mark.parametrize("name", [*PASSES, "prepare"])
@settings(max_examples=40)
@given(seed=st.integers(0, 1 << 32), size=st.integers(1, 16))
def test_the_numbers_stay(name: str, seed: int, size: int) -> None:
    check(random_network(seed, size), name, seed)


@settings(max_examples=100)
@given(seed=st.integers(0, 1 << 32), size=st.integers(5, 25))
def test_preparing_twice_changes_nothing_more(seed: int, size: int) -> None:
    graph = random_network(seed, size)
    prepare = Pipeline.parse("prepare,prepare")
    prepare.run(graph)
    before = print_graph(graph)
    prepare.run(graph)
    assert print_graph(graph) == before
