"""Networks of several inputs and outputs, of quantized outputs, and kernels that fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from bundle.toys import CHANNELS, Toy
from octavo.backends.bundle.errors import BundleRunError, InputError
from octavo.backends.bundle.loader import Bundle, load
from octavo.backends.bundle.program import LevelProgram, PlanProgram, Program, Ref, Signature, Step, TensorSpec
from octavo.backends.bundle.weights import WeightStore
from octavo.backends.bundle.writer import write_bundle

ROWS = 3
LEVEL = "sse2" if Toy().architecture == "x86_64" else "neon"
FEATURE = (LEVEL,)


def halves(toy: Toy, kernels: tuple[str, str], rows: tuple[int, int] = (ROWS, ROWS)) -> tuple[Step, ...]:
    """Two steps without anything in common: x (float32) -> q (int8), and n (int32) -> f (float32)."""
    return tuple(
        Step(f"{toy.prefix}_{LEVEL}_{kernel}", (Ref.input(i), Ref.output(i)), rows[i], f"half {i}")
        for i, kernel in enumerate(kernels)
    )


def make(
    folder: Path, toy: Toy, steps: tuple[Step, ...], rows: tuple[int, int] = (ROWS, ROWS), threads: int = 2
) -> Bundle:
    x_shape, n_shape = ((count, CHANNELS) for count in rows)
    inputs = (TensorSpec("x", "float32", x_shape), TensorSpec("n", "int32", n_shape, alignment=4))
    quantized = TensorSpec("q", "int8", x_shape, scale=0.1, zero_point=0, alignment=1)
    outputs = (quantized, TensorSpec("f", "float32", n_shape))
    level = LevelProgram(LEVEL, FEATURE, (PlanProgram(0, 0, steps),))
    program = Program(toy.prefix, toy.architecture, (Signature(inputs, outputs),), (level,))
    contents = replace(toy.contents(folder), program=program, weights=WeightStore())
    write_bundle(folder / "many.octavo", contents)
    return load(folder / "many.octavo", threads=threads)


def inputs_of(rows: tuple[int, int]) -> dict[str, npt.NDArray[Any]]:
    x = np.random.default_rng(0).normal(0, 40, (rows[0], CHANNELS)).astype(np.float32)
    return {"n": np.arange(rows[1] * CHANNELS, dtype=np.int32).reshape(rows[1], CHANNELS), "x": x}


def assert_both(results: dict[str, npt.NDArray[Any]], inputs: dict[str, npt.NDArray[Any]]) -> None:
    x, n = inputs["x"], inputs["n"]
    np.testing.assert_array_equal(results["q"], np.rint(np.clip(x / np.float32(0.5), -128, 127)).astype(np.int8))
    np.testing.assert_array_equal(results["f"], n.astype(np.float32) * np.float32(0.37) + np.float32(1.0e-3))


def test_two_inputs_and_outputs(toy: Toy, tmp_path: Path) -> None:
    inputs = inputs_of((ROWS, ROWS))
    with make(tmp_path, toy, halves(toy, ("quantize", "scale"))) as bundle:
        results = bundle.run(inputs)
        assert list(results) == ["q", "f"]
        assert_both(results, inputs)
        assert [spec.scale for spec in bundle.outputs] == [0.1, None]
        bundle.verify()
        with pytest.raises(InputError, match="2 outputs: q, f"):
            bundle(inputs)
        with pytest.raises(InputError, match="one array for 2 inputs"):
            bundle.run(inputs["x"])


def test_failing_kernel_names_the_layer(toy: Toy, tmp_path: Path) -> None:
    inputs = inputs_of((ROWS, ROWS))
    with make(tmp_path, toy, halves(toy, ("quantize", "broken"))) as bundle:
        with pytest.raises(BundleRunError, match="the kernel of half 1 returned"):
            bundle.run(inputs)
        with pytest.raises(BundleRunError, match="half 1"):
            bundle.profile(inputs)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("rows", [(3, 40), (40, 3), (7, 7), (1, 11)])
def test_a_companion_is_done_with_its_step(toy: Toy, tmp_path: Path, rows: tuple[int, int], threads: int) -> None:
    """All its tasks, however many it has and however the step's are divided."""
    companion, step = halves(toy, ("quantize", "scale"), rows)
    inputs = inputs_of(rows)
    with make(tmp_path, toy, (replace(step, companions=(companion,)),), rows, threads) as bundle:
        for _ in range(20):
            assert_both(bundle.run(inputs), inputs)
        assert [time.label for time in bundle.profile(inputs)] == ["half 1"]


def test_a_failing_companion_is_reported_under_the_name_of_its_step(toy: Toy, tmp_path: Path) -> None:
    companion, step = halves(toy, ("broken", "scale"))
    with (
        make(tmp_path, toy, (replace(step, companions=(companion,)),)) as bundle,
        pytest.raises(BundleRunError, match="the kernel of half 1 returned 4"),
    ):
        bundle.run(inputs_of((ROWS, ROWS)))
