"""Recurrences: what the op means within float rounding, and the same bits on every ISA level."""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np
import pytest
import torch
from kernels.harness import Array, Case, run_kernels
from kernels.levels import every_level
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels.recurrence import GATES, RecurrenceSpec
from octavo.ir.ops.recurrent import Recurrence

SIGMOID, TANH = ("sigmoid", 0.0, 0.0), ("tanh", 0.0, 0.0)
HARD = (("hardsigmoid", 0.2, 0.5), ("leakyrelu", 0.1, 0.0), ("softsign", 0.0, 0.0))
MORE = (("affine", 0.5, 0.25), ("scaledtanh", 1.5, 0.5), ("relu", 0.0, 0.0))
EVERYTHING = ("initial_c", "initial_h", "lengths", "peepholes")
NAN = float("nan")


def spec_of(
    cell: Literal["rnn", "gru", "lstm"],
    time: int,
    batch: int,
    hidden: int,
    directions: int = 1,
    *,
    reverse: bool = False,
    activations: tuple[tuple[str, float, float], ...] = (SIGMOID, TANH, TANH),
    clip: float | None = None,
    has: tuple[str, ...] = (),
    before: bool = False,
    coupled: bool = False,
    gap: int = 0,
) -> RecurrenceSpec:
    """Outputs nest as time, batch, direction, with ``gap`` elements of others after each row."""
    used = activations[{"rnn": 1, "gru": 0, "lstm": 0}[cell] :][: {"rnn": 1, "gru": 2, "lstm": 3}[cell]]
    row = hidden + gap
    out = (batch * directions * row, row, directions * row)
    last = ((batch * row, row),) * (2 if cell == "lstm" else 1)
    return RecurrenceSpec(cell, time, batch, hidden, directions, reverse, used, out, last, clip, has, before, coupled)


SPECS = [
    spec_of("rnn", 5, 1, 7),
    spec_of("rnn", 3, 5, 16, reverse=True, has=("initial_h",), activations=MORE, gap=3),
    spec_of("rnn", 1, 2, 1, 2),
    spec_of("gru", 4, 2, 20, 2, has=("hidden_bias", "initial_h", "lengths"), before=True),
    spec_of("gru", 6, 1, 33, has=("initial_h",), clip=0.7),
    spec_of("gru", 3, 4, 5, 2, activations=HARD, gap=1),
    spec_of("lstm", 9, 3, 37, 2, has=EVERYTHING, clip=0.9, gap=2),
    spec_of("lstm", 4, 8, 16, coupled=True, has=("lengths",)),
    spec_of("lstm", 4, 1, 130, reverse=True, activations=HARD),
    spec_of("lstm", 7, 6, 12, activations=MORE),
]


def operands(spec: RecurrenceSpec) -> dict[str, Array]:
    rng = np.random.default_rng(spec.hidden)
    rows, d, b, h = spec.gates * spec.hidden, spec.directions, spec.batch, spec.hidden
    shapes = {
        "x": (spec.time, b, d * rows),
        "recurrence": (d, rows, h),
        "hidden_bias": (d, h),
        "peepholes": (d, 3 * h),
        "initial_h": (d, b, h),
        "initial_c": (d, b, h),
    }
    made = {n: rng.normal(0, 1, s).astype("float32") for n, s in shapes.items() if n in ("x", "recurrence", *spec.has)}
    made["recurrence"] /= np.float32(np.sqrt(h))
    if "lengths" in spec.has:
        made["lengths"] = rng.integers(0, spec.time + 1, b)
    return made


def expected(spec: RecurrenceSpec) -> list[Array]:
    """What the op gives: steps in the order time, batch, direction; last states."""
    direction = "bidirectional" if spec.directions == 2 else "reverse" if spec.reverse else "forward"
    op = Recurrence(
        spec.cell,
        spec.hidden,
        spec.activations * spec.directions,
        direction,
        spec.clip,
        spec.has,
        spec.linear_before_reset,
        spec.coupled,
    )
    given = operands(spec)
    inputs = [torch.from_numpy(given[name]) for name in ("x", "recurrence", *spec.has)]
    steps, *last = op.run(*inputs)
    return [steps.permute(0, 2, 1, 3).numpy(), *(state.numpy() for state in last)]


def case(spec: RecurrenceSpec, level: str) -> Case:
    given = operands(spec)
    packed = spec.pack(ISAS[level], **{n: given[n] for n in ("recurrence", "hidden_bias", "peepholes") if n in given})
    outs = {name: np.full(_extent(spec, name), NAN, "float32") for name in ("out", *spec.last)}
    return Case(spec, {**given, **packed, **outs})


def _extent(spec: RecurrenceSpec, name: str) -> int:
    row = spec.out_strides[1]
    return spec.batch * spec.directions * row * (spec.time if name == "out" else 1)


@functools.cache
def answers(level: str) -> list[dict[str, Array]]:
    return run_kernels([case(spec, level) for spec in SPECS], level)


@pytest.mark.parametrize("level", every_level())
def test_recurrences_mean_what_the_op_says(level: str) -> None:
    for spec, found in zip(SPECS, answers(level), strict=True):
        row = spec.out_strides[1]
        for name, want in zip(("out", *spec.last), expected(spec), strict=True):
            seen = found[name].reshape(-1, row)
            assert np.isnan(seen[:, spec.hidden :]).all(), f"{spec} wrote past a row of {name}"
            np.testing.assert_allclose(seen[:, : spec.hidden].reshape(want.shape), want, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("level", every_level())
def test_every_level_gives_the_same_bits(level: str) -> None:
    for spec, found, first in zip(SPECS, answers(level), answers("avx2"), strict=True):
        for name in first:
            np.testing.assert_array_equal(found[name], first[name], err_msg=f"{name} of {spec}")


def test_gates_are_those_of_the_cells() -> None:
    assert {name: Recurrence(name, 1, (TANH,) * 3).layer.gates for name in GATES} == GATES
