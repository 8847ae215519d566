"""Chains of float functions: close to float64, and the same bits on every ISA level."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernels.harness import Array, Case, run_kernels
from kernels.levels import every_level
from kernels.strided_cases import extent, gapped, strided
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels.chain import ARITY, ChainSpec
from octavo.backends.tvm.kernels.strided import dense_strides

COUNT = 3001
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "min": np.minimum,
    "max": np.maximum,
    "less": lambda x, y: (x < y).astype(x.dtype),
    "less_equal": lambda x, y: (x <= y).astype(x.dtype),
    "equal": lambda x, y: (x == y).astype(x.dtype),
    "where": lambda c, x, y: np.where(c != 0, x, y),
    "neg": np.negative,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "floor": np.floor,
    "ceil": np.ceil,
    "rint": np.rint,
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "erf": np.vectorize(math.erf, otypes=["float64"]),
    "sin": lambda x: np.sin(np.where(np.abs(x) < 1e5, x, np.nan)),
    "cos": lambda x: np.cos(np.where(np.abs(x) < 1e5, x, np.nan)),
    "tan": lambda x: np.tan(np.where(np.abs(x) < 1e5, x, np.nan)),
    **{f"a{name}": getattr(np, f"arc{name}") for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    "sinh": np.sinh,
    "cosh": np.cosh,
}
INVERSE = {"tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh"}
APPROXIMATE = INVERSE | {"exp", "log", "tanh", "sigmoid", "erf", "sin", "cos"}
SPECIAL = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-40, 3.4e38, 88.8, -90.0, -104.5, 0.5, 1.5, 2.5]
SHAPES = [
    ChainSpec((5, 3, 20), (None, (20, 0, 1)), (("mul", 0, 1), ("add", 2, 0))),
    ChainSpec((4, 33), (gapped((4, 33), 3), (1, 0)), (("sub", 0, 1), ("mul", 3, 2)), 1, (40, 1)),
    ChainSpec((3, 5, 7), ((1, 3, 15),), (("mul", 0, 1), ("max", 3, 2)), 2),
    ChainSpec((9000,), (None,), (("mul", 0, 0),)),
]


def _inputs(spec: ChainSpec) -> list[Array]:
    rng = np.random.default_rng(53)
    found = []
    for number, strides in enumerate(spec.strides):
        x = rng.normal(0, 1, extent(spec.shape, strides or dense_strides(spec.shape))) * 10 ** rng.uniform(-3, 1.5)
        x = x.astype("float32")
        if spec.shape == (COUNT,):
            x[: len(SPECIAL) ** 2] = np.repeat(SPECIAL, len(SPECIAL)) if number else np.tile(SPECIAL, len(SPECIAL))
        found.append(x)
    return found


def _cases() -> list[Case]:
    functions = [ChainSpec((COUNT,), (None,) * arity, ((name, *range(arity)),)) for name, arity in ARITY.items()]
    cases = []
    for spec in [*functions, *SHAPES]:
        out = np.full(extent(spec.shape, spec.out_strides or dense_strides(spec.shape)) + 3, 77, "float32")
        named = {f"x{number}": x for number, x in enumerate(_inputs(spec))}
        packed = spec.pack(ISAS["avx2"], parameters=np.array([0.75, -0.5], "float32")[: spec.parameters])
        cases.append(Case(spec, {**named, "out": out, **packed}))
    return cases


@functools.cache
def _expected() -> list[Array]:
    return [result["out"] for result in run_kernels(_cases(), "avx2")]


@pytest.mark.parametrize("level", every_level())
def test_chains_give_the_same_bits_everywhere(level: str) -> None:
    cases = _cases()
    for case, result, wanted in zip(cases, run_kernels(cases, level), _expected(), strict=True):
        nan = np.isnan(wanted)
        np.testing.assert_array_equal(np.isnan(result["out"]), nan, err_msg=f"{level}: {case.spec}")
        seen, same = result["out"].copy(), wanted.copy()
        seen[nan] = same[nan] = 0
        np.testing.assert_array_equal(seen.view("int32"), same.view("int32"), err_msg=f"{level}: {case.spec}")


@pytest.mark.parametrize("name", ARITY)
def test_functions_are_right(name: str) -> None:
    position = list(ARITY).index(name)
    case, result = _cases()[position], _expected()[position][:COUNT]
    inputs = [np.asarray(case.arrays[f"x{number}"]) for number in range(ARITY[name])]
    with np.errstate(all="ignore"):
        if name not in APPROXIMATE:
            np.testing.assert_array_equal(result, FUNCTIONS[name](*inputs))
            return
        exact = FUNCTIONS[name](*[x.astype("float64") for x in inputs])
        unit = np.spacing(np.abs(exact).astype("float32")).astype("float64")
        finite = np.isfinite(exact.astype("float32"))
        if name not in ("sin", "cos"):
            np.testing.assert_array_equal(result[~finite], exact[~finite].astype("float32"))
        assert np.max(np.abs(result[finite] - exact[finite]) / unit[finite]) < 3


def test_strided_and_broadcast_operands() -> None:
    for case, result in zip(_cases()[len(ARITY) :], _expected()[len(ARITY) :], strict=True):
        spec = case.spec
        assert isinstance(spec, ChainSpec)
        dense = dense_strides(spec.shape)
        values = [
            strided(np.asarray(case.arrays[f"x{number}"]), spec.shape, strides or dense)
            for number, strides in enumerate(spec.strides)
        ]
        values += [np.full(spec.shape, value, "float32") for value in (0.75, -0.5)[: spec.parameters]]
        for name, *numbers in spec.steps:
            values.append(FUNCTIONS[str(name)](*[values[int(number)] for number in numbers]))
        wanted = np.full_like(result, 77)
        strided(wanted, spec.shape, spec.out_strides or dense)[...] = values[-1]
        np.testing.assert_array_equal(result, wanted, err_msg=str(spec))
