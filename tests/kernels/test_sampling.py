"""Samples at computed coordinates and places of maxima: right, the same everywhere, and never out of bounds."""

from __future__ import annotations

import functools
import itertools
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kernels.harness import Array, Case, run_kernels
from kernels.levels import every_level
from octavo.backends.tvm.kernels.grid import GridSpec
from octavo.backends.tvm.kernels.pool_indices import PoolIndicesSpec

SHAPE, PLACES = (2, 3, 6, 7), (5, 9)
WILD = [np.nan, np.inf, -np.inf, 1e30, -1e30, 3e9, -3e9, 1.0, -1.0, 1.0001, -1.0001]
MODES: tuple[Literal["linear", "nearest"], ...] = ("linear", "nearest")
PADDINGS: tuple[Literal["zeros", "border", "reflection"], ...] = ("zeros", "border", "reflection")
GRIDS = [GridSpec(SHAPE, PLACES, *rest) for rest in itertools.product(MODES, PADDINGS, (False, True))]
# Channels innermost, and room between the results.
GRIDS.append(GridSpec(SHAPE, PLACES, x_strides=(126, 1, 21, 3), out_strides=(200, 60, 10, 1)))
POOLS = [
    PoolIndicesSpec((2, 3, 9), (5,), (3,), (2,), (1,), (1,)),
    PoolIndicesSpec((2, 3, 9, 8), (5, 9), (3, 2), (2, 1), (1, 1), (1, 1)),
    PoolIndicesSpec((1, 2, 6, 6), (2, 1), (3, 3), (2, 2), (0, 0), (1, 2), x_strides=(72, 1, 12, 2)),
]


def _x(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(7).normal(size=shape).astype("float32")


def _grid_case(spec: GridSpec, *, wild: bool) -> Case:
    grid = np.random.default_rng(8).uniform(-1.5, 1.5, (2, *PLACES, 2)).astype("float32")
    if wild:
        grid.reshape(-1)[: 2 * len(WILD)] = np.repeat(WILD, 2)
        grid.reshape(-1)[40 : 40 + len(WILD)] = WILD
    count = 1 + sum((n - 1) * s for n, s in zip((2, 3, *PLACES), spec.out_strides or (135, 45, 9, 1), strict=True))
    return Case(spec, {"x": _x(SHAPE), "grid": grid, "out": np.full(count, 77, "float32")})


def _pool_case(spec: PoolIndicesSpec) -> Case:
    count = int(np.prod((*spec.shape[:2], *spec.outputs)))
    return Case(spec, {"x": _x(spec.shape), "out": np.full(count, 77, "int64")})


def _cases() -> list[Case]:
    return [*(_grid_case(spec, wild=True) for spec in GRIDS), *(_pool_case(spec) for spec in POOLS)]


@functools.cache
def _expected() -> list[Array]:
    return [result["out"] for result in run_kernels(_cases(), "avx2")]


@pytest.mark.parametrize("level", every_level())
def test_the_same_bits_everywhere(level: str) -> None:
    cases = _cases()
    for case, result, wanted in zip(cases, run_kernels(cases, level), _expected(), strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {case.spec}")


def _seen(x: Array, spec: GridSpec | PoolIndicesSpec) -> torch.Tensor:
    """The tensor as the kernel sees it."""
    if spec.x_strides is None:
        return torch.from_numpy(x)
    return torch.from_numpy(x.reshape(-1)).as_strided(spec.shape, spec.x_strides)


def test_samples_are_torchs() -> None:
    cases = [_grid_case(spec, wild=False) for spec in GRIDS]
    for case, result in zip(cases, run_kernels(cases, "avx2"), strict=True):
        spec, x, grid = case.spec, np.asarray(case.arrays["x"]), np.asarray(case.arrays["grid"])
        assert isinstance(spec, GridSpec)
        mode = "bilinear" if spec.mode == "linear" else "nearest"
        wanted = F.grid_sample(_seen(x, spec), torch.from_numpy(grid), mode, spec.padding, spec.corners)
        seen = torch.from_numpy(result["out"].copy()).as_strided(wanted.shape, spec.out_strides or (135, 45, 9, 1))
        torch.testing.assert_close(seen, wanted, rtol=1e-5, atol=1e-5)


def test_places_are_torchs() -> None:
    for case, result in zip(_cases()[len(GRIDS) :], _expected()[len(GRIDS) :], strict=True):
        spec, x = case.spec, np.asarray(case.arrays["x"])
        assert isinstance(spec, PoolIndicesSpec)
        pool = F.max_pool1d if len(spec.kernel) == 1 else F.max_pool2d
        pooled, places = pool(_seen(x, spec), spec.kernel, spec.stride, spec.before, spec.dilation, return_indices=True)
        images = torch.arange(places.shape[0] * places.shape[1]).reshape(*places.shape[:2], *[1] * len(spec.kernel))
        wanted = places + images * int(np.prod(spec.shape[2:]))
        assert tuple(pooled.shape[2:]) == spec.outputs
        np.testing.assert_array_equal(result.reshape(wanted.shape), wanted.numpy())
