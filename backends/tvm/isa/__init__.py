"""The ISA levels: plain data about each one. Nothing here imports tvm; the vector operations are in `vector_ops`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .vector import VectorOps

Family = Literal["x86", "arm"]
Lookup = Literal["rows", "differences", "pairs"]


@dataclass(frozen=True)
class Isa:
    """One ISA level: what the processor must have, and the widths kernels are generated with.

    `lanes` is the number of 32-bit lanes of a native vector, `vectors` the number of native vector registers.
    `act_dtype` is how a quantized activation is stored: ``uint8`` (s8 + 128) on x86, ``int8`` on ARM. `lookup` is how
    tables of 256 bytes lie in memory: as they are; of each half, sixteen bytes xored with the sixteen before; entries i
    and i + 128 side by side. `tuning` says to LLVM what is fast, and needs nothing of the processor.
    """

    name: str
    family: Family
    triple: str
    mattr: tuple[str, ...]
    mcpu: str
    lanes: int
    vectors: int
    lookup: Lookup = "rows"
    tuning: tuple[str, ...] = ()

    @property
    def act_dtype(self) -> Literal["uint8", "int8"]:
        return "uint8" if self.family == "x86" else "int8"

    @property
    def act_offset(self) -> int:
        """What is added to a logical s8 value to get the stored one."""
        return 128 if self.family == "x86" else 0

    @property
    def act_min(self) -> int:
        """The smallest stored activation; the largest is `act_min + 255`."""
        return self.act_offset - 128

    @property
    def act_max(self) -> int:
        return self.act_min + 255


_X86 = "x86_64-linux-gnu"
_ARM = "aarch64-linux-gnu"
_VNNI512 = ("+avx512vnni",)
_AMX = (*_VNNI512, "+avx512vbmi", "+amx-tile", "+amx-int8")
# Else LLVM makes a multiplication and an addition of a vpdpwssd whose operands come late.
_WHOLE = ("+fast-dpwssd",)

AVX2 = Isa("avx2", "x86", _X86, (), "x86-64-v3", 8, 16, "differences")
AVXVNNI = Isa("avxvnni", "x86", _X86, ("+avxvnni",), "x86-64-v3", 8, 16, "differences", _WHOLE)
AVX512VNNI = Isa("avx512vnni", "x86", _X86, _VNNI512, "x86-64-v4", 16, 32, "pairs", _WHOLE)
AMX = Isa("amx", "x86", _X86, _AMX, "x86-64-v4", 16, 32, tuning=_WHOLE)
# Scheduled for a core that keeps the order of instructions, as most without dotprod do: the A55, without what is newer
# in it, since the model of the A53 keeps more values alive than there are registers.
_NOT_NEON = ("-dotprod", "-fullfp16", "-rcpc", "-lse", "-rdm", "-crc", "-crypto")
NEON = Isa("neon", "arm", _ARM, ("+neon", *_NOT_NEON), "cortex-a55", 4, 32)
DOTPROD = Isa("dotprod", "arm", _ARM, ("+neon", "+dotprod"), "", 4, 32)
I8MM = Isa("i8mm", "arm", _ARM, ("+neon", "+dotprod", "+i8mm"), "", 4, 32)

#: Every ISA level by name, weakest first within its family.
ISAS: dict[str, Isa] = {isa.name: isa for isa in (AVX2, AVXVNNI, AVX512VNNI, AMX, NEON, DOTPROD, I8MM)}


def get_isa(name: str) -> Isa:
    """The ISA level called `name`; raises ValueError that lists the known ones."""
    try:
        return ISAS[name]
    except KeyError:
        raise ValueError(f"unknown ISA level {name!r}; known: {', '.join(ISAS)}") from None


def vector_ops(isa: Isa) -> VectorOps:
    """The vector operations of `isa`. Imports tvm: only for the code generation process."""
    if isa.family == "x86":
        from .x86 import X86Ops

        return X86Ops(isa)
    from .arm import ArmOps

    return ArmOps(isa)
