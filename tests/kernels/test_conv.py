"""Convolution and matrix multiplication kernels beside their exact definition, on every ISA level."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from kernels.conv_cases import check_convs, conv_spec
from kernels.harness import Case, run_kernels
from kernels.levels import every_level
from kernels.reference import finish
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels.conv import ConvSpec
from octavo.backends.tvm.kernels.conv_plan import choose_cut, plan_conv
from octavo.backends.tvm.kernels.epilogue import Epilogue, small_of
from octavo.backends.tvm.kernels.tiling import direct_dots, joined_dot

POINTWISE = [
    conv_spec((7, 7), (16, 24)),
    conv_spec((14, 14), (96, 64), residual=True),
    conv_spec((5, 9), (33, 17), pixel_gap=7, out_gap=6),
    conv_spec((3, 50), (8, 130), residual=True, out_gap=3),
    conv_spec((1, 1), (70, 35)),
    conv_spec((6, 6), (20, 40), stride_h=2, stride_w=2),
    conv_spec((4, 4), (1, 1)),
    conv_spec((2, 3), (5, 3), batch=3),
    ConvSpec.matmul(37, 100, 50),
    ConvSpec.matmul(1, 320, 100, Epilogue(out="f32")),
    # A few rows keep bytes of weights where many would widen them; K of one row may be too long to copy.
    ConvSpec.matmul(4, 70, 33),
    ConvSpec.matmul(5, 70, 33),
    ConvSpec.matmul(1, 33_001, 9, full_range=True),
    ConvSpec.matmul(9, 64, 33, Epilogue(out="i32"), row_stride=80, out_stride=40),
    ConvSpec.matmul(13, 48, 21, Epilogue(table=True), full_range=True),
]
SPATIAL = [
    conv_spec((8, 8), (3, 32), (3, 3), stride_h=2, stride_w=2),
    conv_spec((9, 11), (3, 10), (7, 7), pixel_gap=1),
    conv_spec((7, 7), (32, 48), (3, 3), residual=True),
    conv_spec((5, 13), (19, 21), (3, 2), dilation_h=2, dilation_w=3, out_gap=2),
    conv_spec((6, 10), (8, 8), (3, 3), groups=4, batch=2),
    conv_spec((6, 5), (5, 7), (2, 3), groups=3, residual=True),
    conv_spec((1, 40), (12, 20), (1, 5), stride_w=3),
    conv_spec((10, 20), (64, 64), (3, 3), epilogue=Epilogue(table=True)),
    conv_spec((4, 6), (16, 16), (1, 3), full_range=True),
    conv_spec((3, 3), (130, 5), (3, 3), epilogue=Epilogue(out="i32")),
]


@pytest.mark.parametrize("level", every_level())
def test_pointwise_equals_its_definition(level: str) -> None:
    check_convs(POINTWISE, level, 1)


@pytest.mark.parametrize("level", every_level())
def test_spatial_equals_its_definition(level: str) -> None:
    check_convs(SPATIAL, level, 2)


@pytest.mark.parametrize("level", every_level("avxvnni", "avx512vnni", "amx", "neon", "dotprod"))
def test_runs_that_a_tile_copies_equal_their_definition(level: str) -> None:
    isa = ISAS[level]
    joined = joined_dot(direct_dots(isa)[-1])
    assert joined is not None
    check_convs([replace(spec, cut=choose_cut(spec, isa, joined)) for spec in (*POINTWISE, *SPATIAL)], level, 3)


def random_spec(rng: np.random.Generator) -> ConvSpec:
    """Any convolution of moderate size."""
    pick = rng.integers
    kernel = (int(pick(1, 5)), int(pick(1, 5))) if rng.random() < 0.6 else (1, 1)
    groups = int(rng.choice([1, 1, 1, 2, 3]))
    return conv_spec(
        (int(pick(1, 12)), int(pick(1, 36))),
        (int(pick(1, 90)), int(pick(1, 140 // groups))),
        kernel,
        pixel_gap=int(rng.choice([0, 0, 1, 5])),
        out_gap=int(rng.choice([0, 0, 3, 7])),
        residual=bool(rng.random() < 0.3),
        epilogue=Epilogue(table=bool(rng.random() < 0.2)),
        stride_h=int(pick(1, 3)),
        stride_w=int(pick(1, 3)),
        dilation_h=int(pick(1, 3)),
        dilation_w=int(rng.choice([1, 1, 2])),
        groups=groups,
        batch=int(rng.choice([1, 1, 2])),
        full_range=bool(rng.random() < 0.2),
    )


@pytest.mark.parametrize("level", every_level())
def test_random_convolutions_equal_their_definition(level: str) -> None:
    rng = np.random.default_rng(11)
    check_convs([random_spec(rng) for _ in range(10)], level, 12)


@pytest.mark.parametrize("level", every_level())
def test_ties_round_to_even_for_even_and_odd_zero_points(level: str) -> None:
    """Channel c of pixel p is x[p] / 2, doubled c times: halves in the first, and much beyond a byte in the last."""
    isa, values = ISAS[level], np.arange(-128, 128)
    cases, expected = [], []
    for zero_point in (-128, -3, 0, 4, 127):
        arrays = {
            "weight": (2 ** np.arange(5)).astype("int8").reshape(5, 1, 1, 1),
            "bias": np.zeros(5, "int32"),
            "x_zero_point": np.array(isa.act_offset),
            "zero_point": np.array(zero_point + isa.act_offset),
            "multiplier": np.full(5, 0.5, "float32"),
        }
        epilogue = Epilogue().fitted(isa, arrays)
        assert (epilogue.small is None) == (isa.family == "x86")
        spec = ConvSpec.matmul(256, 1, 5, epilogue)
        x, out = (values + isa.act_offset).astype(isa.act_dtype), np.zeros(256 * 5, isa.act_dtype)
        cases.append(Case(spec, {"x": x, "out": out, **spec.pack(isa, **arrays)}))
        expected.append(finish(isa, epilogue, values[:, None] * 2 ** np.arange(5), arrays, None).reshape(-1))
    for result, wanted in zip(run_kernels(cases, level), expected, strict=True):
        np.testing.assert_array_equal(result["out"], wanted)


@pytest.mark.parametrize("weight", [127, -127])
def test_results_are_small_where_no_activations_make_them_large(weight: int) -> None:
    isa = ISAS["neon"]
    arrays = {
        "weight": np.full((1, 1000, 1, 1), weight, "int8"),
        "bias": np.zeros(1, "int32"),
        "x_zero_point": np.array(-128),
        "zero_point": np.array(0),
    }
    largest = 255 * 127 * 1000
    found = [small_of(isa, {**arrays, "multiplier": np.array([t / largest])}) for t in (31_999, 32_001, np.nan)]
    assert found == ["even", None, None]


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (conv_spec((7, 7), (16, 16), (3, 3)), "amx"),
        (conv_spec((112, 112), (3, 32), (3, 3), stride_h=2, stride_w=2), "amx"),
        (conv_spec((28, 28), (1, 16), (3, 3)), "vnni"),
        (conv_spec((7, 7), (20, 40)), "vnni"),
        (ConvSpec.matmul(8, 32, 32), "vnni"),
        (ConvSpec.matmul(1, 2048, 1000), "vnni"),
    ],
)
def test_tiles_are_used_where_they_were_measured_to_be_faster(spec: ConvSpec, kind: str) -> None:
    """Not for short K, few results, or layers so small that configuring tiles costs more than they save."""
    assert plan_conv(spec, ISAS["amx"]).dot.kind == kind
