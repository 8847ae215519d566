"""Imitated instructions beside their definition, and imitated kernels beside native ones where a machine has both."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from kernels import test_conv, test_depthwise, test_float, test_recurrence, test_winograd
from kernels.conv_cases import conv_case
from kernels.harness import Array, Case, native_levels, run_kernels, runnable_levels
from kernels.instructions import InstructionSpec, lanes, scalar
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels.winograd import WinogradSpec, filters_of
from octavo.backends.tvm.worker import CodegenError

Definition = Callable[..., Array]

#: Values at which something ends, by type; every combination of them is tried.
EDGES: dict[str, list[float]] = {
    "uint8": [0, 1, 15, 16, 127, 128, 143, 240, 255],
    "uint16": [0, 1, 31, 32, 63, 64, 255, 256, 32768, 65535],
    "int8": [-128, -127, -1, 0, 1, 127],
    "int16": [-32768, -32767, -256, -1, 0, 1, 127, 128, 255, 256, 32767],
    "int32": [-(2**31), -(2**31) + 1, -32769, -32768, -1, 0, 1, 32767, 32768, 2**31 - 1],
    "float32": [
        *(np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38),
        *(0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 8388607.5, -8388606.5),
        *(2.0**31, np.nextafter(np.float32(2**31), np.float32(0)), -(2.0**31), -(2.0**31) - 256, 2.0**32, 2.0**63),
    ],
}


# Definitions, on arrays [rows, lanes] ------------------------------------------------------------------------------


def dot_product(total: Array, x: Array, y: Array) -> Array:
    """Products of what shares 32 bits with a lane of the total, which wraps."""
    products = x.astype("int64") * y.astype("int64")
    sums: Array = products.reshape(*total.shape, -1).sum(axis=-1)
    return (total + sums).astype("int32")


def add_byte_products(x: Array, y: Array) -> Array:
    """Sums of the products of neighbours, which saturate."""
    products = x.astype("int32") * y.astype("int32")
    sums: Array = products.reshape(len(x), -1, 2).sum(axis=2)
    return sums.clip(-(2**15), 2**15 - 1).astype("int16")


def saturating_pack(dtype: str) -> Definition:
    """From each 128 bits those of the first operand and then those of the second."""

    def pack(left: Array, right: Array) -> Array:
        limits = np.iinfo(dtype)
        both = [side.reshape(len(side), -1, 16 // side.itemsize) for side in (left, right)]
        found: Array = np.concatenate(both, axis=2).clip(limits.min, limits.max).astype(dtype)
        return found.reshape(len(left), -1)

    return pack


def shuffle_bytes(table: Array, index: Array) -> Array:
    """Bytes of the same 128 bits, or zero where bit 7 of the index is set."""
    rows, places = (side.reshape(len(side), -1, 16) for side in (table, index))
    found: Array = np.where(places & 128, 0, np.take_along_axis(rows, places & 15, axis=2)).astype("uint8")
    return found.reshape(len(table), -1)


def permute_two(left: Array, places: Array, right: Array) -> Array:
    """Elements of both vectors, by the low bits of their places."""
    both = np.concatenate([left, right], axis=1)
    return np.take_along_axis(both, (places % both.shape[1]).astype("int64"), axis=1)


def to_int32(x: Array) -> Array:
    """Rounded to nearest even; what has no int32 becomes the least one."""
    rounded = np.rint(x.astype("float64"))
    fits = (rounded >= -(2**31)) & (rounded < 2**31)
    return np.where(fits, rounded, -(2**31)).astype("int64").astype("int32")


@dataclass(frozen=True)
class Instruction:
    """An instruction, the weakest level that has it, and what it computes."""

    level: str
    name: str
    definition: Definition
    result: str
    operands: tuple[str, ...]
    constants: tuple[tuple[str, int], ...] = ()

    def case(self) -> Case:
        rng = np.random.default_rng(7)
        edges = list(itertools.product(*(EDGES[scalar(kind)] for kind in self.operands)))
        columns = zip(self.operands, zip(*edges, strict=True), strict=True)
        arrays = {f"x{number}": _rows(rng, kind, column) for number, (kind, column) in enumerate(columns)}
        rows = len(arrays["x0"])
        out = np.full((rows, lanes(self.result)), 77, scalar(self.result))
        spec = InstructionSpec(self.name, rows, self.result, self.operands, self.constants)
        return Case(spec, {**arrays, "out": out})


def _rows(rng: np.random.Generator, kind: str, values: Sequence[float]) -> Array:
    """Vectors of one value each, vectors of mixed edges, and vectors of any values."""
    dtype, width = scalar(kind), lanes(kind)
    mixed = rng.choice(np.array(EDGES[dtype], dtype), (100, width))
    if dtype == "float32":
        random = (rng.normal(0, 1, (100, width)) * 10.0 ** rng.integers(-3, 12, (100, width))).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        random = rng.integers(limits.min, limits.max, (100, width), dtype, endpoint=True)
        # Wide numbers are nearly all out of the range of narrow ones.
        random[50:] >>= rng.integers(0, limits.bits, (50, width)).astype(dtype)
    same: Array = np.repeat(np.array(values, dtype)[:, None], width, axis=1)
    return np.concatenate([same, mixed, random])


def _dot(level: str, name: str, bits: int, x: str, y: str) -> Instruction:
    total, width = f"int32x{bits // 32}", bits // np.iinfo(x).bits
    return Instruction(level, f"avx512.{name}.{bits}", dot_product, total, (total, f"{x}x{width}", f"{y}x{width}"))


def _pack(level: str, name: str, bits: int, source: str, result: str) -> Instruction:
    width = bits // np.iinfo(source).bits
    return Instruction(level, name, saturating_pack(result), f"{result}x{2 * width}", (f"{source}x{width}",) * 2)


# Those of AVX2 are here for their definitions, which every machine then holds to the processor.
INSTRUCTIONS = [
    *(_dot("avx512vnni", "vpdpbusd", bits, "uint8", "int8") for bits in (128, 256, 512)),
    *(_dot("avx512vnni", "vpdpwssd", bits, "int16", "int16") for bits in (128, 256, 512)),
    Instruction("avx2", "avx2.pmadd.ub.sw", add_byte_products, "int16x16", ("uint8x32", "int8x32")),
    Instruction("avx512vnni", "avx512.pmaddubs.w.512", add_byte_products, "int16x32", ("uint8x64", "int8x64")),
    _pack("avx2", "avx2.packssdw", 256, "int32", "int16"),
    _pack("avx512vnni", "avx512.packssdw.512", 512, "int32", "int16"),
    _pack("avx2", "avx2.packuswb", 256, "int16", "uint8"),
    _pack("avx512vnni", "avx512.packuswb.512", 512, "int16", "uint8"),
    Instruction("avx2", "avx2.pshuf.b", shuffle_bytes, "uint8x32", ("uint8x32",) * 2),
    Instruction("amx", "avx512.vpermi2var.qi.512", permute_two, "uint8x64", ("uint8x64",) * 3),
    Instruction("avx512vnni", "avx512.vpermi2var.hi.512", permute_two, "uint16x32", ("uint16x32",) * 3),
    Instruction("avx2", "avx.cvt.ps2dq.256", to_int32, "int32x8", ("float32x8",)),
    Instruction(
        "avx512vnni",
        "avx512.mask.cvtps2dq.512",
        to_int32,
        "int32x16",
        ("float32x16",),
        (("int32x16", 0), ("int16", -1), ("int32", 4)),
    ),
]
IMITATED = [instruction for instruction in INSTRUCTIONS if instruction.level != "avx2"]


def _check(instruction: Instruction, *, imitated: bool) -> None:
    case = instruction.case()
    (result,) = run_kernels([case], instruction.level, imitated=imitated)
    wanted = instruction.definition(*(case.arrays[f"x{number}"] for number in range(len(instruction.operands))))
    np.testing.assert_array_equal(result["out"], wanted)


@pytest.mark.parametrize("instruction", INSTRUCTIONS, ids=lambda instruction: instruction.name)
def test_definitions_are_what_the_processor_does(instruction: Instruction) -> None:
    _need(instruction.level)
    _check(instruction, imitated=False)


@pytest.mark.skipif("avx2" not in runnable_levels(), reason="imitations are made of AVX2")
@pytest.mark.parametrize("instruction", IMITATED, ids=lambda instruction: instruction.name)
def test_imitations_equal_their_definition(instruction: Instruction) -> None:
    _check(instruction, imitated=True)


def test_what_a_level_lacks_is_not_imitated() -> None:
    wide = next(instruction for instruction in IMITATED if instruction.name == "avx512.packssdw.512")
    with pytest.raises(CodegenError, match=r"on avxvnni: .*LLVM ERROR"):
        run_kernels([wide.case()], "avxvnni", imitated=True)


@pytest.mark.parametrize("level", ["avxvnni", "avx512vnni", "amx"])
def test_imitated_kernels_give_the_bytes_of_native_ones(level: str) -> None:
    _need(level)
    cases = _kernels(level)
    pairs = zip(cases, run_kernels(cases, level), run_kernels(cases, level, imitated=True), strict=True)
    for case, native, imitated in pairs:
        for name, wanted in native.items():
            assert imitated[name].tobytes() == wanted.tobytes(), f"{level}: {name} of {case.spec}"


def _kernels(level: str) -> list[Case]:
    """Kernels of integers and of floats that together ask for all instructions of the level."""
    isa, rng = ISAS[level], np.random.default_rng(11)
    made = [conv_case(spec, isa, rng) for spec in (*test_conv.POINTWISE, *test_conv.SPATIAL)]
    made += [test_depthwise.depthwise_case(spec, isa, rng) for spec in test_depthwise.CASES]
    if level != "amx":
        forms = [partial(WinogradSpec, size=4, filters=form) for form in filters_of(isa)]
        made += [conv_case(spec, isa, rng, form) for spec in test_winograd.CONVS[:3] for form in forms]
    made += [test_float.conv_case(spec, isa) for spec in test_float.CONVS]
    return [*(case for case, _ in made), *(test_recurrence.case(spec, level) for spec in test_recurrence.SPECS)]


def _need(level: str) -> None:
    if level not in native_levels():
        pytest.skip(f"this machine does not have the instructions of {level}")
