"""Cycles of the inner loops on ARM processors as LLVM's scheduling models predict them (llvm-mca).

Instructions alone do not say how fast a loop is: a slow one may do the work of three. The loop of a kernel is the one
with the largest share of multiplications; models know nothing of caches and branches.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernels.conv_cases import conv_spec
from kernels.harness import pool
from kernels.test_depthwise import depthwise_spec
from octavo.backends.tvm.kernels.base import KernelSpec
from octavo.backends.tvm.kernels.chained import ChainedConvSpec
from octavo.backends.tvm.kernels.winograd import WinogradSpec
from support.missing import MissingError

CPUS: Mapping[str, str] = {
    "cortex-a53": "neon",
    "cortex-a55": "dotprod",
    "cortex-a76": "dotprod",
    "neoverse-n1": "dotprod",
    "neoverse-v1": "i8mm",
}
"""Processors, and the level that a fat bundle takes on each."""

KERNELS: Mapping[str, KernelSpec] = {
    "3x3, 64 to 64": conv_spec((56, 56), (64, 64), (3, 3)),
    "3x3, 64 to 64, Winograd": WinogradSpec(conv_spec((56, 56), (64, 64), (3, 3)), 4),
    "3x3 by 2, 3 to 32": conv_spec((112, 112), (3, 32), (3, 3), stride_h=2, stride_w=2),
    "1x1, 16 to 96": conv_spec((112, 112), (16, 96)),
    "1x1, 96 to 576": conv_spec((14, 14), (96, 576)),
    "1x1, 960 to 320": conv_spec((7, 7), (960, 320)),
    "1x1, 960 to 320, chained": ChainedConvSpec(conv_spec((7, 7), (960, 320))),
    "depthwise 3x3, 144": depthwise_spec((56, 56), 144, (3, 3)),
}
TIMES = 200
"""Passes of a loop that are simulated."""
OBJDUMP = "aarch64-linux-gnu-objdump"
MULTIPLIED = {"sdot": 16, "smmla": 32}
"""Multiply-accumulates of an instruction."""
_LINE = re.compile(r"\s*([0-9a-f]+):\s+[0-9a-f]{8}\s+(\S+)\s*([^/]*)")


@dataclass(frozen=True)
class _Instruction:
    address: int
    name: str
    operands: str

    @property
    def macs(self) -> int:
        """Multiply-accumulates; smull and smlal have as many as their result has lanes, and of addresses none."""
        if re.fullmatch(r"sm[lu]l?[al]l2?", self.name):
            lanes = re.match(r"v\d+\.(\d+)", self.operands)
            return int(lanes[1]) if lanes else 0
        return MULTIPLIED.get(self.name, 0)

    @property
    def target(self) -> int | None:
        """Where a branch goes."""
        found = re.search(r"([0-9a-f]+) <", self.operands) if self.name.startswith(("b.", "cb", "tb")) else None
        return int(found[1], 16) if found else None


def measure(cpu: str) -> dict[str, Any]:
    """By kernel the ``cycles`` of a pass of its inner loop, the ``macs`` and the ``instructions`` of it."""
    for tool in (OBJDUMP, "llvm-mca"):
        if shutil.which(tool) is None:
            raise MissingError(f"{tool} is not installed", "OCTAVO_REQUIRE_ARM")
    level = CPUS[cpu]
    found: dict[str, Any] = {}
    for title, spec in KERNELS.items():
        if isinstance(spec, WinogradSpec | ChainedConvSpec) and level != "neon":
            continue
        loop = _busiest_loop(_disassembled(spec, level))
        cycles = _simulated(loop, cpu)
        found[title] = {"cycles": cycles, "macs": sum(each.macs for each in loop), "instructions": len(loop)}
    return found


def _disassembled(spec: KernelSpec, level: str) -> list[_Instruction]:
    with tempfile.TemporaryDirectory(prefix="octavo-cycles-") as folder:
        path = Path(folder) / "kernel.o"
        path.write_bytes(pool().compile([("kernel", spec)], level))
        text = subprocess.run(
            [OBJDUMP, "--disassemble=kernel", path], check=True, capture_output=True, text=True
        ).stdout
    found = (_LINE.match(line) for line in text.splitlines())
    return [_Instruction(int(match[1], 16), match[2], match[3].strip()) for match in found if match]


def _busiest_loop(code: Sequence[_Instruction]) -> list[_Instruction]:
    """The loop with the largest share of multiplications."""
    places = {each.address: at for at, each in enumerate(code)}
    loops = [
        code[places[target] : at + 1]
        for at, each in enumerate(code)
        if (target := each.target) is not None and places.get(target, at) < at
    ]
    return max(map(list, loops), key=_share)


def _share(loop: Sequence[_Instruction]) -> float:
    return sum(each.macs for each in loop) / len(loop)


def _simulated(loop: Sequence[_Instruction], cpu: str) -> float:
    lines = [each.name + " " + re.sub(r"[0-9a-f]+ <.*", ".loop", each.operands) for each in loop]
    words = ["llvm-mca", "-march=aarch64", f"-mcpu={cpu}", "-mattr=+dotprod,+i8mm", f"-iterations={TIMES}"]
    source = "\n".join([".loop:", *lines, ""])
    result = subprocess.run(words, input=source, check=True, capture_output=True, text=True)
    total = re.search(r"Total Cycles:\s+(\d+)", result.stdout)
    assert total, result.stderr
    return int(total[1]) / TIMES
