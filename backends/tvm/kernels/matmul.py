"""Matrix multiplication of two activations, for attention. No tvm.

The right operand is packed at run time into the layout of constant weights, so both kinds of product share their
register tiles. With zero points za, zb (and b moved to the signed range, where needed) the accumulator is

    sum(a b) - za sum_k(b) - zb sum_k(a) + K za zb

where the sums over b are a product with a row of ones, and the sums over a are taken row by row.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np

from ..isa import ISAS, Isa
from .base import Arg, Array, KernelSpec, StridedView, round_up
from .epilogue import Epilogue
from .tiling import Dot, Runs, Tile, best_units, dot_for, dot_of

#: Channels are packed this many at a time, bytes of K likewise.
GROUP = 16
#: Tasks a product is divided into, when it has that many independent parts.
TASKS = 4


@dataclass(frozen=True)
class MatmulSpec(KernelSpec):
    """`batch` = `outer` x `inner` products of `rows` x `depth` by `depth` x `columns`, without constant operands.

    Matrix (o, i) of an operand starts at ``offset + o * batch + i * row`` of its view, and its rows are ``pixel``
    elements apart. The rows of ``a`` and of the output are contiguous. ``b`` is stored as `depth` rows of `columns`, or
    when `transposed` as `columns` rows of `depth`.

    `pack` takes a_zero_point and b_zero_point (stored domain), multiplier float32 (0-d or [columns]) and what
    `Epilogue.pack` takes; there is no bias.
    """

    outer: int
    inner: int
    rows: int
    depth: int
    columns: int
    a: StridedView
    b: StridedView
    output: StridedView
    transposed: bool = False
    epilogue: Epilogue = field(default_factory=Epilogue)

    @property
    def args(self) -> tuple[Arg, ...]:
        sizes = [scratch_sizes(self, isa) for isa in ISAS.values()]
        packed, ones, terms = (max(size[at] for size in sizes) for at in range(3))
        return (
            Arg("a", "act", "in"),
            Arg("b", "act", "in"),
            Arg("zero_points", "int32", "const"),
            *(arg for arg in self.epilogue.args if arg.name != "bias"),
            Arg("packed", "int8", "scratch", packed),
            Arg("ones", "act", "scratch", ones),
            Arg("terms", "int32", "scratch", terms),
            Arg("out", self.epilogue.out_dtype, "out"),
        )

    @property
    def macs(self) -> int:
        return self.outer * self.inner * self.rows * self.depth * self.columns

    def instruction(self, isa: Isa) -> str:
        return plan_matmul(self, isa).dot.kind

    def tasks(self, isa: Isa) -> int:
        return self.outer * self.inner * plan_matmul(self, isa).chunks

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        plan = plan_matmul(self, isa)
        width = plan.blocks * plan.tile.vectors * isa.lanes
        left, right = int(arrays["a_zero_point"]), int(arrays["b_zero_point"]) - isa.act_offset
        if "multiplier" in arrays:
            arrays["multiplier"] = np.broadcast_to(arrays["multiplier"], self.columns)
        packed = self.epilogue.pack(isa, width, np.zeros(width, "int32"), arrays)
        packed.pop("bias")
        both = np.array([self.depth * left * right]).astype("uint32").view("int32")
        return {"zero_points": np.array([left, right, both[0]], "int32"), **packed}

    def over_read(self, isa: Isa) -> dict[str, int]:
        slack = {"a": 64, "b": 64}
        if dot_of(isa).kind == "amx":
            slack["a"] += 32 * self.a.pixel
        if self.epilogue.residual is not None:
            slack["residual"] = 64
        return slack


@dataclass(frozen=True)
class MatmulPlan:
    """Register tile, runs of K and the cut along the columns: a task has `chunk_blocks` blocks of one product."""

    dot: Dot
    runs: Runs
    tile: Tile
    blocks: int
    chunk_blocks: int

    @property
    def chunks(self) -> int:
        """Tasks of one product."""
        return -(-self.blocks // self.chunk_blocks)


@functools.cache
def plan_matmul(spec: MatmulSpec, isa: Isa) -> MatmulPlan:
    """Cut a product of activations for one ISA level; a block of channels is whole groups of the packing."""
    vectors = -(-spec.columns // isa.lanes)
    least = max(1, GROUP // isa.lanes)
    sizes = {4: (4,), 8: (2, 4), 16: (1, 2, 3, 4, 5, 6)}[isa.lanes]
    dot = dot_for(isa, spec.depth, 1, spec.rows, spec.outer * spec.inner * vectors)
    options = [best_units(dot, spec.rows, 1, 1, vectors, size) for size in sizes if size % least == 0]
    tile, _ = min(options, key=lambda option: option[1])
    blocks = -(-vectors // tile.vectors)
    wanted = -(-TASKS // (spec.outer * spec.inner))
    return MatmulPlan(dot, dot.run(spec.depth), tile, blocks, -(-blocks // min(wanted, blocks)))


def scratch_sizes(spec: MatmulSpec, isa: Isa) -> tuple[int, int, int]:
    """Bytes of packed columns, of the row of ones, and of the correction terms (columns, then rows)."""
    plan = plan_matmul(spec, isa)
    width = plan.chunk_blocks * plan.tile.vectors * isa.lanes
    packed = width * round_up(plan.runs.padded, GROUP) * plan.dot.weight_bytes
    ones = plan.runs.padded + 64 + (33 * 64 if plan.dot.kind == "amx" else 0)
    return packed, ones, 4 * (width + round_up(spec.rows, 16))
