"""Recurrent layers: one op for each layer, which goes over all time steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ....graph import Value
from ....ops.recurrent import Gru, Lstm, Recurrent, Rnn
from ....ops.shape import Concat
from ..context import Context, Refusal, translate

aten = torch.ops.aten
Maker = Callable[[int, str, tuple[str, ...]], Recurrent]

SIGMOID, TANH, RELU = ("sigmoid", 0.0, 0.0), ("tanh", 0.0, 0.0), ("relu", 0.0, 0.0)
# Where torch keeps the gates that our ops want in their order.
LSTM_GATES = (0, 3, 1, 2)
GRU_GATES = (1, 0, 2)


@translate(aten.lstm.input)
def lstm(
    ctx: Context,
    x: Value,
    state: Sequence[Value],
    parameters: Sequence[Value],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Value, ...]:
    def make(hidden: int, direction: str, has: tuple[str, ...]) -> Recurrent:
        return Lstm(hidden, (SIGMOID, TANH, TANH) * _directions(direction), direction, None, has)

    return _stack(ctx, make, LSTM_GATES, x, state, parameters, has_biases, layers, bidirectional, batch_first)


@translate(aten.gru.input)
def gru(
    ctx: Context,
    x: Value,
    state: Value,
    parameters: Sequence[Value],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Value, ...]:
    def make(hidden: int, direction: str, has: tuple[str, ...]) -> Recurrent:
        return Gru(hidden, (SIGMOID, TANH) * _directions(direction), direction, None, has, True)

    return _stack(ctx, make, GRU_GATES, x, [state], parameters, has_biases, layers, bidirectional, batch_first)


@translate(aten.rnn_tanh.input, aten.rnn_relu.input)
def rnn(
    ctx: Context,
    x: Value,
    state: Value,
    parameters: Sequence[Value],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Value, ...]:
    function = RELU if "relu" in str(ctx.node.target) else TANH

    def make(hidden: int, direction: str, has: tuple[str, ...]) -> Recurrent:
        return Rnn(hidden, (function,) * _directions(direction), direction, None, has)

    return _stack(ctx, make, (0,), x, [state], parameters, has_biases, layers, bidirectional, batch_first)


def _directions(direction: str) -> int:
    return 2 if direction == "bidirectional" else 1


def _stack(
    ctx: Context,
    make: Maker,
    gates: tuple[int, ...],
    x: Value,
    state: Sequence[Value],
    parameters: Sequence[Value],
    has_biases: bool,
    layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Value, ...]:
    """Layers one on another; returns all steps of the last one and the last states of each."""
    arrays = [array for array in map(ctx.known, parameters) if array is not None]
    directions = 2 if bidirectional else 1
    each = 4 if has_biases else 2
    if len(arrays) != len(parameters) or len(arrays) != each * layers * directions:
        raise Refusal("weights that are computed, or projections of the state")
    if batch_first:
        x = ctx.transpose(x, (1, 0, 2))
    last: list[tuple[Value, ...]] = []
    for layer in range(layers):
        own = arrays[layer * directions * each : (layer + 1) * directions * each]
        groups = [own[d * each : (d + 1) * each] for d in range(directions)]
        x, *states = _layer(ctx, make, gates, x, _initial(ctx, state, layer, directions), groups, layer)
        last.append(tuple(states))
    joined = [_join(ctx, [states[i] for states in last]) for i in range(len(state))]
    return (ctx.transpose(x, (1, 0, 2)) if batch_first else x, *joined)


def _initial(ctx: Context, state: Sequence[Value], layer: int, directions: int) -> list[Value]:
    """The layer's part of the initial states; none where all are zero."""
    known = [ctx.known(part) for part in state]
    if all(array is not None and not array.any() for array in known):
        return []
    return [ctx.slice(part, 0, layer * directions, (layer + 1) * directions) for part in state]


def _layer(
    ctx: Context,
    make: Maker,
    gates: tuple[int, ...],
    x: Value,
    initial: list[Value],
    groups: list[list[np.ndarray]],
    layer: int,
) -> tuple[Value, ...]:
    directions, hidden = len(groups), groups[0][1].shape[1]
    ordered = [[_reorder(array, gates) for array in group] for group in groups]
    packed = {
        "weight": np.stack([group[0] for group in ordered]),
        "recurrence": np.stack([group[1] for group in ordered]),
    }
    if len(ordered[0]) == 4:
        packed["bias"] = np.stack([np.concatenate(group[2:]) for group in ordered])
    operands = [ctx.constant(array, f"{ctx.origin}.{name}_l{layer}") for name, array in packed.items()]
    has = (*(["bias"] if "bias" in packed else []), *("initial_h", "initial_c")[: len(initial)])
    op = make(hidden, "bidirectional" if directions == 2 else "forward", has)
    steps, *states = ctx.emit_all(op, x, *operands, *initial)
    time, _, batch, _ = steps.type.shape
    turned = ctx.transpose(steps, (0, 2, 1, 3)) if directions > 1 else steps
    return ctx.reshape(turned, (time, batch, directions * hidden)), *states


def _reorder(array: np.ndarray, gates: tuple[int, ...]) -> np.ndarray:
    blocks = np.split(array, len(gates))
    return np.concatenate([blocks[gate] for gate in gates])


def _join(ctx: Context, parts: list[Value]) -> Value:
    return parts[0] if len(parts) == 1 else ctx.emit(Concat(0), *parts)
