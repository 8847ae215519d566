"""The recurrence of rnn, gru and lstm layers in float32, from step to step. No tvm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..isa import Isa
from .base import Arg, Array, KernelSpec, round_up

Activation = tuple[str, float, float]

GATES = {"rnn": 1, "gru": 3, "lstm": 4}

#: Accumulators of the product with the state: enough to hide the latency of a multiply-add, on every level.
ACCUMULATORS = 8
#: The widest vector, in lanes: what scratch memory is sized by.
WIDEST = 16


@dataclass(frozen=True)
class RecurrenceSpec(KernelSpec):
    """All steps of some rows of one direction: the states stay in scratch memory.

    ``x`` (time, batch, directions * gates * hidden) is contiguous; so are the initial states (directions, batch,
    hidden). A gate is ``f(p + x)`` with ``p = fma(h_k, r_k, ... fma(h_0, r_0, 0))`` in order of k, and every other
    product is rounded before it is added: the bits are the same on every level. Strides are in elements:
    ``out_strides`` of step, direction and row, ``last_strides`` of direction and row for each last state.

    `pack` takes recurrence float32[directions, gates * hidden, hidden], and where ``has`` names them hidden_bias
    float32[directions, hidden] and peepholes float32[directions, 3 * hidden].
    """

    cell: Literal["rnn", "gru", "lstm"]
    time: int
    batch: int
    hidden: int
    directions: int
    reverse: bool
    activations: tuple[Activation, ...]
    out_strides: tuple[int, int, int]
    last_strides: tuple[tuple[int, int], ...]
    clip: float | None = None
    has: tuple[str, ...] = ()
    linear_before_reset: bool = False
    coupled: bool = False
    lengths: Literal["int32", "int64"] = "int64"

    @property
    def args(self) -> tuple[Arg, ...]:
        optional = (
            ("hidden_bias", "float32", "const"),
            ("peepholes", "float32", "const"),
            ("lengths", self.lengths, "in"),
            ("initial_h", "float32", "in"),
            ("initial_c", "float32", "in"),
        )
        return (
            Arg("x", "float32", "in"),
            Arg("recurrence", "float32", "const"),
            *(Arg(name, dtype, role) for name, dtype, role in optional if name in self.has),  # type: ignore[arg-type]
            Arg("scratch", "float32", "scratch", 4 * self.rows * self._scratch_row),
            Arg("out", "float32", "out"),
            *(Arg(name, "float32", "out") for name in self.last),
        )

    @property
    def last(self) -> tuple[str, ...]:
        """The names of the last states."""
        return ("last_h", "last_c")[: len(self.last_strides)]

    @property
    def gates(self) -> int:
        return GATES[self.cell]

    @property
    def rows(self) -> int:
        """Rows of the batch that one task advances together, so that weights are loaded once for all."""
        return max(n for n in (1, 2, 3, 4) if self.batch % n == 0)

    @property
    def vectors(self) -> int:
        """Vectors of columns in a register tile."""
        return ACCUMULATORS // self.rows

    @property
    def phases(self) -> tuple[tuple[int, ...], ...]:
        """Gates whose products are made at once: the hidden gate of a gru may need the reset gate before."""
        return ((0, 1), (2,)) if self.cell == "gru" and not self.linear_before_reset else (tuple(range(self.gates)),)

    @property
    def _scratch_row(self) -> int:
        hidden = round_up(self.hidden, WIDEST)
        gates = sum(len(phase) * hidden + self.vectors * WIDEST for phase in self.phases)
        return gates + 3 * hidden

    @property
    def macs(self) -> int:
        return self.time * self.batch * self.directions * GATES[self.cell] * self.hidden * self.hidden

    def instruction(self, isa: Isa) -> str:
        return "fma"

    def tasks(self, isa: Isa) -> int:
        return self.directions * (self.batch // self.rows)

    def padded_hidden(self, isa: Isa) -> int:
        """Columns of one gate, in whole vectors."""
        return round_up(self.hidden, isa.lanes)

    def columns(self, isa: Isa, phase: int) -> int:
        """Columns of one phase, in whole register tiles."""
        return round_up(len(self.phases[phase]) * self.padded_hidden(isa), self.vectors * isa.lanes)

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        weight = arrays["recurrence"].reshape(self.directions, self.gates, self.hidden, self.hidden)
        packed = {"recurrence": self._packed(isa, weight)}
        for name, count in (("hidden_bias", 1), ("peepholes", 3)):
            if name in self.has:
                wide = np.zeros((self.directions, count, self.padded_hidden(isa)), "float32")
                wide[:, :, : self.hidden] = arrays[name].reshape(self.directions, count, self.hidden)
                packed[name] = wide.reshape(-1)
        return packed

    def _packed(self, isa: Isa, weight: Array) -> Array:
        """For each direction, phase and register tile: a row of columns for each element of the state."""
        padded, width = self.padded_hidden(isa), self.vectors * isa.lanes
        parts = []
        for direction in weight:
            for number, gates in enumerate(self.phases):
                columns = np.zeros((self.hidden, self.columns(isa, number)), "float32")
                for place, gate in enumerate(gates):
                    columns[:, place * padded : place * padded + self.hidden] = direction[gate].T
                parts.append(columns.reshape(self.hidden, -1, width).transpose(1, 0, 2).reshape(-1))
        return np.ascontiguousarray(np.concatenate(parts))

    def over_read(self, isa: Isa) -> dict[str, int]:
        named = [name for name in ("x", "initial_h", "initial_c") if name == "x" or name in self.has]
        return dict.fromkeys(named, 4 * isa.lanes)
