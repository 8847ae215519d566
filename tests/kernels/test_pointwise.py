"""Comparisons, logic, choices and integer arithmetic beside numpy, on every ISA level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernels.harness import Array, Case, run_kernels
from kernels.levels import every_level
from kernels.strided_cases import extent, gapped, strided
from octavo.backends.tvm.kernels.cast import CastSpec
from octavo.backends.tvm.kernels.pointwise import ARITHMETIC, COMPARISONS, OPERANDS, PREDICATES, PointwiseSpec
from octavo.backends.tvm.kernels.strided import dense_strides

COUNT = 1201
FLOATS = [0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 3.0, 0.1, np.inf, -np.inf, np.nan, 1e-40, -3e-45, 3.4e38, 1e10, 7.3e-20]
INTEGERS = [0, 1, -1, 2, -2, 7, -7, 31, 32, 63, 64, -64, 100]


def _safe(function: Callable[..., Any], guard: int = 0) -> Callable[..., Array]:
    """An integer division that gives `guard` for a divisor of 0."""

    def run(x: Array, y: Array) -> Array:
        result = function(x, np.where(y == 0, 1, y))
        return np.where(y == 0, guard, result)

    return run


def _truncated(x: Array, y: Array) -> Array:
    """The quotient toward zero; the least number over -1 wraps around."""
    size = np.floor_divide(x, y)
    quotient: Array = size + ((size < 0) & (np.fmod(x, y) != 0))
    return quotient


def _remainder(x: Array, y: Array) -> Array:
    """As torch has it for floats: a remainder of 0 keeps the sign of x, unlike numpy's."""
    if x.dtype != np.float32:
        whole: Array = np.remainder(x, y)
        return whole
    rest = np.fmod(x, y)
    return np.where((rest != 0) & (np.signbit(rest) != np.signbit(y)), rest + y, rest)


def _shifted(x: Array, y: Array, left: bool) -> Array:
    bits = 8 * x.itemsize
    inside, amount = (y >= 0) & (y < bits), np.clip(y, 0, bits - 1)
    if left:
        return np.where(inside, np.left_shift(x, amount), 0)
    return np.right_shift(x, np.where(inside, amount, bits - 1))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "isnan": np.isnan,
    "isinf": np.isinf,
    "positive_inf": lambda x: x == np.inf,
    "negative_inf": lambda x: x == -np.inf,
    "equal": np.equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "where": lambda c, x, y: np.where(c != 0, x, y),
    "not": np.invert,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "shift_left": lambda x, y: _shifted(x, y, True),
    "shift_right": lambda x, y: _shifted(x, y, False),
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _safe(_truncated),
    "mod": _remainder,
    "fmod": np.fmod,
    "min": np.minimum,
    "max": np.maximum,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
}
DTYPES = {
    **dict.fromkeys(PREDICATES, ("float32",)),
    **dict.fromkeys(COMPARISONS, ("float32", "int32", "int64", "uint8", "bool")),
    **dict.fromkeys(ARITHMETIC, ("int32", "int64")),
    **dict.fromkeys(("and", "or", "xor", "not"), ("bool", "int32", "int64", "uint8")),
    **dict.fromkeys(("mod", "fmod"), ("float32", "int32", "int64", "uint8")),
    "where": ("float32", "int32", "int64", "bool"),
}
POINTWISE = [PointwiseSpec(op, t, (COUNT,), (None,) * OPERANDS[op]) for op, types in DTYPES.items() for t in types]
SHAPES = [
    PointwiseSpec("where", "float32", (2, 3, 5, 40), ((0, 0, 40, 1), None, (0, 0, 0, 0))),
    PointwiseSpec("where", "float32", (4, 33), ((33, 1), gapped((4, 33), 3), (1, 0)), (40, 1)),
    PointwiseSpec("less_equal", "int64", (7, 7), ((0, 1), (1, 0))),
    PointwiseSpec("and", "bool", (3, 5, 7), ((1, 3, 15), (0, 0, 1))),
    PointwiseSpec("equal", "float32", (20000,), (None, (0,))),
]
CASTS = [
    CastSpec(source, target, (len(FLOATS) * 9,))
    for source in ("float32", "int32", "int64", "uint8", "int8", "bool")
    for target in ("float32", "int32", "int64", "uint8", "int8", "bool")
]


def _random(rng: np.random.Generator, dtype: str, count: int, position: int) -> Array:
    if dtype == "bool":
        return rng.integers(0, 2, count).astype("uint8")
    if dtype == "float32":
        special = np.repeat(FLOATS, len(FLOATS)) if position else np.tile(FLOATS, len(FLOATS))
        drawn = rng.normal(0, 1, count) * 10 ** rng.uniform(-6, 6, count)
        drawn[::3] = np.round(drawn[::3])
    else:
        info = np.iinfo(dtype)
        values = [number for number in [*INTEGERS, info.min, info.max] if info.min <= number <= info.max]
        special = np.array([(b if position else a) for a in values for b in values], dtype)
        drawn = rng.integers(max(info.min, -1000), min(info.max, 1000), count).astype(dtype)
    drawn = drawn.astype(dtype)
    drawn[: len(special)] = special[:count]
    return drawn


def _case(spec: PointwiseSpec) -> tuple[Case, Array]:
    rng, dense = np.random.default_rng(61), dense_strides(spec.shape)
    arrays: dict[str, Array] = {}
    values: list[Array] = []
    for number, (strides, arg) in enumerate(zip(spec.strides, spec.args, strict=False)):
        kind = "bool" if spec.dtype == "bool" or (spec.op == "where" and not number) else arg.dtype
        flat = _random(rng, kind, extent(spec.shape, strides or dense), number)
        arrays[f"x{number}"] = flat
        value = strided(flat, spec.shape, strides or dense)
        values.append(value.astype("bool") if kind == "bool" else value)
    out = np.full(extent(spec.shape, spec.out_strides or dense) + 3, 77, spec.args[-1].dtype)
    wanted = out.copy()
    function = FUNCTIONS[spec.op]
    if spec.op in ("mod", "fmod") and spec.dtype != "float32":
        function = _safe(function)
    with np.errstate(all="ignore"):
        strided(wanted, spec.shape, spec.out_strides or dense)[...] = function(*values)
    return Case(spec, {**arrays, "out": out}), wanted


@pytest.mark.parametrize("level", every_level())
def test_functions_equal_numpy(level: str) -> None:
    cases = [_case(spec) for spec in [*POINTWISE, *SHAPES]]
    results = run_kernels([case for case, _ in cases], level)
    for (case, wanted), result in zip(cases, results, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")
        if wanted.dtype == np.float32:
            known = ~np.isnan(wanted)
            np.testing.assert_array_equal(np.signbit(result["out"])[known], np.signbit(wanted)[known])


def test_every_function_is_tested() -> None:
    assert FUNCTIONS.keys() == DTYPES.keys() == OPERANDS.keys()


def converted(x: Array, source: str, target: str) -> Array:
    """The same numbers; a float out of the range of an integer is the nearest inside, a NaN is 0."""
    with np.errstate(invalid="ignore"):
        same: Array = x.astype(target) if target != "bool" else (x != 0).astype("uint8")
    if source != "float32" or target in ("float32", "bool"):
        return same
    info = np.iinfo(target)
    bounded = [0 if np.isnan(v) else int(np.clip(v, -(2.0**70), 2.0**70)) for v in x.astype("float64")]
    return np.array([min(max(number, info.min), info.max) for number in bounded], target)


@pytest.mark.parametrize("level", every_level())
def test_casts(level: str) -> None:
    rng, cases, expected = np.random.default_rng(67), [], []
    for spec in CASTS:
        x = _random(rng, spec.source, spec.shape[0], 0)
        target = spec.args[1].dtype
        cases.append(Case(spec, {"x": x, "out": np.full(x.size, 77, target)}))
        expected.append(converted(x, spec.source, spec.target))
    for case, result, wanted in zip(cases, run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")
