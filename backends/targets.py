"""The targets a bundle can be compiled for, and which of their levels a CPU or a list of features selects.

Which CPU has which instructions: LLVM's tables (X86TargetParser.cpp, AArch64Processors.td), reduced to the levels that
kernels exist for. A CPU with AVX-512 but without its dot products (Skylake-SP) gets the AVX2 kernels.
"""

from __future__ import annotations

import dataclasses
import difflib
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..ir.errors import TargetError
from ..ir.target import IsaLevel, Target

_V3 = (
    "avx", "avx2", "bmi", "bmi2", "cx16", "f16c", "fma", "lzcnt", "movbe", "popcnt", "sse3", "sse4.1", "sse4.2",
    "ssse3",
)  # fmt: skip
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")

X86_INT8 = Target(
    "x86-int8",
    "x86_64",
    (
        IsaLevel("avx2", _V3, vector_bytes=32, channel_multiple=8),
        IsaLevel("avxvnni", (*_V3, "avxvnni"), vector_bytes=32, channel_multiple=8),
        IsaLevel("avx512vnni", (*_V4, "avx512vnni"), vector_bytes=64, channel_multiple=16),
        IsaLevel(
            "amx", (*_V4, "avx512vnni", "avx512vbmi", "amx-tile", "amx-int8"), vector_bytes=64, channel_multiple=16
        ),
    ),
)
ARM_INT8 = Target(
    "arm-int8",
    "aarch64",
    (
        IsaLevel("neon", ("neon",), vector_bytes=16, channel_multiple=4),
        IsaLevel("dotprod", ("neon", "dotprod"), vector_bytes=16, channel_multiple=4),
        IsaLevel("i8mm", ("neon", "dotprod", "i8mm"), vector_bytes=16, channel_multiple=4),
    ),
)

TARGETS: Mapping[str, Target] = {target.name: target for target in (X86_INT8, ARM_INT8)}

_CPUS_OF_LEVEL = {
    "avx2": (
        "haswell", "broadwell", "skylake", "skylake-avx512", "cannonlake", "znver1", "znver2", "znver3", "x86-64-v3",
        "x86-64-v4",
    ),
    "avxvnni": (
        "alderlake", "raptorlake", "meteorlake", "gracemont", "arrowlake", "arrowlake-s", "lunarlake", "pantherlake",
        "sierraforest", "grandridge", "clearwaterforest",
    ),
    "avx512vnni": (
        "cascadelake", "cooperlake", "icelake-client", "icelake-server", "rocketlake", "tigerlake", "znver4", "znver5",
    ),
    "amx": ("sapphirerapids", "emeraldrapids", "graniterapids", "graniterapids-d"),
    "neon": ("armv8-a", "cortex-a35", "cortex-a53", "cortex-a57", "cortex-a72", "cortex-a73"),
    "dotprod": (
        "cortex-a55", "cortex-a65", "cortex-a75", "cortex-a76", "cortex-a77", "cortex-a78", "cortex-x1", "neoverse-e1",
        "neoverse-n1", "ampere-altra", "graviton2", "apple-m1",
    ),
    "i8mm": (
        "cortex-a510", "cortex-a520", "cortex-a710", "cortex-a715", "cortex-a720", "cortex-x2", "cortex-x3",
        "cortex-x4", "neoverse-n2", "neoverse-v1", "neoverse-v2", "ampere1", "ampere1a", "graviton3", "graviton4",
        "apple-m2", "apple-m3", "apple-m4",
    ),
}  # fmt: skip

CPUS: Mapping[str, str] = {cpu: level for level, cpus in _CPUS_OF_LEVEL.items() for cpu in cpus}
"""The best level of every CPU that ``--mcpu`` knows."""

_CPUINFO = Path("/proc/cpuinfo")
_MODEL_FIELDS = (
    "vendor_id", "cpu family", "model", "model name", "stepping", "cache size",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision",
)  # fmt: skip
_LINUX_NAMES = {
    "pni": "sse3",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "bmi1": "bmi",
    "abm": "lzcnt",
    "avx_vnni": "avxvnni",
    "avx512_vnni": "avx512vnni",
    "amx_tile": "amx-tile",
    "amx_int8": "amx-int8",
    "asimd": "neon",
    "asimddp": "dotprod",
}
"""Flags of /proc/cpuinfo that LLVM spells otherwise."""


def resolve_target(name: str, mcpu: str | None = None, features: Sequence[str] | None = None) -> Target:
    """The target called ``name``, narrowed to one CPU's best level or to the levels in ``features``.

    Args:
        mcpu: a CPU by LLVM's name, or ``native`` for the machine at hand.
        features: names of levels to keep, in any order.

    Raises:
        TargetError: an unknown name (the known ones are listed), a CPU of another architecture, both narrowings.
    """
    target = TARGETS.get(name)
    if target is None:
        raise TargetError(f"no target is named {name!r}", expected=_listing(TARGETS), hint=_close(name, TARGETS))
    if mcpu is not None and features is not None:
        raise TargetError("a CPU and a list of features are given", hint="give --mcpu or --features")
    if mcpu is not None:
        return _narrow(target, [_native_level(target) if mcpu == "native" else _level_of_cpu(target, mcpu)])
    return target if features is None else _narrow(target, _check_features(target, features))


def host_levels(cpuinfo: str | None = None, machine: str | None = None) -> tuple[str, ...]:
    """The levels this machine can run, best last; empty when it is of no architecture that octavo knows.

    ``cpuinfo`` and ``machine`` stand in for /proc/cpuinfo and the machine's name, for tests.
    """
    target = _target_of_machine(machine or platform.machine())
    if target is None:
        return ()
    present = _read_features(_CPUINFO.read_text(encoding="utf-8", errors="replace") if cpuinfo is None else cpuinfo)
    return tuple(level.name for level in target.levels if present.issuperset(level.features))


def tunable_level(target: Target) -> str:
    """The level of ``target`` whose kernels this machine can measure.

    Raises:
        TargetError: there is none.
    """
    here = _readable_levels("compile without --tune")
    levels = [level.name for level in target.levels if level.name in here]
    if not levels:
        wanted = ", ".join(level.name for level in target.levels)
        raise TargetError(
            f"kernels for {wanted} cannot be measured on this machine",
            where=f"target {target.name}",
            expected=f"one of the levels {', '.join(here)}" if here else None,
            hint="tune on the machine that the bundle is for, or compile without --tune",
        )
    return levels[-1]


def _readable_levels(hint: str) -> tuple[str, ...]:
    """The levels of this machine, where it tells them."""
    try:
        return host_levels()
    except OSError as error:
        raise TargetError(
            f"the features of this CPU cannot be read: {error.strerror}", where=str(_CPUINFO), hint=hint
        ) from error


def host_cpu(cpuinfo: str | None = None) -> str:
    """What identifies the model of this machine's CPU, or the models of its cores; ``cpuinfo`` as before."""
    text = _CPUINFO.read_text(encoding="utf-8", errors="replace") if cpuinfo is None else cpuinfo
    fields = [line.partition(":") for line in text.splitlines()]
    found = {f"{key.strip()} {value.strip()}" for key, _, value in fields if key.strip() in _MODEL_FIELDS}
    return ", ".join(sorted(found))


def cpus_of(level: str) -> tuple[str, ...]:
    """The CPUs whose best level this is."""
    return tuple(cpu for cpu, best in CPUS.items() if best == level)


def _narrow(target: Target, levels: Sequence[str]) -> Target:
    return dataclasses.replace(target, levels=tuple(level for level in target.levels if level.name in levels))


def _level_of_cpu(target: Target, mcpu: str) -> str:
    level = CPUS.get(mcpu)
    if level is None:
        own = [cpu for cpu, best in CPUS.items() if _has(target, best)]
        hint = _close(mcpu, ["native", *CPUS])
        raise TargetError(f"no CPU is named {mcpu!r}", expected=_listing(["native", *own]), hint=hint)
    if not _has(target, level):
        right = next(other.name for other in TARGETS.values() if _has(other, level))
        what = f"{mcpu} is no {target.architecture} CPU"
        raise TargetError(what, where=f"target {target.name}", hint=f"--target {right}")
    return level


def _native_level(target: Target) -> str:
    here = _target_of_machine(platform.machine())
    if here is not target:
        hint = f"--target {here.name}" if here else None
        raise TargetError(f"this machine is {platform.machine()}", where=f"target {target.name}, CPU native", hint=hint)
    levels = _readable_levels("name the CPU")
    if not levels:
        lowest = target.levels[0]
        raise TargetError(f"this CPU is older than {lowest.name}, the lowest level of {target.name}")
    return levels[-1]


def _check_features(target: Target, features: Sequence[str]) -> Sequence[str]:
    known = [level.name for level in target.levels]
    if not features:
        raise TargetError("the list of features is empty", expected=_listing(known))
    for feature in features:
        if feature not in known:
            other = next((t.name for t in TARGETS.values() if _has(t, feature)), None)
            hint = f"--target {other}" if other else _close(feature, known)
            raise TargetError(f"{target.name} has no level {feature!r}", expected=_listing(known), hint=hint)
    return features


def _has(target: Target, level: str) -> bool:
    return any(own.name == level for own in target.levels)


def _target_of_machine(machine: str) -> Target | None:
    architecture = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine.lower(), machine)
    return next((t for t in TARGETS.values() if t.architecture == architecture), None)


def _read_features(cpuinfo: str) -> frozenset[str]:
    """LLVM's names of the features that every processor of the machine has (big and little cores differ)."""
    found: frozenset[str] | None = None
    for line in cpuinfo.splitlines():
        key, _, words = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags = frozenset(_LINUX_NAMES.get(word, word) for word in words.split())
            found = flags if found is None else found & flags
    return found or frozenset()


def _listing(names: Iterable[str]) -> str:
    return f"one of {', '.join(names)}"


def _close(name: str, known: Iterable[str]) -> str | None:
    close = difflib.get_close_matches(name, list(known), 3)
    return f"did you mean {' or '.join(close)}?" if close else None
