"""Convolution and matrix multiplication with constant weights, as implicit GEMM over NHWC. No tvm.

The rows of the matrix are output pixels, read in place from the padded image; its depth K is (kernel row, kernel
column, input channel). Where the bytes of a kernel row are contiguous, they form one run of K, so that a first layer
with three channels wastes little.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ..isa import Isa
from .base import Arg, Array, KernelSpec, StridedView
from .conv_plan import Cut, other_cuts, plan_conv
from .epilogue import Epilogue
from .packing import pack_weights
from .tiling import dot_of


@dataclass(frozen=True)
class ConvSpec(KernelSpec):
    """A convolution over an already padded image; every count is per image and, for channels, per group.

    `input` describes the padded image from its first byte, `output` the result. The residual of the epilogue has a view
    of its own. Element (n, h, w) of the output reads the image from row ``h * stride_h``, column ``w * stride_w`` on.
    `full_range` says that weights may be -128, which costs the `neon` level one instruction more per 16 products.
    `cut` replaces the one that the cost model chooses.

    A group may stand for several (`grouped`): `joined` ones are one by zeros between them, and of these `shared` lie
    side by side in a vector, on x86. `in_channels` are then those of joined groups, `out_channels` those of all.

    `pack` takes weight int8[groups * out_channels, in_channels / joined, kernel_h, kernel_w], bias
    int32[groups * out_channels], x_zero_point (stored domain) and what `Epilogue.pack` takes.
    """

    batch: int
    out_h: int
    out_w: int
    in_channels: int
    out_channels: int
    input: StridedView
    output: StridedView
    kernel_h: int = 1
    kernel_w: int = 1
    stride_h: int = 1
    stride_w: int = 1
    dilation_h: int = 1
    dilation_w: int = 1
    groups: int = 1
    full_range: bool = False
    epilogue: Epilogue = field(default_factory=Epilogue)
    cut: Cut | None = None
    joined: int = 1
    shared: int = 1

    @staticmethod
    def matmul(
        rows: int,
        depth: int,
        columns: int,
        epilogue: Epilogue | None = None,
        *,
        row_stride: int | None = None,
        out_stride: int | None = None,
        full_range: bool = False,
    ) -> ConvSpec:
        """`rows` x `depth` activations times `depth` x `columns` constant weights: a 1x1 convolution of one line.

        Strides are in elements and default to contiguous. Weights are handed to `pack` as int8[columns, depth, 1, 1].
        """
        in_stride, out = row_stride or depth, out_stride or columns
        return ConvSpec(
            batch=1,
            out_h=1,
            out_w=rows,
            in_channels=depth,
            out_channels=columns,
            input=StridedView(rows * in_stride, rows * in_stride, in_stride),
            output=StridedView(rows * out, rows * out, out),
            full_range=full_range,
            epilogue=epilogue or Epilogue(),
        )

    @property
    def pixels(self) -> int:
        """Pixels of all results."""
        return self.batch * self.out_h * self.out_w

    @property
    def args(self) -> tuple[Arg, ...]:
        return (
            Arg("x", "act", "in"),
            Arg("weight", "int8", "const"),
            *self.epilogue.args,
            Arg("out", self.epilogue.out_dtype, "out"),
        )

    def tasks(self, isa: Isa) -> int:
        plan = plan_conv(self, isa)
        return plan.channel_chunks * plan.pixel_chunks

    @property
    def macs(self) -> int:
        depth = self.in_channels // self.joined * self.kernel_h * self.kernel_w
        return self.pixels * self.groups * self.out_channels * depth

    def instruction(self, isa: Isa) -> str:
        return plan_conv(self, isa).dot.instruction

    def alternatives(self, isa: Isa) -> tuple[KernelSpec, ...]:
        return tuple(replace(self, cut=cut) for cut in other_cuts(self, isa))

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        plan = plan_conv(self, isa)
        rows = self.weight_rows(arrays["weight"])
        packed = pack_weights(isa, plan.dot, plan.runs, rows, (plan.blocks, plan.tile.vectors))
        width = plan.blocks * plan.tile.vectors * isa.lanes
        return {"weight": packed, **self.pack_epilogue(width, isa, arrays, paired=plan.dot.paired)}

    def weight_rows(self, weight: Array) -> Array:
        """Weights as int8[groups, out_channels, K], with K in the order the kernel walks it."""
        joined, shared, taps = self.joined, self.groups * self.shared, self.kernel_h * self.kernel_w
        out, inner = self.out_channels // (joined * self.shared), self.in_channels // joined
        kernel = np.zeros((shared, joined, out, taps, joined, inner), "int8")
        given = weight.reshape(shared, joined, out, inner, taps).swapaxes(3, 4)
        for number in range(joined):
            kernel[:, number, :, :, number] = given[:, number]
        return kernel.reshape(self.groups, self.out_channels, -1)

    def pack_epilogue(
        self, width: int, isa: Isa, arrays: dict[str, Array], *, paired: bool = False
    ) -> dict[str, Array]:
        """The constants of the epilogue, each group padded to `width`; the zero point of x is folded into the bias.

        Where accumulators are `paired`, those of every two channels come twice.
        """
        sums = arrays["weight"].reshape(self.groups, self.out_channels, -1).astype("int64").sum(axis=2)
        bias = arrays["bias"].astype("int64").reshape(sums.shape) - int(arrays["x_zero_point"]) * sums
        spread = {"bias": bias, "multiplier": arrays.get("multiplier")}
        padded = {name: _pad_channels(value, self.groups, width) for name, value in spread.items() if value is not None}
        if paired:
            padded = {name: np.repeat(value.reshape(-1, 2), 2, axis=0).reshape(-1) for name, value in padded.items()}
        wrapped = padded.pop("bias").astype("int64").astype("uint32").view("int32")
        return self.epilogue.pack(isa, wrapped.size, wrapped, {**arrays, **padded})

    def over_read(self, isa: Isa) -> dict[str, int]:
        slack = {"x": 64}
        if dot_of(isa).kind == "amx":
            slack["x"] += 32 * self.stride_w * self.input.pixel
        if self.epilogue.residual is not None:
            slack["residual"] = 64
        return slack


def _pad_channels(values: Array, groups: int, width: int) -> Array:
    rows = values.reshape(groups, -1)
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1]))).reshape(-1)
