"""Products of two activations beside their exact definition, on every ISA level."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from kernels.conv_cases import Array, centred, random_bytes, random_params
from kernels.harness import Case, run_kernels
from kernels.levels import every_level
from kernels.reference import finish, view
from octavo.backends.tvm.isa import ISAS, Isa
from octavo.backends.tvm.kernels.base import StridedView
from octavo.backends.tvm.kernels.epilogue import Epilogue
from octavo.backends.tvm.kernels.matmul import MatmulSpec


def _spec(batch: tuple[int, int], rows: int, depth: int, columns: int, gap: int = 0, **options: object) -> MatmulSpec:
    """Heads side by side in a row, as attention has them: matrix i of a batch lies `size` elements further."""

    def heads(height: int, width: int) -> StridedView:
        pixel = batch[1] * width + gap
        return StridedView(height * pixel, width, pixel, min(gap, 3))

    right = heads(columns, depth) if options.get("transposed") else heads(depth, columns)
    epilogue = options.pop("epilogue", Epilogue())
    assert isinstance(epilogue, Epilogue)
    if options.pop("residual", False):
        epilogue = Epilogue(residual=heads(rows, columns))
    transposed = bool(options.get("transposed"))
    left, out = heads(rows, depth), heads(rows, columns)
    return MatmulSpec(*batch, rows, depth, columns, left, right, out, transposed, epilogue)


SPECS = [
    _spec((1, 4), 20, 32, 20, transposed=True),
    _spec((2, 3), 17, 32, 48),
    _spec((1, 1), 64, 100, 70, gap=5, residual=True),
    _spec((1, 2), 9, 130, 33, gap=7, transposed=True, epilogue=Epilogue(out="f32")),
    _spec((2, 1), 1, 5, 3, transposed=True),
    _spec((1, 1), 5, 18, 130, epilogue=Epilogue(out="i32")),
    _spec((3, 2), 33, 16, 16, transposed=True, epilogue=Epilogue(table=True)),
    _spec((1, 2), 12, 76, 37, gap=1),
]


def _case(spec: MatmulSpec, isa: Isa, rng: np.random.Generator) -> tuple[Case, Array]:
    left = random_bytes(rng, isa, _extent(spec, spec.a, spec.rows, spec.depth))
    shape = (spec.columns, spec.depth) if spec.transposed else (spec.depth, spec.columns)
    right = random_bytes(rng, isa, _extent(spec, spec.b, *shape))
    if rng.random() < 0.3:
        left[...], right[...] = isa.act_min, isa.act_min
    zero_points = {
        name: np.array(rng.integers(isa.act_min, isa.act_max + 1)) for name in ("a_zero_point", "b_zero_point")
    }
    a = _matrices(spec, left, spec.a, (spec.rows, spec.depth)).astype("int64") - zero_points["a_zero_point"]
    b = _matrices(spec, right, spec.b, shape).astype("int64") - zero_points["b_zero_point"]
    acc = a @ (b.swapaxes(-1, -2) if spec.transposed else b)
    arrays = {**random_params(isa, rng), **zero_points, "multiplier": centred(acc, rng)["multiplier"]}
    spec = replace(spec, epilogue=spec.epilogue.fitted(isa, arrays))
    buffers = {"a": left, "b": right}
    residual = None
    if spec.epilogue.residual is not None:
        buffers["residual"] = random_bytes(rng, isa, _extent(spec, spec.epilogue.residual, spec.rows, spec.columns))
        residual = _matrices(spec, buffers["residual"], spec.epilogue.residual, (spec.rows, spec.columns))
    kind = {"byte": isa.act_dtype, "f32": "float32", "i32": "int32"}[spec.epilogue.out]
    out = np.full(_extent(spec, spec.output, spec.rows, spec.columns) + 8, 77, kind)
    expected = out.copy()
    result = _matrices(spec, expected, spec.output, (spec.rows, spec.columns))
    result[...] = finish(isa, spec.epilogue, acc, arrays, residual)
    return Case(spec, {**buffers, **spec.pack(isa, **arrays), "out": out}), expected


def _matrices(spec: MatmulSpec, flat: Array, place: StridedView, size: tuple[int, int]) -> Array:
    """[outer, inner, rows, columns] of an operand."""
    return view(flat, place, (spec.outer, spec.inner, *size))


def _extent(spec: MatmulSpec, place: StridedView, rows: int, columns: int) -> int:
    last = (spec.outer - 1) * place.batch + (spec.inner - 1) * place.row + (rows - 1) * place.pixel
    return place.offset + last + columns


def _check(specs: list[MatmulSpec], level: str, rng: np.random.Generator) -> None:
    cases, expected = zip(*[_case(spec, ISAS[level], rng) for spec in specs], strict=True)
    for spec, result, wanted in zip(specs, run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {spec}")


@pytest.mark.parametrize("level", every_level())
def test_matmul_equals_its_definition(level: str) -> None:
    _check(SPECS, level, np.random.default_rng(3))


def _random_spec(rng: np.random.Generator) -> MatmulSpec:
    batch = int(rng.integers(1, 3)), int(rng.integers(1, 4))
    rows, depth, columns = (int(size) for size in rng.integers(1, (50, 140, 140)))
    gap, transposed, residual = int(rng.choice([0, 5])), bool(rng.integers(2)), bool(rng.integers(2))
    return _spec(batch, rows, depth, columns, gap=gap, transposed=transposed, residual=residual)


@pytest.mark.parametrize("level", every_level())
def test_random_products_equal_their_definition(level: str) -> None:
    rng = np.random.default_rng(4)
    _check([_random_spec(rng) for _ in range(8)], level, rng)
