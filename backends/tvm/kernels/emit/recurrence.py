"""Emitter of `RecurrenceSpec`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tvm import tirx

from ...builder import Buffer, Builder, Expr, cast, i64, intrin
from ...isa import Isa, vector_ops
from ..base import emitter
from ..recurrence import Activation, RecurrenceSpec
from .vector_math import VectorMath


@emitter(RecurrenceSpec)
def emit(spec: RecurrenceSpec, isa: Isa, symbol: str) -> Any:
    """A loop over time: the product with the states, then the cell, row by row."""
    b = Builder(symbol)
    buffers = {arg.name: b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args}
    with b.tasks() as task:
        count = spec.batch // spec.rows
        direction = b.let(tirx.floordiv(task, i64(count)))
        row = b.let((task - direction * count) * spec.rows)
        _Task(b, isa, spec, buffers, direction, row).run()
    return b.finish(spec.noalias)


class _Task:
    """Some rows of one direction."""

    def __init__(
        self, b: Builder, isa: Isa, spec: RecurrenceSpec, buffers: dict[str, Buffer], direction: Expr, row: Expr
    ) -> None:
        self.b, self.isa, self.spec, self.buffers = b, isa, spec, buffers
        self.direction, self.row = direction, row
        self.ops = vector_ops(isa)
        self.math = VectorMath(b, self.ops)
        self.scratch, self.padded = buffers["scratch"], spec.padded_hidden(isa)
        # Scratch memory: the rows of every phase, then h, c and the reset h of every row.
        self.starts, at = [], 0
        for phase in range(len(spec.phases)):
            self.starts.append(at)
            at += spec.rows * spec.columns(isa, phase)
        self.h, self.c, self.reset = (at + number * spec.rows * self.padded for number in range(3))

    def run(self) -> None:
        b, spec = self.b, self.spec
        for r in range(spec.rows):
            self._start("initial_h", self.h, r)
            if spec.cell == "lstm":
                self._start("initial_c", self.c, r)
        with b.loop(0, spec.time) as number:
            step = b.let(self._step(number))
            self._products(0, self.h)
            if len(spec.phases) > 1:
                for r in range(spec.rows):
                    self._vectors(partial(self._reset_state, step, r))
                self._products(1, self.reset)
            for r in range(spec.rows):
                self._advance(step, r)
        for name, state in zip(spec.last, (self.h, self.c), strict=False):
            strides = spec.last_strides[spec.last.index(name)]
            for r in range(spec.rows):
                place = b.let(self.direction * strides[0] + (self.row + r) * strides[1])
                self._copy(state + r * self.padded, self.buffers[name], place)

    def _step(self, number: Expr) -> Expr:
        last = self.spec.time - 1
        if self.spec.directions == 2:
            return number + self.direction * (last - 2 * number)
        return i64(last) - number if self.spec.reverse else number

    def _vectors(self, body: Callable[[Expr, int], None]) -> None:
        """``body(first element, how many)`` for every vector of a state; the last one may be shorter."""
        b, lanes, hidden = self.b, self.ops.lanes, self.spec.hidden
        whole = hidden // lanes
        if whole:
            with b.loop(0, whole) as number:
                body(b.let(number * lanes), lanes)
        if hidden % lanes:
            body(i64(whole * lanes), hidden % lanes)

    def _start(self, name: str, state: int, r: int) -> None:
        b, ops, spec = self.b, self.ops, self.spec
        given = self.buffers.get(name)
        place = b.let((self.direction * spec.batch + self.row + r) * spec.hidden)

        def body(at: Expr, _: int) -> None:
            value = ops.const_f32(0) if given is None else given.load(place + at, ops.lanes)
            b.store(self.scratch, at + (state + r * self.padded), value, ops.lanes)

        self._vectors(body)

    def _copy(self, source: int, target: Buffer, place: Expr) -> None:
        def body(at: Expr, count: int) -> None:
            value = self.b.let(self.scratch.load(at + source, self.ops.lanes))
            self.ops.store_words(self.b, target, place + at, [value], count)

        self._vectors(body)

    # Products with the state ------------------------------------------------------------------------------------------

    def _products(self, phase: int, state: int) -> None:
        """Products of the states of all rows with the columns of a phase, each in order of the state's elements."""
        b, ops, spec = self.b, self.ops, self.spec
        columns, width = spec.columns(self.isa, phase), spec.vectors * ops.lanes
        each = [spec.hidden * spec.columns(self.isa, p) for p in range(len(spec.phases))]
        base = b.let(self.direction * sum(each) + sum(each[:phase]))
        weight = self.buffers["recurrence"]
        with b.loop(0, columns // width) as tile:
            acc = b.registers(spec.rows * spec.vectors, ops.f32, "acc")
            for at in range(spec.rows * spec.vectors):
                b.store(acc, at, ops.const_f32(0))
            start = b.let(base + tile * (spec.hidden * width))
            with b.loop(0, b.opaque(spec.hidden)) as k:
                row = b.let(start + k * width)
                weights = [b.let(weight.load(row + v * ops.lanes, ops.lanes)) for v in range(spec.vectors)]
                for r in range(spec.rows):
                    value = b.let(ops.splat(self.scratch[k + (state + r * self.padded)]))
                    for v in range(spec.vectors):
                        at = r * spec.vectors + v
                        fused = intrin(ops.f32, f"llvm.fma.v{ops.lanes}f32", value, weights[v], acc[at])
                        b.store(acc, at, fused)
            for r in range(spec.rows):
                for v in range(spec.vectors):
                    place = tile * width + (self.starts[phase] + r * columns + v * ops.lanes)
                    b.store(self.scratch, place, acc[r * spec.vectors + v], ops.lanes)

    # The cell ---------------------------------------------------------------------------------------------------------

    def _product(self, r: int, gate: int, at: Expr) -> Expr:
        phase = next(p for p, gates in enumerate(self.spec.phases) if gate in gates)
        place = self.spec.phases[phase].index(gate) * self.padded
        start = self.starts[phase] + r * self.spec.columns(self.isa, phase) + place
        return self.b.let(self.scratch.load(at + start, self.ops.lanes))

    def _input(self, step: Expr, r: int, gate: int, at: Expr) -> Expr:
        spec = self.spec
        width = spec.gates * spec.hidden
        row = (step * spec.batch + (self.row + r)) * (spec.directions * width)
        place = row + self.direction * width + (gate * spec.hidden) + at
        return self.b.let(self.buffers["x"].load(place, self.ops.lanes))

    def _sum(self, step: Expr, r: int, gate: int, at: Expr) -> Expr:
        """What enters a gate."""
        return self.b.let(self._product(r, gate, at) + self._input(step, r, gate, at))

    def _state(self, state: int, r: int, at: Expr) -> Expr:
        return self.b.let(self.scratch.load(at + (state + r * self.padded), self.ops.lanes))

    def _constant(self, name: str, number: int, count: int, at: Expr) -> Expr:
        place = (self.direction * count + number) * self.padded + at
        return self.b.let(self.buffers[name].load(place, self.ops.lanes))

    def _reset_state(self, step: Expr, r: int, at: Expr, _: int) -> None:
        """The state times the reset gate, which the hidden gate of a gru reads."""
        gate = self._activate(0, self._sum(step, r, 1, at))
        value = self._mul(gate, self._state(self.h, r, at))
        self.b.store(self.scratch, at + (self.reset + r * self.padded), value, self.ops.lanes)

    def _advance(self, step: Expr, r: int) -> None:
        """The next states of a row and its output; past the end of its sequence a row keeps them and gives 0."""
        b, ops, strides = self.b, self.ops, self.spec.out_strides
        out = self.buffers["out"]
        place = b.let(step * strides[0] + self.direction * strides[1] + (self.row + r) * strides[2])
        cell = {"rnn": self._rnn, "gru": self._gru, "lstm": self._lstm}[self.spec.cell]

        def body(at: Expr, count: int) -> None:
            value = cell(step, r, at)
            b.store(self.scratch, at + (self.h + r * self.padded), value, ops.lanes)
            ops.store_words(b, out, place + at, [value], count)

        def nothing(at: Expr, count: int) -> None:
            ops.store_words(b, out, place + at, [ops.const_f32(0)], count)

        if "lengths" not in self.spec.has:
            self._vectors(body)
            return
        length = b.let(cast("int64", self.buffers["lengths"][self.row + r]))
        with b.when(step < length):
            self._vectors(body)
        with b.when(step >= length):
            self._vectors(nothing)

    def _rnn(self, step: Expr, r: int, at: Expr) -> Expr:
        return self._activate(0, self._sum(step, r, 0, at))

    def _gru(self, step: Expr, r: int, at: Expr) -> Expr:
        update = self._activate(0, self._sum(step, r, 0, at))
        if self.spec.linear_before_reset:
            reset = self._activate(0, self._sum(step, r, 1, at))
            recurrent = self._product(r, 2, at)
            if "hidden_bias" in self.spec.has:
                recurrent = self._add(recurrent, self._constant("hidden_bias", 0, 1, at))
            candidate = self._activate(1, self._add(self._input(step, r, 2, at), self._mul(reset, recurrent)))
        else:
            candidate = self._activate(1, self._sum(step, r, 2, at))
        kept = self._mul(update, self._state(self.h, r, at))
        return self._add(self._mul(self._less_than_one(update), candidate), kept)

    def _lstm(self, step: Expr, r: int, at: Expr) -> Expr:
        entering = [self._sum(step, r, gate, at) for gate in range(4)]
        old = self._state(self.c, r, at)
        gate = self._activate(0, self._peep(entering[0], 0, old, at))
        if self.spec.coupled:
            forget = self._less_than_one(gate)
        else:
            forget = self._activate(0, self._peep(entering[2], 2, old, at))
        new = self._add(self._mul(forget, old), self._mul(gate, self._activate(1, entering[3])))
        self.b.store(self.scratch, at + (self.c + r * self.padded), new, self.ops.lanes)
        opened = self._activate(0, self._peep(entering[1], 1, new, at))
        return self._mul(opened, self._activate(2, new))

    def _peep(self, value: Expr, number: int, cell: Expr, at: Expr) -> Expr:
        if "peepholes" not in self.spec.has:
            return value
        return self._add(value, self._mul(self._constant("peepholes", number, 3, at), cell))

    # Arithmetic -------------------------------------------------------------------------------------------------------

    def _mul(self, x: Expr, y: Expr) -> Expr:
        return self.math.call("mul", [x, y])

    def _add(self, x: Expr, y: Expr) -> Expr:
        return self.math.call("add", [x, y])

    def _less_than_one(self, x: Expr) -> Expr:
        return self.math.call("sub", [self.ops.const_f32(1), x])

    def _activate(self, number: int, x: Expr) -> Expr:
        """An activation of the cell, after clipping."""
        clip = self.spec.clip
        if clip is not None:
            x = self.math.stored(self._bounded(x, -clip, clip))
        return self._function(self.spec.activations[number], x)

    def _bounded(self, x: Expr, low: float, high: float) -> Expr:
        raised = self.math.call("max", [self.ops.const_f32(low), x])
        return self.math.call("min", [self.ops.const_f32(high), raised])

    def _function(self, function: Activation, x: Expr) -> Expr:
        call, const = self.math.call, self.ops.const_f32
        name, alpha, beta = function
        match name:
            case "sigmoid" | "tanh":
                return call(name, [x])
            case "relu":
                return call("max", [const(0), x])
            case "affine":
                return self._add(self._mul(x, const(alpha)), const(beta))
            case "hardsigmoid":
                return self._bounded(self._function(("affine", alpha, beta), x), 0.0, 1.0)
            case "scaledtanh":
                return self._mul(call("tanh", [self._mul(x, const(beta))]), const(alpha))
            case "leakyrelu":
                return call("where", [call("less", [x, const(0)]), self._mul(x, const(alpha)), x])
            case _:
                return call("div", [x, self._add(call("abs", [x]), const(1))])
