"""A small network with hand-written C kernels: quantize, dense, scale, over rows of 16 channels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from octavo.backends.bundle.link import Toolchain, find_toolchain, host_architecture
from octavo.backends.bundle.manifest import Manifest
from octavo.backends.bundle.program import LevelProgram, PlanProgram, Program, Ref, Signature, Step, TensorSpec
from octavo.backends.bundle.weights import WeightStore
from octavo.backends.bundle.writer import BundleContents, write_bundle

CHANNELS = 16
KERNELS = Path(__file__).parent / "toy.c"

#: Levels of the toy, best first; the last one runs everywhere.
LEVELS = {
    "x86_64": (("avx2", ("avx2", "fma")), ("sse2", ("sse2",))),
    "aarch64": (("dotprod", ("neon", "dotprod")), ("neon", ("neon",))),
}


@dataclass(frozen=True)
class Toy:
    """What the toy computes: ``scale(quantize(x) @ matrix + bias)``."""

    prefix: str = "toy"
    rows: tuple[int, ...] = (24, 5)
    seed: int = 0
    architecture: str = host_architecture()

    @property
    def matrix(self) -> npt.NDArray[np.int8]:
        return np.random.default_rng(self.seed).integers(-127, 128, (CHANNELS, CHANNELS), np.int8)

    @property
    def bias(self) -> npt.NDArray[np.int32]:
        return np.random.default_rng(self.seed + 1).integers(-9999, 9999, CHANNELS, np.int32)

    def input(self, plan: int = 0) -> npt.NDArray[np.float32]:
        values = np.random.default_rng(self.seed + 2).normal(0, 20, (self.rows[plan], CHANNELS)).astype(np.float32)
        values[0, :4] = (0.25, 0.75, 1.25, -0.25)  # ties
        return values

    def expected(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        quantized = np.rint(np.clip(values / np.float32(0.5), -128, 127)).astype(np.int64)
        sums = (quantized @ self.matrix.astype(np.int64) + self.bias).astype(np.float32)
        scaled: npt.NDArray[np.float32] = sums * np.float32(0.37) + np.float32(1.0e-3)
        return scaled

    def signature(self, rows: int) -> Signature:
        return Signature(
            (TensorSpec("x", "float32", (rows, CHANNELS), alignment=4),),
            (TensorSpec("y", "float32", (rows, CHANNELS), alignment=4),),
        )

    def plan(self, level: str, rows: int, weights: int, bias: int) -> PlanProgram:
        quantized, sums = 0, -(-rows * CHANNELS // 64) * 64
        steps = (
            Step(f"{self.prefix}_{level}_quantize", (Ref.input(0), Ref.arena(quantized)), rows, "quantize x"),
            Step(
                f"{self.prefix}_{level}_dense",
                (Ref.arena(quantized), Ref.weights(weights), Ref.weights(bias), Ref.scratch(), Ref.arena(sums)),
                rows,
                "classifier.fc",
            ),
            Step(f"{self.prefix}_{level}_scale", (Ref.arena(sums), Ref.output(0)), rows, 'output "y"', grain=4),
        )
        return PlanProgram(sums + 4 * rows * CHANNELS, 0, steps, scratch_bytes=4 * CHANNELS)

    def program(self, store: WeightStore) -> Program:
        weights, bias = store.add(self.matrix), store.add(self.bias)
        levels = tuple(
            LevelProgram(name, features, tuple(self.plan(name, rows, weights, bias) for rows in self.rows))
            for name, features in LEVELS[self.architecture]
        )
        return Program(self.prefix, self.architecture, tuple(map(self.signature, self.rows)), levels)

    def objects(self, folder: Path, toolchain: Toolchain | None = None) -> tuple[Path, ...]:
        """Compiles the kernels once for each level."""
        toolchain = toolchain or find_toolchain(self.architecture)
        made: list[Path] = []
        for level, _ in LEVELS[self.architecture]:
            output = folder / f"{self.prefix}_{level}.o"
            name = f"-DK(name)={self.prefix}_{level}_##name"
            toolchain.run("-O1", "-fPIC", "-ffp-contract=off", "-fno-builtin-memset", name, "-c", KERNELS, "-o", output)
            made.append(output)
        return tuple(made)

    def contents(self, scratch: Path, **changes: Any) -> BundleContents:
        store = WeightStore()
        fields: dict[str, Any] = {
            "name": f"{self.prefix} network",
            "target": "test-int8",
            "program": self.program(store),
            "weights": store,
            "objects": self.objects(scratch),
        }
        return BundleContents(**{**fields, **changes})

    def write(self, folder: Path, scratch: Path, *, overwrite: bool = False, **changes: Any) -> Manifest:
        return write_bundle(folder, self.contents(scratch, **changes), overwrite=overwrite)
