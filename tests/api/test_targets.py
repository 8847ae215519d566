"""The table of targets, and how CPUs and features narrow them."""

from __future__ import annotations

import pytest
from octavo.backends.bundle.features import lookup
from octavo.backends.targets import CPUS, TARGETS, cpus_of, host_levels, resolve_target
from octavo.backends.tvm.isa import ISAS
from octavo.ir.errors import TargetError

ZEN5 = (
    "sse4_1 sse4_2 ssse3 pni avx avx2 bmi1 bmi2 cx16 f16c fma abm movbe popcnt"
    " avx512f avx512bw avx512cd avx512dq avx512vl"
)


def levels(name: str, mcpu: str | None = None, features: list[str] | None = None) -> list[str]:
    return [level.name for level in resolve_target(name, mcpu, features).levels]


def test_levels_are_those_that_kernels_exist_for_in_the_same_order() -> None:
    assert [level.name for target in TARGETS.values() for level in target.levels] == list(ISAS)


@pytest.mark.parametrize("name", ISAS)
def test_a_level_names_every_feature_that_its_kernels_may_use(name: str) -> None:
    isa = ISAS[name]
    target = next(t for t in TARGETS.values() if t.architecture == isa.triple.partition("-")[0])
    level = next(level for level in target.levels if level.name == name)
    assert {feature.removeprefix("+") for feature in isa.mattr if not feature.startswith("-")} <= set(level.features)
    assert level.vector_bytes == isa.lanes * 4
    assert ("avx512vl" in level.features) == (isa.mcpu == "x86-64-v4")
    for feature in level.features:
        lookup(target.architecture, feature)


@pytest.mark.parametrize(
    ("cpu", "level"),
    [
        ("haswell", "avx2"),
        ("skylake-avx512", "avx2"),
        ("x86-64-v4", "avx2"),
        ("alderlake", "avxvnni"),
        ("arrowlake", "avxvnni"),
        ("cascadelake", "avx512vnni"),
        ("znver4", "avx512vnni"),
        ("sapphirerapids", "amx"),
        ("cortex-a53", "neon"),
        ("neoverse-n1", "dotprod"),
        ("apple-m1", "dotprod"),
        ("neoverse-v1", "i8mm"),
        ("ampere1", "i8mm"),
    ],
)
def test_a_cpu_gets_its_best_level_alone(cpu: str, level: str) -> None:
    target = next(t.name for t in TARGETS.values() if any(own.name == level for own in t.levels))
    assert levels(target, cpu) == [level]
    assert cpu in cpus_of(level)
    assert CPUS[cpu] == level


def test_features_select_levels_best_last() -> None:
    assert levels("x86-int8", features=["amx", "avx2"]) == ["avx2", "amx"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x86int8",), r"no target is named 'x86int8'\n.*x86-int8, arm-int8\n.*did you mean x86-int8"),
        (("x86-int8", "neoverse-n1"), r"neoverse-n1 is no x86_64 CPU\n.*\n.*--target arm-int8"),
        (("arm-int8", "haswell"), r"haswell is no aarch64 CPU\n.*\n.*--target x86-int8"),
        (("x86-int8", "sapphirerapid"), r"no CPU is named(.|\n)*native, haswell(.|\n)*did you mean sapphirerapids"),
        (("x86-int8", None, ["dotprod"]), r"x86-int8 has no level 'dotprod'\n.*avx2(.|\n)*--target arm-int8"),
        (("x86-int8", None, ["avx"]), r"no level 'avx'"),
        (("x86-int8", None, []), r"empty"),
        (("x86-int8", "haswell", ["avx2"]), r"--mcpu or --features"),
    ],
)
def test_a_wrong_name_says_what_is_known(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        resolve_target(*arguments)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "expected"),
    [
        ("x86_64", f"flags : {ZEN5} avx_vnni avx512_vnni", ("avx2", "avxvnni", "avx512vnni")),
        ("x86_64", f"flags : {ZEN5}", ("avx2",)),
        ("x86_64", f"flags : {ZEN5} avx512_vnni avx512vbmi amx_tile amx_int8", ("avx2", "avx512vnni", "amx")),
        ("x86_64", "flags : sse4_1 avx", ()),
        ("aarch64", "Features : fp asimd asimddp i8mm\n", ("neon", "dotprod", "i8mm")),
        ("aarch64", "Features : fp asimd asimddp\n\nFeatures : fp asimd\n", ("neon",)),
        ("riscv64", "isa : rv64", ()),
    ],
)
def test_the_host_is_read_from_cpuinfo(machine: str, cpuinfo: str, expected: tuple[str, ...]) -> None:
    assert host_levels(cpuinfo, machine) == expected


def test_native_is_the_best_level_of_this_machine() -> None:
    here = host_levels()
    target = next(t for t in TARGETS.values() if any(level.name in here for level in t.levels))
    assert levels(target.name, "native") == [here[-1]]
    other = next(name for name in TARGETS if name != target.name)
    with pytest.raises(TargetError, match=f"--target {target.name}"):
        resolve_target(other, "native")
