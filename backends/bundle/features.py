"""Where each instruction-set feature shows itself on the machine that runs a bundle.

The names are LLVM's, so that a level's required features are the very list given to the code generator: LLVM may use
anything it was allowed to use. Bits: Intel SDM volume 2 (CPUID), Linux ``asm/hwcap.h`` (aarch64).
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.errors import TargetError

X86_64 = "x86_64"
AARCH64 = "aarch64"
ARCHITECTURES = (X86_64, AARCH64)

_AVX_STATE = 0x6
_AVX512_STATE = 0xE6
_TILE_STATE = 0x60000


@dataclass(frozen=True)
class Feature:
    """One bit of one word that the runtime reads (``enum word`` of the C runtime), and the register state it needs."""

    name: str
    architecture: str
    word: str
    bit: int
    state: int = 0


def _x86(word: str, state: int, **bits: int) -> tuple[Feature, ...]:
    return tuple(Feature(_llvm_name(name), X86_64, word, bit, state) for name, bit in bits.items())


def _llvm_name(name: str) -> str:
    return name.replace("sse4_", "sse4.").replace("amx_", "amx-")


def _arm(word: str, **bits: int) -> tuple[Feature, ...]:
    return tuple(Feature(name, AARCH64, word, bit) for name, bit in bits.items())


_TABLE = (
    *_x86("LEAF1_ECX", 0, sse3=0, pclmul=1, ssse3=9, cx16=13, sse4_1=19, sse4_2=20, movbe=22, popcnt=23, aes=25),
    *_x86("LEAF1_ECX", _AVX_STATE, avx=28, fma=12, f16c=29),
    *_x86("LEAF7_EBX", 0, bmi=3, bmi2=8, adx=19, sha=29),
    *_x86("LEAF7_EBX", _AVX_STATE, avx2=5),
    *_x86("LEAF7_EBX", _AVX512_STATE, avx512f=16, avx512dq=17, avx512ifma=21, avx512cd=28, avx512bw=30, avx512vl=31),
    *_x86("LEAF7_ECX", 0, gfni=8, rdpid=22),
    *_x86("LEAF7_ECX", _AVX_STATE, vaes=9, vpclmulqdq=10),
    *_x86("LEAF7_ECX", _AVX512_STATE, avx512vbmi=1, avx512vbmi2=6, avx512vnni=11, avx512bitalg=12, avx512vpopcntdq=14),
    *_x86("LEAF7_EDX", _AVX512_STATE, avx512fp16=23),
    *_x86("LEAF7_EDX", _TILE_STATE, amx_tile=24, amx_int8=25, amx_bf16=22),
    *_x86("LEAF7_1_EAX", _AVX_STATE, avxvnni=4, avxifma=23),
    *_x86("LEAF7_1_EAX", _AVX512_STATE, avx512bf16=5),
    *_x86("LEAF7_1_EDX", _AVX_STATE, avxvnniint8=4, avxneconvert=5),
    *_x86("EXTENDED1_ECX", 0, lzcnt=5, prfchw=8),
    *_arm("HWCAP", neon=1, aes=3, sha2=6, crc=7, lse=8, fullfp16=10, rdm=12, rcpc=15, dotprod=20, sve=22),
    *_arm("HWCAP2", sve2=1, i8mm=13, bf16=14),
)

#: Part of the base instruction set: no bit to look at.
_BASELINE = {
    X86_64: frozenset({"sse", "sse2", "fxsr", "cmov", "cx8", "mmx", "x87", "64bit"}),
    AARCH64: frozenset({"fp-armv8"}),
}


def lookup(architecture: str, name: str) -> Feature | None:
    """The feature called ``name`` (a leading ``+`` is allowed), or None when every CPU of the architecture has it.

    Raises:
        TargetError: the name is not known for the architecture.
    """
    plain = name.removeprefix("+")
    if plain in _BASELINE[architecture]:
        return None
    for feature in _TABLE:
        if feature.name == plain and feature.architecture == architecture:
            return feature
    known = sorted(feature.name for feature in _TABLE if feature.architecture == architecture)
    raise TargetError(f"unknown {architecture} feature {name!r}", expected=f"one of {', '.join(known)}")
