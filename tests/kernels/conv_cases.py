"""Random convolutions with everything their kernels take, and the bytes they must give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from kernels.harness import Case, run_kernels
from kernels.reference import conv_accumulators, finish, view
from octavo.backends.tvm.isa import ISAS, Isa
from octavo.backends.tvm.kernels.base import KernelSpec, StridedView
from octavo.backends.tvm.kernels.conv import ConvSpec
from octavo.backends.tvm.kernels.epilogue import Epilogue
from support.blocks import draw_blocks, spread_blocks

Array = npt.NDArray[Any]


def conv_spec(
    size: tuple[int, int],
    channels: tuple[int, int],
    kernel: tuple[int, int] = (1, 1),
    *,
    pixel_gap: int = 0,
    out_gap: int = 0,
    residual: bool = False,
    epilogue: Epilogue | None = None,
    **options: Any,
) -> ConvSpec:
    """A convolution whose output has `size`; gaps leave room between pixels of input and output."""
    stride = options.get("stride_h", 1), options.get("stride_w", 1)
    dilation = options.get("dilation_h", 1), options.get("dilation_w", 1)
    groups = options.get("groups", 1)
    height, width = ((size[axis] - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1 for axis in range(2))
    pixel, out_pixel = channels[0] * groups + pixel_gap, channels[1] * groups + out_gap
    source = StridedView(height * width * pixel, width * pixel, pixel, min(pixel_gap, 3))
    out = StridedView(size[0] * size[1] * out_pixel, size[1] * out_pixel, out_pixel, min(out_gap, 5))
    chosen = epilogue or Epilogue()
    if residual:
        chosen = replace(chosen, residual=StridedView.dense(*size, channels[1] * groups))
    return ConvSpec(
        options.pop("batch", 1),
        *size,
        *channels,
        source,
        out,
        kernel_h=kernel[0],
        kernel_w=kernel[1],
        epilogue=chosen,
        **options,
    )


def random_bytes(rng: np.random.Generator, isa: Isa, count: int) -> Array:
    """Stored activations over the whole range."""
    return rng.integers(isa.act_min, isa.act_max + 1, count).astype(isa.act_dtype)


Kernel = Callable[[ConvSpec], KernelSpec]
Draw = Callable[[np.random.Generator, ConvSpec, tuple[int, ...]], Array]
"""Weights of a shape for a convolution."""


def any_weights(rng: np.random.Generator, spec: ConvSpec, shape: tuple[int, ...]) -> Array:
    """Weights over the whole range, or all the least one."""
    lowest = -128 if spec.full_range else -127
    weights = rng.integers(lowest, 128, shape).astype("int8")
    if rng.random() < 0.3:
        weights[...] = lowest
    return weights


def conv_case(
    spec: ConvSpec,
    isa: Isa,
    rng: np.random.Generator,
    kernel: Kernel = lambda spec: spec,
    density: float = 1.0,
    draw: Draw = any_weights,
) -> tuple[Case, Array]:
    """A case of a kernel of `spec` with random contents, and the whole output buffer as it must be afterwards.

    The share `density` of the blocks of weights is not zero.
    """
    channels = spec.groups * spec.out_channels
    weight_shape = (channels, spec.in_channels, spec.kernel_h, spec.kernel_w)
    arrays: dict[str, Array] = {
        "weight": draw(rng, spec, weight_shape),
        "x_zero_point": np.array(rng.integers(isa.act_min, isa.act_max + 1)),
        **random_params(isa, rng),
    }
    if density < 1:
        arrays["weight"] *= spread_blocks(draw_blocks(weight_shape, rng) < density, weight_shape)
    x = random_bytes(rng, isa, _extent(spec))
    if rng.random() < 0.2:
        x[...] = isa.act_min
    acc = conv_accumulators(spec, x, arrays["weight"], int(arrays["x_zero_point"]))
    arrays |= centred(acc, rng)
    acc += arrays["bias"]
    spec = replace(spec, epilogue=spec.epilogue.fitted(isa, arrays))
    shape = (spec.batch, spec.out_h, spec.out_w, channels)
    buffers: dict[str, Array] = {"x": x}
    residual = None
    if spec.epilogue.residual is not None:
        buffers["residual"] = random_bytes(rng, isa, int(np.prod(shape)))
        residual = view(buffers["residual"], spec.epilogue.residual, shape)
    out = np.full(_out_extent(spec), 77, {"byte": isa.act_dtype, "f32": "float32", "i32": "int32"}[spec.epilogue.out])
    expected = out.copy()
    view(expected, spec.output, shape)[...] = finish(isa, spec.epilogue, acc, arrays, residual)
    packed = kernel(spec).pack(isa, **arrays)
    return Case(kernel(spec), {**buffers, **packed, "out": out}, splits=int(rng.integers(1, 4))), expected


def check_convs(
    specs: Sequence[ConvSpec],
    level: str,
    seed: int,
    kernel: Kernel = lambda spec: spec,
    densities: Sequence[float] = (1.0,),
    draw: Draw = any_weights,
) -> None:
    """Compare kernels with their definition; one of `densities` is the share of the weights' blocks that are left."""
    isa, rng = ISAS[level], np.random.default_rng(seed)
    made = [conv_case(spec, isa, rng, kernel, densities[int(rng.integers(len(densities)))], draw) for spec in specs]
    for spec, result, (_, wanted) in zip(specs, run_kernels([case for case, _ in made], level), made, strict=True):
        np.testing.assert_array_equal(result["out"], wanted, err_msg=f"{level}: {spec}")


def centred(acc: Array, rng: np.random.Generator) -> dict[str, Array]:
    """Bias and multiplier that spread the results of accumulators [..., c] over the range of a byte."""
    flat = acc.reshape(-1, acc.shape[-1])
    bias = rng.integers(-9, 10, flat.shape[1]) - flat.mean(axis=0).astype("int64")
    multiplier = rng.uniform(30, 90, flat.shape[1]) / (flat.std(axis=0) + 10)
    return {"bias": bias.astype("int32"), "multiplier": multiplier.astype("float32")}


def random_params(isa: Isa, rng: np.random.Generator) -> dict[str, Array]:
    """Zero points, clamp, residual scale and table of an epilogue, some of them as after a ReLU."""
    zero_point = isa.act_min if rng.random() < 0.3 else int(isa.act_offset + np.clip(rng.normal(0, 60), -128, 127))
    params = {
        "zero_point": np.array(zero_point),
        "residual_zero_point": np.array(rng.integers(isa.act_min, isa.act_max + 1)),
        "residual_multiplier": np.array(rng.uniform(0.1, 1.5), "float32"),
        "table": rng.integers(-128, 128, 256).astype("int8"),
    }
    if rng.random() < 0.5:
        low, high = isa.act_min + int(rng.integers(0, 110)), isa.act_max - int(rng.integers(0, 110))
        params |= {"lo": np.array(low - zero_point), "hi": np.array(high - zero_point)}
    return params


def _extent(spec: ConvSpec) -> int:
    """Elements from the start of the input buffer to the last byte of the last pixel read."""
    rows = (spec.out_h - 1) * spec.stride_h + (spec.kernel_h - 1) * spec.dilation_h
    columns = (spec.out_w - 1) * spec.stride_w + (spec.kernel_w - 1) * spec.dilation_w
    last = (spec.batch - 1) * spec.input.batch + rows * spec.input.row + columns * spec.input.pixel
    return spec.input.offset + last + spec.groups * spec.in_channels


def _out_extent(spec: ConvSpec) -> int:
    out = spec.output
    last = (spec.batch - 1) * out.batch + (spec.out_h - 1) * out.row + (spec.out_w - 1) * out.pixel
    return out.offset + last + spec.groups * spec.out_channels + 8
