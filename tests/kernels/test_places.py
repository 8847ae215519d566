"""Elements at computed places, scans and sorting beside numpy, on every ISA level."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kernels.harness import Array, Case, run_kernels
from kernels.levels import every_level
from kernels.strided_cases import extent, gapped, strided
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels.places import PlacesSpec
from octavo.backends.tvm.kernels.scan import ScanSpec
from octavo.backends.tvm.kernels.strided import dense_strides
from octavo.backends.tvm.kernels.topk import TopKSpec

READS = [
    # x[4, 6, 5] at indices of the middle axis; then with broadcast and transposed operands.
    PlacesSpec("read", "float32", (4, 7, 5), (30, 0, 1), (6,), (5,), (35, 5, 1)),
    PlacesSpec("read", "uint8", (4, 7, 5), (30, 0, 1), (6,), (5,), (0, 1, 0), 1, "int32", (40, 5, 1)),
    PlacesSpec("read", "int64", (3, 4), (4, 1), (5,), (12,), (1, 3)),
    # Rows of 6 at pairs of indices.
    PlacesSpec("read", "int32", (10, 6), (0, 1), (3, 4), (24, 6), (2, 0)),
]
WRITES = [
    PlacesSpec("write", "float32", (4, 7, 5), (30, 0, 1), (6,), (5,), (35, 5, 1)),
    PlacesSpec("write", "uint8", (12, 6), (0, 1), (3, 4), (24, 6), (1, 0), 12, "int32", (1, 12)),
    *(PlacesSpec("add", dtype, (9, 8), (0, 1), (3,), (8,), (1, 0)) for dtype in ("float32", "int64")),
    *(PlacesSpec("mul", dtype, (9, 8), (0, 1), (3,), (8,), (1, 0)) for dtype in ("float32", "int32")),
    *(PlacesSpec("max", dtype, (9, 8), (0, 1), (3,), (8,), (1, 0)) for dtype in ("float32", "int32", "bool")),
    *(PlacesSpec("min", dtype, (9, 8), (0, 1), (3,), (8,), (1, 0)) for dtype in ("float32", "int64", "bool")),
]
COMBINE: dict[str, Any] = {
    "write": lambda old, new: new,
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}
SCANS = [
    *(ScanSpec("sum", dtype, (3, 40, 5), 1) for dtype in ("float32", "int32", "int64", "uint8")),
    ScanSpec("sum", "float32", (3, 40, 5), 0, exclusive=True, reverse=True),
    ScanSpec("prod", "float32", (5, 9), 1, reverse=True, x_strides=(1, 5)),
    ScanSpec("prod", "int32", (5, 9), 1, exclusive=True, out_strides=gapped((5, 9), 3)),
    *(ScanSpec(op, dtype, (4, 9, 3), 1, False) for op in ("sum", "prod", "max", "min") for dtype in ("int64", "bool")),
    ScanSpec("max", "float32", (4, 9, 3), 2, False),
    ScanSpec("min", "float32", (4, 9, 3), 0, False),
]
SORTS = [
    TopKSpec("float32", (3, 100), 1, 5),
    TopKSpec("float32", (2, 33, 4), 1, 33, True),
    TopKSpec("int32", (64,), 0, 10),
    TopKSpec("int64", (5, 7), 0, 3, True, (1, 5)),
    TopKSpec("float32", (4, 1), 1, 1),
]


def _values(rng: np.random.Generator, dtype: str, count: int) -> Array:
    if dtype == "bool":
        return rng.integers(0, 2, count).astype("uint8")
    x = rng.integers(-9, 9, count) if dtype != "float32" else rng.normal(0, 1, count)
    values: Array = x.astype(dtype)
    if dtype == "float32":
        values[::7] = np.round(values[::7])
        values[5::31] = np.nan
    return values


def _places(spec: PlacesSpec, indices: Array) -> Array:
    """The place of every element of the part."""
    base = sum(
        np.arange(n).reshape([-1 if a == axis else 1 for a in range(len(spec.shape))]) * step
        for axis, (n, step) in enumerate(zip(spec.shape, spec.whole_strides, strict=True))
    )
    result = np.broadcast_to(np.asarray(base), spec.shape).copy()
    for number, (limit, step) in enumerate(zip(spec.limits, spec.steps, strict=True)):
        index = strided(indices[number * spec.component :], spec.shape, spec.index_strides).astype("int64")
        result += np.clip(np.where(index < 0, index + limit, index), 0, limit - 1) * step
    return result


def _place_case(spec: PlacesSpec) -> tuple[Case, Array]:
    rng = np.random.default_rng(83)
    whole = _values(rng, spec.dtype, extent(spec.shape, spec.whole_strides) + extent(spec.limits, spec.steps) - 1)
    count = extent(spec.shape, spec.index_strides) + (len(spec.limits) - 1) * spec.component
    # Wild ones too: they must neither read nor write outside.
    indices = rng.integers(-12, 12, count).astype(spec.index)
    indices[::5] = rng.choice([np.iinfo(spec.index).min, np.iinfo(spec.index).max], len(indices[::5]))
    strides = spec.part_strides or dense_strides(spec.shape)
    part = _values(rng, spec.dtype, extent(spec.shape, strides))
    places, arrays = _places(spec, indices), {"whole": whole, "indices": indices, "part": part}
    seen = strided(part, spec.shape, strides)
    if spec.op == "read":
        part[...] = 77
        wanted = part.copy()
        strided(wanted, spec.shape, strides)[...] = whole[places]
        return Case(spec, arrays), wanted
    wanted = whole.copy()
    for index in itertools.product(*map(range, spec.shape)):
        wanted[places[index]] = COMBINE[spec.op](wanted[places[index]], seen[index])
    return Case(spec, arrays), wanted


@pytest.mark.parametrize("level", every_level())
def test_places(level: str) -> None:
    cases = [_place_case(spec) for spec in [*READS, *WRITES]]
    results = run_kernels([case for case, _ in cases], level)
    for (case, wanted), result in zip(cases, results, strict=True):
        np.testing.assert_array_equal(next(iter(result.values())), wanted, err_msg=f"{level}: {case.spec}")


def _scan(spec: ScanSpec, x: Array) -> Array:
    """The scan in the wide type, along the last axis."""
    functions: dict[str, Any] = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}
    wide = {"float32": "float64", "bool": "bool"}.get(spec.dtype, spec.dtype)
    lines = np.moveaxis(x.astype(wide), spec.axis, -1)
    lines = lines[..., ::-1] if spec.reverse else lines
    if not spec.running:
        return np.asarray(functions[spec.op].reduce(lines, -1, dtype=wide))
    totals = functions[spec.op].accumulate(lines, -1, dtype=wide)
    if spec.exclusive:
        first = np.full_like(totals[..., :1], spec.op == "prod")
        totals = np.concatenate([first, totals[..., :-1]], -1)
    return np.moveaxis(totals[..., ::-1] if spec.reverse else totals, -1, spec.axis)


def _scan_case(spec: ScanSpec) -> tuple[Case, Array]:
    rng, strides = np.random.default_rng(89), spec.x_strides or dense_strides(spec.shape)
    flat = _values(rng, spec.dtype, extent(spec.shape, strides))
    result = _scan(spec, strided(flat, spec.shape, strides))
    target = spec.out_strides or dense_strides(result.shape)
    wanted = np.full(extent(result.shape, target) + 3, 77, spec.args[1].dtype)
    case = Case(spec, {"x": flat, "out": wanted.copy()})
    strided(wanted, result.shape, target)[...] = result.astype(wanted.dtype)
    return case, wanted


@pytest.mark.parametrize("level", every_level())
def test_scans(level: str) -> None:
    cases = [_scan_case(spec) for spec in SCANS]
    results = run_kernels([case for case, _ in cases], level)
    for (case, wanted), result in zip(cases, results, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")


def _sort_case(spec: TopKSpec) -> tuple[Case, Array, Array]:
    rng, strides = np.random.default_rng(97), spec.x_strides or dense_strides(spec.shape)
    flat = _values(rng, spec.dtype, extent(spec.shape, strides))
    x = strided(flat, spec.shape, strides)
    order = np.argsort(x if spec.smallest else np.flip(x, spec.axis), spec.axis, kind="stable")
    if not spec.smallest:
        # A stable descending sort is a stable ascending one of the reversed line, reversed.
        order = spec.size - 1 - np.flip(order, spec.axis)
    order = np.take(order, range(spec.count), spec.axis)
    values = np.take_along_axis(x, order, spec.axis)
    arrays = {"x": flat, "values": np.full(values.shape, 77, spec.dtype), "indices": np.full(values.shape, 77, "int64")}
    return Case(spec, arrays), values, order


@pytest.mark.parametrize("level", every_level())
def test_topk(level: str) -> None:
    cases = [_sort_case(spec) for spec in SORTS]
    results = run_kernels([case for case, _, _ in cases], level)
    for (case, values, order), result in zip(cases, results, strict=True):
        np.testing.assert_array_equal(result["indices"], order, err_msg=f"{level}: {case.spec}")
        np.testing.assert_array_equal(result["values"], values, err_msg=f"{level}: {case.spec}")


def test_writes_are_one_task() -> None:
    """Two workers would race for a place that is written twice."""
    assert all(spec.tasks(ISAS["avx2"]) == 1 for spec in WRITES)
    assert replace(WRITES[0], op="read").tasks(ISAS["avx2"]) > 1
