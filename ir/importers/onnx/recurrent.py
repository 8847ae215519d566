"""LSTM, GRU and simple recurrent networks."""

from __future__ import annotations

import numpy as np

from ...ops.recurrent import ACTIVATIONS, Activation, Gru, Lstm, Recurrent, Rnn
from .context import Context
from .errors import Refusal
from .moves import transpose
from .operand import Operand
from .registry import translate

_DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
# (alpha, beta) where the node gives none.
_PARAMETERS = {
    "affine": (1.0, 0.0), "elu": (1.0, 0.0), "hardsigmoid": (0.2, 0.5), "leakyrelu": (0.01, 0.0),
    "scaledtanh": (1.0, 1.0), "thresholdedrelu": (1.0, 0.0),
}  # fmt: skip
_TAKES = {"affine": 2, "elu": 1, "hardsigmoid": 2, "leakyrelu": 1, "scaledtanh": 2, "thresholdedrelu": 1}
_OPTIONAL = ("bias", "lengths", "initial_h", "initial_c", "peepholes")


@translate("RNN", "GRU", "LSTM")
def recurrent(c: Context) -> tuple[Operand, ...]:
    """Batch-first layouts are transposed around the op."""
    return _recurrent(c, c.op_type, *c.values_at(1, 2))


@translate("DynamicQuantizeLSTM", domain="com.microsoft")
def dynamic_lstm(c: Context) -> tuple[Operand, ...]:
    """Weights are bytes, transposed; their scales and zero points, for each direction or column, come last."""
    return _recurrent(c, "LSTM", _real(c, 1, 8), _real(c, 2, 10))


def _real(c: Context, index: int, scale: int) -> Operand:
    """The real weight (directions, rows, columns) of stored bytes (directions, columns, rows)."""
    stored = c.constant(index, "a recurrent weight").astype(np.float32)
    parameters = (c.constant(i, "a quantization parameter").astype(np.float32) for i in (scale, scale + 1))
    factor, zero = (np.reshape(part, (len(stored), 1, -1)) for part in parameters)
    return c.const(np.ascontiguousarray(((stored - zero) * factor).transpose(0, 2, 1)))


def _recurrent(c: Context, kind: str, weight: Operand, recurrence: Operand) -> tuple[Operand, ...]:
    batch_first = bool(c.integer("layout", 0))
    indices = [i for i in range(3, 3 + len(_OPTIONAL)) if c.has(i)]
    operands = [c.value(0), weight, recurrence, *c.values_at(*indices)]
    if batch_first:
        operands = [
            _swap(c, x) if i == 0 or _name(i, indices).startswith("initial") else x for i, x in enumerate(operands)
        ]
    op = _op(c, kind, c.fixed(recurrence.type.shape)[-1], tuple(_OPTIONAL[i - 3] for i in indices))
    steps, *last = c.emit_all(op, *operands)
    if batch_first:
        steps = transpose(c, steps, (2, 0, 1, 3))
        last = [_swap(c, x) for x in last]
    return steps, *last


def _name(position: int, indices: list[int]) -> str:
    return _OPTIONAL[indices[position - 3] - 3] if position >= 3 else ""


def _swap(c: Context, x: Operand) -> Operand:
    return transpose(c, x, (1, 0, 2))


def _op(c: Context, kind: str, columns: int, has: tuple[str, ...]) -> Recurrent:
    hidden = c.integer("hidden_size", columns)
    direction = c.text("direction", "forward").lower()
    activations = _activations(c, kind, 2 if direction == "bidirectional" else 1)
    clip = c.real("clip") if c.attr("clip") is not None else None
    match kind:
        case "RNN":
            return Rnn(hidden, activations, direction, clip, has)
        case "GRU":
            return Gru(hidden, activations, direction, clip, has, bool(c.integer("linear_before_reset", 0)))
        case _:
            return Lstm(hidden, activations, direction, clip, has, bool(c.integer("input_forget", 0)))


def _activations(c: Context, kind: str, directions: int) -> tuple[Activation, ...]:
    """Each activation takes its parameters, if any, from the front of the lists."""
    names = c.attr("activations", _DEFAULTS[kind] * directions)
    alphas, betas = list(c.reals("activation_alpha", ())), list(c.reals("activation_beta", ()))
    result: list[Activation] = []
    for name in (str(n).lower() for n in names):
        if name not in ACTIVATIONS:
            raise Refusal(f"activation {name}")
        alpha, beta = _PARAMETERS.get(name, (0.0, 0.0))
        alpha = alphas.pop(0) if alphas and _TAKES.get(name, 0) >= 1 else alpha
        beta = betas.pop(0) if betas and _TAKES.get(name, 0) >= 2 else beta
        result.append((name, alpha, beta))
    return tuple(result)
