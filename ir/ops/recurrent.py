"""Recurrent networks, in the conventions of ONNX: gate order, directions, sequence lengths.

Operands: ``x`` (time, batch, features); ``weight`` (directions, gates * hidden, features); ``recurrence`` (directions,
gates * hidden, hidden); ``bias`` (directions, 2 * gates * hidden), input and recurrent biases; ``lengths`` (batch,)
i64; initial states (directions, batch, hidden). Outputs: all steps (time, directions, batch, hidden), then the last
states (directions, batch, hidden).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F

from ..errors import ModelError
from ..op import Cost, Op, register_op
from ..types import TensorType

Activation = tuple[str, float, float]
"""Name in lower case, alpha, beta."""

_FUNCTIONS: dict[str, Callable[[torch.Tensor, float, float], torch.Tensor]] = {
    "affine": lambda x, a, b: a * x + b,
    "elu": lambda x, a, b: F.elu(x, a),
    "hardsigmoid": lambda x, a, b: torch.clamp(a * x + b, 0.0, 1.0),
    "leakyrelu": lambda x, a, b: F.leaky_relu(x, a),
    "relu": lambda x, a, b: torch.relu(x),
    "scaledtanh": lambda x, a, b: a * torch.tanh(b * x),
    "sigmoid": lambda x, a, b: torch.sigmoid(x),
    "softplus": lambda x, a, b: F.softplus(x),
    "softsign": lambda x, a, b: F.softsign(x),
    "tanh": lambda x, a, b: torch.tanh(x),
    "thresholdedrelu": lambda x, a, b: torch.where(x > a, x, torch.zeros_like(x)),
}
ACTIVATIONS = tuple(_FUNCTIONS)


class Parameters(NamedTuple):
    """What one direction does with its states; ``bias`` belongs to the products with them."""

    recurrence: torch.Tensor
    bias: torch.Tensor
    peepholes: torch.Tensor
    functions: tuple[Activation, ...]


@dataclass(frozen=True)
class Recurrent(Op):
    """What the cells share. ``activations`` holds those of each direction in turn.

    ``direction``: forward, reverse or bidirectional; ``clip`` bounds what enters the activations; ``has`` says which
    optional operands follow ``recurrence``, in order.
    """

    hidden: int
    activations: tuple[Activation, ...]
    direction: str = "forward"
    clip: float | None = None
    has: tuple[str, ...] = ()

    operands: ClassVar[tuple[str, ...]] = ("x", "weight", "recurrence", "rest*")
    gates: ClassVar[int]
    states: ClassVar[int] = 1

    def __post_init__(self) -> None:
        unknown = {name for name, _, _ in self.activations} - set(_FUNCTIONS)
        if unknown or self.direction not in ("forward", "reverse", "bidirectional"):
            raise ModelError(f"{self.name} with {sorted(unknown) or self.direction}", expected=", ".join(ACTIVATIONS))

    @property
    def directions(self) -> int:
        return 2 if self.direction == "bidirectional" else 1

    def infer(
        self, x: TensorType, weight: TensorType, recurrence: TensorType, *rest: TensorType
    ) -> tuple[TensorType, ...]:
        rows = self.gates * self.hidden
        if x.rank != 3 or weight.shape != (self.directions, rows, x.shape[2]):
            raise ModelError(
                f"{self.name} of {x} with weight {weight}", expected=f"[{self.directions}, {rows}, features]"
            )
        if recurrence.shape != (self.directions, rows, self.hidden) or len(rest) != len(self.has):
            raise ModelError(f"{self.name} with recurrence weight {recurrence}")
        time, batch, _ = x.shape
        last = TensorType(x.dtype, (self.directions, batch, self.hidden))
        return (TensorType(x.dtype, (time, self.directions, batch, self.hidden)), *[last] * self.states)

    def run(
        self, x: torch.Tensor, weight: torch.Tensor, recurrence: torch.Tensor, *rest: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        given = dict(zip(self.has, rest, strict=True))
        bias = given.get("bias", x.new_zeros(self.directions, 2 * self.gates * self.hidden))
        own, recurrent = bias.chunk(2, 1)
        products = torch.stack([F.linear(x, weight[d], own[d]) for d in range(self.directions)])
        return self.sweep(products, recurrence, recurrent, given)

    def sweep(
        self, products: torch.Tensor, recurrence: torch.Tensor, bias: torch.Tensor, given: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        """All directions, from products with the inputs (directions, time, batch, gates * hidden)."""
        sweeps = [self._sweep(d, products[d], recurrence[d], bias[d], given) for d in range(self.directions)]
        steps = torch.stack([steps for steps, _ in sweeps], 1)
        return (steps, *(torch.stack([last[i] for _, last in sweeps]) for i in range(self.states)))

    def _sweep(
        self, d: int, x: torch.Tensor, r: torch.Tensor, bias: torch.Tensor, given: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """One direction: its outputs in the order of time, and its last states."""
        time, batch = x.shape[:2]
        zeros = x.new_zeros(batch, self.hidden)
        state = [given[n][d] if n in given else zeros for n in ("initial_h", "initial_c")[: self.states]]
        peepholes = given["peepholes"][d] if "peepholes" in given else x.new_zeros(3 * self.hidden)
        lengths = given.get("lengths")
        backward = self.direction == "reverse" or d == 1
        count = len(self.activations) // self.directions
        parameters = Parameters(r, bias, peepholes, self.activations[d * count : (d + 1) * count])
        outputs: list[torch.Tensor] = []
        for step in reversed(range(time)) if backward else range(time):
            new = self.cell(x[step], state, parameters)
            # Beyond the end of its sequence a row keeps its state and gives 0.
            alive = torch.ones(batch, 1, dtype=torch.bool) if lengths is None else (step < lengths).unsqueeze(1)
            state = [torch.where(alive, n, s) for n, s in zip(new, state, strict=True)]
            outputs.append(torch.where(alive, state[0], zeros))
        steps = torch.stack(outputs[::-1] if backward else outputs) if outputs else x.new_zeros(0, batch, self.hidden)
        return steps, state

    @abstractmethod
    def cell(self, x: torch.Tensor, state: Sequence[torch.Tensor], p: Parameters) -> list[torch.Tensor]:
        """The next states from the products with the input (batch, gates * hidden) and the states of one step."""

    def activate(self, function: Activation, x: torch.Tensor) -> torch.Tensor:
        """A gate's activation after clipping."""
        name, alpha, beta = function
        clipped = x if self.clip is None else torch.clamp(x, -self.clip, self.clip)
        return _FUNCTIONS[name](clipped, alpha, beta)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        time, batch, features = inputs[0].static_shape
        macs = time * batch * self.directions * self.gates * self.hidden * (features + self.hidden)
        return Cost(macs=macs, elementwise=outputs[0].size * 8)


@register_op
@dataclass(frozen=True)
class Rnn(Recurrent):
    """h = f(W x + R h + b)."""

    name: ClassVar[str] = "rnn"
    gates: ClassVar[int] = 1

    def cell(self, x: torch.Tensor, state: Sequence[torch.Tensor], p: Parameters) -> list[torch.Tensor]:
        return [self.activate(p.functions[0], x + F.linear(state[0], p.recurrence, p.bias))]


@register_op
@dataclass(frozen=True)
class Gru(Recurrent):
    """Gated recurrent unit (Cho et al., 2014), gates in the order update, reset, hidden.

    ``linear_before_reset`` applies the reset gate after the recurrent product, as cuDNN does.
    """

    linear_before_reset: bool = False

    name: ClassVar[str] = "gru"
    gates: ClassVar[int] = 3

    def cell(self, x: torch.Tensor, state: Sequence[torch.Tensor], p: Parameters) -> list[torch.Tensor]:
        h = state[0]
        xz, xr, xh = x.chunk(3, -1)
        hz, hr = F.linear(h, p.recurrence[: 2 * self.hidden], p.bias[: 2 * self.hidden]).chunk(2, -1)
        rh, bh = p.recurrence[2 * self.hidden :], p.bias[2 * self.hidden :]
        update, reset = self.activate(p.functions[0], xz + hz), self.activate(p.functions[0], xr + hr)
        recurrent = reset * F.linear(h, rh, bh) if self.linear_before_reset else F.linear(reset * h, rh, bh)
        candidate = self.activate(p.functions[1], xh + recurrent)
        return [(1 - update) * candidate + update * h]


@register_op
@dataclass(frozen=True)
class Lstm(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997), gates in the order input, output, forget, cell.

    ``peepholes`` (directions, 3 * hidden) let the gates see the cell; ``coupled`` makes the forget gate 1 - input.
    """

    coupled: bool = False

    name: ClassVar[str] = "lstm"
    gates: ClassVar[int] = 4
    states: ClassVar[int] = 2

    def cell(self, x: torch.Tensor, state: Sequence[torch.Tensor], p: Parameters) -> list[torch.Tensor]:
        h, cell = state
        i, o, f, g = (x + F.linear(h, p.recurrence, p.bias)).chunk(4, -1)
        pi, po, pf = p.peepholes.chunk(3)
        gate = self.activate(p.functions[0], i + pi * cell)
        forget = 1 - gate if self.coupled else self.activate(p.functions[0], f + pf * cell)
        cell = forget * cell + gate * self.activate(p.functions[1], g)
        out = self.activate(p.functions[0], o + po * cell)
        return [out * self.activate(p.functions[2], cell), cell]


CELLS: dict[str, type[Recurrent]] = {"rnn": Rnn, "gru": Gru, "lstm": Lstm}


@register_op
@dataclass(frozen=True)
class Recurrence(Op):
    """What remains of a recurrent layer when the products with its inputs are made: the way from step to step.

    ``x`` (time, batch, directions * gates * hidden) holds these products and every bias that is added to them.
    ``cell`` is rnn, gru or lstm; the other attributes are those of its op. ``has`` names the operands that follow, out
    of ``hidden_bias`` (directions, hidden), which the reset gate of a gru multiplies with the rest, ``lengths``,
    ``initial_h``, ``initial_c`` and ``peepholes``. Outputs are those of the layer.
    """

    cell: str
    hidden: int
    activations: tuple[Activation, ...]
    direction: str = "forward"
    clip: float | None = None
    has: tuple[str, ...] = ()
    linear_before_reset: bool = False
    coupled: bool = False

    name: ClassVar[str] = "recurrence"
    operands: ClassVar[tuple[str, ...]] = ("x", "recurrence", "rest*")

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise ModelError(f"a recurrence of {self.cell}", expected=", ".join(CELLS))

    @property
    def layer(self) -> Recurrent:
        """The op of the whole layer, without operands of its own."""
        common = (self.hidden, self.activations, self.direction, self.clip)
        match self.cell:
            case "rnn":
                return Rnn(*common)
            case "gru":
                return Gru(*common, (), self.linear_before_reset)
            case _:
                return Lstm(*common, (), self.coupled)

    def infer(self, x: TensorType, recurrence: TensorType, *rest: TensorType) -> tuple[TensorType, ...]:
        layer = self.layer
        rows, count = layer.gates * self.hidden, layer.directions
        if x.rank != 3 or x.shape[2] != count * rows or len(rest) != len(self.has):
            raise ModelError(f"recurrence of {x} and {len(rest)} more", expected=f"(time, batch, {count * rows})")
        if recurrence.shape != (count, rows, self.hidden):
            raise ModelError(f"recurrence with weight {recurrence}", expected=f"[{count}, {rows}, {self.hidden}]")
        time, batch, _ = x.shape
        last = TensorType(x.dtype, (count, batch, self.hidden))
        return (TensorType(x.dtype, (time, count, batch, self.hidden)), *[last] * layer.states)

    def run(self, x: torch.Tensor, recurrence: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
        layer, given = self.layer, dict(zip(self.has, rest, strict=True))
        bias = x.new_zeros(layer.directions, layer.gates * self.hidden)
        if "hidden_bias" in given:
            bias[:, -self.hidden :] = given["hidden_bias"]
        products = x.reshape(*x.shape[:2], layer.directions, -1).permute(2, 0, 1, 3)
        return layer.sweep(products, recurrence, bias, given)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Cost(macs=inputs[0].size * self.hidden, elementwise=outputs[0].size * 8)
