"""Networks of several inputs and outputs, of quantized outputs, and kernels that fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundle.toys import CHANNELS, Toy
from octavo.backends.bundle.errors import BundleRunError, InputError
from octavo.backends.bundle.loader import Bundle, load
from octavo.backends.bundle.program import LevelProgram, PlanProgram, Program, Ref, Signature, Step, TensorSpec
from octavo.backends.bundle.weights import WeightStore
from octavo.backends.bundle.writer import write_bundle

ROWS = 3
SHAPE = (ROWS, CHANNELS)
LEVEL = "sse2" if Toy().architecture == "x86_64" else "neon"
FEATURE = (LEVEL,)


def make(folder: Path, toy: Toy, *kernels: str) -> Bundle:
    """Two independent halves: x (float32) -> q (int8), n (int32) -> f (float32)."""
    inputs = (TensorSpec("x", "float32", SHAPE), TensorSpec("n", "int32", SHAPE, alignment=4))
    outputs = (TensorSpec("q", "int8", SHAPE, scale=0.1, zero_point=0, alignment=1), TensorSpec("f", "float32", SHAPE))
    steps = tuple(
        Step(f"{toy.prefix}_{LEVEL}_{kernel}", (Ref.input(i), Ref.output(i)), ROWS, f"half {i}")
        for i, kernel in enumerate(kernels)
    )
    level = LevelProgram(LEVEL, FEATURE, (PlanProgram(0, 0, steps),))
    program = Program(toy.prefix, toy.architecture, (Signature(inputs, outputs),), (level,))
    contents = replace(toy.contents(folder), program=program, weights=WeightStore())
    write_bundle(folder / "many.octavo", contents)
    return load(folder / "many.octavo", threads=2)


def test_two_inputs_and_outputs(toy: Toy, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(0, 40, SHAPE).astype(np.float32)
    n = np.arange(ROWS * CHANNELS, dtype=np.int32).reshape(SHAPE)
    with make(tmp_path, toy, "quantize", "scale") as bundle:
        results = bundle.run({"n": n, "x": x})
        assert list(results) == ["q", "f"]
        np.testing.assert_array_equal(results["q"], np.rint(np.clip(x / np.float32(0.5), -128, 127)).astype(np.int8))
        np.testing.assert_array_equal(results["f"], n.astype(np.float32) * np.float32(0.37) + np.float32(1.0e-3))
        assert [spec.scale for spec in bundle.outputs] == [0.1, None]
        bundle.verify()
        with pytest.raises(InputError, match="2 outputs: q, f"):
            bundle({"n": n, "x": x})
        with pytest.raises(InputError, match="one array for 2 inputs"):
            bundle.run(x)


def test_failing_kernel_names_the_layer(toy: Toy, tmp_path: Path) -> None:
    inputs = {"n": np.zeros(SHAPE, np.int32), "x": np.zeros(SHAPE, np.float32)}
    with make(tmp_path, toy, "quantize", "broken") as bundle:
        with pytest.raises(BundleRunError, match="the kernel of half 1 returned"):
            bundle.run(inputs)
        with pytest.raises(BundleRunError, match="half 1"):
            bundle.profile(inputs)
