"""The limits of a machine, what they say of a kernel, and the picture of both."""

from __future__ import annotations

import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from octavo.backends.bench.profile import KernelProfile, NetworkProfile
from octavo.backends.bench.roofline import MULTIPLY, SOURCE, Machine, limits
from octavo.backends.bench.svg import roofline
from octavo.backends.bundle.link import find_toolchain
from octavo.backends.bundle.program import Work
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels.base import KernelSpec, StridedView
from octavo.backends.tvm.kernels.conv import ConvSpec
from octavo.backends.tvm.kernels.depthwise import DepthwiseSpec
from octavo.backends.tvm.kernels.float_conv import FloatConvSpec, FloatMatmulSpec
from octavo.backends.tvm.kernels.matmul import MatmulSpec
from octavo.backends.tvm.kernels.sparse import SparseConvSpec

MACHINE = Machine("amx", 1, {"amx": 1000.0, "vnni": 100.0}, 10.0, {1 << 14: 100.0, 1 << 16: 50.0, 1 << 20: 10.0})
HEADS = StridedView(512, 256, 32)
VIEW = StridedView.dense(16, 16, 64)
PRODUCTS: dict[str, tuple[KernelSpec, int]] = {
    "linear": (ConvSpec.matmul(32, 256, 128), 32 * 256 * 128),
    "one row": (ConvSpec.matmul(1, 256, 128), 256 * 128),
    "sparse": (SparseConvSpec(ConvSpec.matmul(32, 256, 128)), 32 * 256 * 128),
    "depthwise": (DepthwiseSpec(1, 14, 14, 64, VIEW, StridedView.dense(14, 14, 64), 3, 3), 14 * 14 * 64 * 9),
    "attention": (MatmulSpec(1, 2, 8, 32, 16, HEADS, HEADS, HEADS), 2 * 8 * 32 * 16),
    "float": (FloatConvSpec.linear(4, 8, 16), 4 * 8 * 16),
    "float products": (FloatMatmulSpec(2, 4, 8, 16), 2 * 4 * 8 * 16),
}


@pytest.mark.parametrize("level", ISAS)
@pytest.mark.parametrize("name", PRODUCTS)
def test_every_product_has_a_peak(name: str, level: str) -> None:
    spec, macs = PRODUCTS[name]
    assert spec.macs == macs
    assert spec.instruction(ISAS[level]) in MULTIPLY[level]


def test_what_does_not_multiply_says_so() -> None:
    from octavo.backends.tvm.kernels.border import BorderSpec

    border = BorderSpec(1, 14, 14, 8, 1, 1, 1, 1, StridedView.dense(16, 16, 8))
    assert (border.macs, border.instruction(ISAS["amx"])) == (0, "")
    assert border.bytes_written == (16 * 16 - 14 * 14) * 8


@pytest.mark.parametrize(
    ("work", "bound", "nanoseconds"),
    [
        (Work("conv", "amx", macs=10**6, rescaled=1000), "compute", 1000),
        (Work("conv", "amx", macs=10**4, rescaled=1000), "epilogue", 100),
        (Work("conv", "vnni", macs=10**4, rescaled=500), "compute", 150),
        (Work("conv", "vnni", macs=10**3, constants=1 << 14), "memory", 1638.4),
        (Work("copy", read=1 << 13, written=1 << 13), "memory", 163.84),
    ],
)
def test_limits(work: Work, bound: str, nanoseconds: float) -> None:
    """Vector units take products and results one after the other; weights come from behind a whole network."""
    found = limits(work, MACHINE, footprint=1 << 20)
    assert found.bound == bound
    assert found.nanoseconds == pytest.approx(nanoseconds)


def test_bandwidth_falls_with_the_working_set() -> None:
    assert MACHINE.bytes_per_nanosecond(1) == 100.0
    assert MACHINE.bytes_per_nanosecond(1 << 15) == pytest.approx(75.0)
    assert MACHINE.bytes_per_nanosecond(1 << 30) == 10.0


def test_a_roofline_names_kernels_and_limits() -> None:
    works = [
        Work("conv", "amx", macs=10**6, read=1000, written=1000, constants=2000, rescaled=1000),
        Work("depthwise", "vnni", macs=10**4, read=5000, written=5000, rescaled=5000),
        Work("copy", read=100, written=100),
    ]
    kernels = [KernelProfile(f"<{w.kernel}>", w, 4000.0, 3000.0, limits(w, MACHINE, 10**4)) for w in works]
    root = ET.fromstring(roofline(NetworkProfile("amx", MACHINE, kernels), "a & b"))
    texts = [text.text or "" for text in root.iter("{http://www.w3.org/2000/svg}text")]
    titles = [title.text or "" for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert "a & b" in texts
    assert {"amx: 1000", "vnni: 100", "conv (amx)", "depthwise (vnni)"} <= set(texts)
    assert [title.partition(":")[0] for title in titles] == ["<conv>", "<depthwise>"]
    assert titles[0].endswith("250 GMAC/s, bound by compute")


def test_a_network_without_products_has_no_roofline() -> None:
    with pytest.raises(ValueError, match="no kernel multiplies"):
        roofline(NetworkProfile("amx", MACHINE, []), "")


@pytest.mark.arm
def test_arm_instructions_run(tmp_path: Path) -> None:
    functions = ["smlal", "smull", "sdot", "smmla", "fmla", "rescale", "read_all"]
    declared = "\n".join(f"void {name}(int64_t, const void *, void *);" for name in functions)
    calls = "\n".join(f"  {name}(3, in, out);" for name in functions)
    program = tmp_path / "program.c"
    program.write_text(
        f"#include <stdint.h>\n{declared}\nint main(void) {{\n"
        f"  static int64_t in[1024] = {{4096}};\n  static char out[64];\n{calls}\n  return 0;\n}}\n"
    )
    toolchain = find_toolchain("aarch64")
    toolchain.run("-O2", "-static", *toolchain.baseline_flags(), SOURCE, program, "-o", tmp_path / "program")
    done = subprocess.run(["qemu-aarch64", "-cpu", "max", tmp_path / "program"], check=False, timeout=60)
    assert done.returncode == 0
