"""Transposed convolutions, phase by phase, beside the scattering definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from kernels.conv_cases import centred, random_bytes, random_params
from kernels.harness import Array, Case, run_kernels
from kernels.levels import every_level
from kernels.reference import finish, view
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels.base import StridedView
from octavo.backends.tvm.kernels.epilogue import Epilogue
from octavo.backends.tvm.kernels.transposed import Axis, TransposedConv


def _axis(size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1, extra: int = 0) -> Axis:
    out = (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + extra + 1
    return Axis(size, out, kernel, stride, padding, dilation)


def _conv(
    batch: int, height: Axis, width: Axis, channels: tuple[int, int], groups: int, residual: bool
) -> TransposedConv:
    rows, columns = (axis.size + sum(axis.border) for axis in (height, width))
    pixel, result = channels[0] * groups, StridedView.dense(height.out, width.out, channels[1] * groups)
    epilogue = Epilogue(residual=result if residual else None)
    source = StridedView(rows * columns * pixel, columns * pixel, pixel)
    return TransposedConv(batch, height, width, *channels, source, result, groups=groups, epilogue=epilogue)


CONVS = [
    _conv(1, _axis(5, 2, 2), _axis(7, 2, 2), (12, 20), 1, residual=False),
    _conv(2, _axis(4, 3, 2, 1, extra=1), _axis(5, 3, 2, 1, extra=1), (9, 6), 1, residual=True),
    _conv(1, _axis(3, 4, 2, 1), _axis(6, 5, 3, 2, dilation=2), (6, 5), 2, residual=False),
    _conv(1, _axis(6, 2, 2), _axis(9, 2, 2), (24, 1), 1, residual=True),
    _conv(2, _axis(3, 3, 2, 1), _axis(5, 4, 4), (7, 3), 1, residual=True),
    _conv(1, _axis(5, 2, 2), _axis(4, 2, 2), (6, 4), 2, residual=False),
    _conv(1, _axis(4, 1, 3), _axis(3, 2, 3), (4, 10), 1, residual=False),
    _conv(1, _axis(1, 1), _axis(9, 5, 4, 1, dilation=4, extra=2), (8, 16), 1, residual=False),
]


def _accumulators(conv: TransposedConv, image: Array, weight: Array, zero_point: int) -> Array:
    """Scatter every product to the output it belongs to."""
    height, width = conv.height, conv.width
    grouped = weight.astype("int64").reshape(
        conv.groups, conv.in_channels, conv.out_channels, height.kernel, width.kernel
    )
    acc = np.zeros((conv.batch, height.out, width.out, conv.groups, conv.out_channels), "int64")
    for i, j, k, m in np.ndindex(height.size, width.size, height.kernel, width.kernel):
        y = i * height.stride + k * height.dilation - height.padding
        x = j * width.stride + m * width.dilation - width.padding
        if 0 <= y < height.out and 0 <= x < width.out:
            pixel = image[:, i, j].astype("int64").reshape(conv.batch, conv.groups, -1) - zero_point
            acc[:, y, x] += np.einsum("ngi,gio->ngo", pixel, grouped[..., k, m])
    return acc.reshape(*acc.shape[:3], -1)


@pytest.mark.parametrize("level", every_level())
def test_transposed_convolutions_equal_their_definition(level: str) -> None:
    isa, rng = ISAS[level], np.random.default_rng(5)
    cases: list[Case] = []
    expected: list[tuple[Array, int]] = []
    for conv in CONVS:
        zero_point = int(rng.integers(isa.act_min, isa.act_max + 1))
        top, bottom = conv.height.border
        left, right = conv.width.border
        shape = (conv.batch, conv.height.size, conv.width.size, conv.groups * conv.in_channels)
        image = random_bytes(rng, isa, int(np.prod(shape))).reshape(shape)
        padded = np.pad(image, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=zero_point)
        kernel = (conv.groups * conv.in_channels, conv.out_channels, conv.height.kernel, conv.width.kernel)
        weight = rng.integers(-127, 128, kernel).astype("int8")
        acc = _accumulators(conv, image, weight, zero_point)
        arrays = {**random_params(isa, rng), **centred(acc, rng), "x_zero_point": np.array(zero_point)}
        residual = random_bytes(rng, isa, acc.size) if conv.epilogue.residual else None
        seen = None if residual is None else view(residual, conv.output, acc.shape)
        wanted = finish(isa, conv.epilogue, acc + arrays["bias"], arrays, seen)
        for phase in conv.phases:
            buffers = {"x": padded.reshape(-1), "out": np.zeros(acc.size, isa.act_dtype)}
            if residual is not None:
                buffers["residual"] = residual
            own = {name: np.asarray(array) for name, array in phase.constants({**arrays, "weight": weight}).items()}
            spec = replace(phase.spec, epilogue=phase.spec.epilogue.fitted(isa, own))
            cases.append(Case(spec, {**buffers, **spec.pack(isa, **own)}))
        expected.append((wanted.reshape(-1), len(conv.phases)))
    results = iter(run_kernels(cases, level))
    for wanted, count in expected:
        parts = [next(results)["out"].astype("int64") for _ in range(count)]
        np.testing.assert_array_equal(np.sum(parts, axis=0), wanted)
