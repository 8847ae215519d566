"""Which level of a fat bundle a machine gets, from what the machine says about itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from octavo.backends.bundle.features import lookup
from octavo.backends.bundle.link import find_toolchain, host_architecture
from octavo.backends.bundle.program import LevelProgram, PlanProgram, Program, Signature, TensorSpec
from octavo.backends.bundle.sequencer import WeightsLink, public_header, translation_unit
from octavo.ir.errors import TargetError

pytestmark = pytest.mark.skipif(host_architecture() != "x86_64", reason="describes x86-64 machines")

WORDS = (
    "LEAF1_ECX",
    "LEAF7_EBX",
    "LEAF7_ECX",
    "LEAF7_EDX",
    "LEAF7_1_EAX",
    "LEAF7_1_EDX",
    "EXTENDED1_ECX",
    "HWCAP",
    "HWCAP2",
)
AVX2 = ("avx", "avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "popcnt", "movbe")
AVXVNNI = (*AVX2, "avxvnni")
AVX512 = (*AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd", "avx512vnni")
AMX = (*AVX512, "amx-tile", "amx-int8")
LEVELS = {"amx": AMX, "avx512vnni": AVX512, "avxvnni": AVXVNNI, "avx2": AVX2}
ALL_STATE, NO_TILES, AVX_ONLY, SSE_ONLY = 0x600E7, 0xE7, 0x7, 0x3


@pytest.fixture(scope="module")
def chooser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("levels")
    tensor = (TensorSpec("t", "float32", (1,)),)
    plan = PlanProgram(0, 0, ())
    levels = tuple(LevelProgram(name, features, (plan,)) for name, features in LEVELS.items())
    program = Program("octavo_bundle", "x86_64", (Signature(tensor, tensor),), levels)
    text = translation_unit(program, WeightsLink(bytes(64), 0), "build")
    (folder / "octavo_bundle.h").write_text(public_header("octavo_bundle"))
    (folder / "unit.c").write_text(text + (Path(__file__).parent / "levels.c").read_text())
    find_toolchain("x86_64").run(
        "-Wall", "-Wextra", "-Werror", folder / "unit.c", "-o", folder / "levels", "-ldl", "-pthread"
    )
    return folder / "levels"


def choose(
    chooser: Path, has: tuple[str, ...], xcr0: int, *, tiles: bool = True, wanted: str = "-", unchecked: bool = False
) -> tuple[int, str]:
    words: dict[str, int] = dict.fromkeys(WORDS, 0)
    for name in has:
        feature = lookup("x86_64", name)
        assert feature is not None
        words[feature.word] |= 1 << feature.bit
    arguments = [wanted, str(int(unchecked)), f"{xcr0:x}", str(int(tiles)), *(f"{word:x}" for word in words.values())]
    result = subprocess.run([chooser, *arguments], capture_output=True, text=True, check=False)
    return result.returncode, result.stdout.strip()


def test_takes_the_best(chooser: Path) -> None:
    assert choose(chooser, (*AMX, *AVXVNNI), ALL_STATE) == (0, "amx")
    assert choose(chooser, (*AVX512, *AVXVNNI), NO_TILES) == (0, "avx512vnni")
    assert choose(chooser, AVXVNNI, AVX_ONLY) == (0, "avxvnni")
    assert choose(chooser, AVX2, AVX_ONLY) == (0, "avx2")


def test_amx_denied_by_the_kernel(chooser: Path) -> None:
    assert choose(chooser, AMX, ALL_STATE, tiles=False) == (0, "avx512vnni")


def test_operating_system_without_the_register_state(chooser: Path) -> None:
    assert choose(chooser, AMX, NO_TILES) == (0, "avx512vnni")
    assert choose(chooser, AMX, AVX_ONLY) == (0, "avx2")
    assert choose(chooser, AMX, SSE_ONLY) == (2, "this machine can run no level of the bundle: even avx2 needs avx")


def test_one_missing_feature_is_enough(chooser: Path) -> None:
    assert choose(chooser, tuple(f for f in AVX512 if f != "avx512vl"), NO_TILES) == (0, "avx2")


def test_wanted_level(chooser: Path) -> None:
    assert choose(chooser, AMX, ALL_STATE, wanted="avx2") == (0, "avx2")
    assert choose(chooser, AVX2, AVX_ONLY, wanted="amx") == (3, "level amx needs avx512f, which this machine lacks")
    assert choose(chooser, AVX2, AVX_ONLY, wanted="amx", unchecked=True) == (0, "amx")
    assert choose(chooser, AVX2, AVX_ONLY, wanted="neon", unchecked=True) == (3, 'the bundle has no level "neon"')


def test_unknown_feature_lists_the_known_ones() -> None:
    with pytest.raises(TargetError, match="avx1024") as caught:
        lookup("x86_64", "+avx1024")
    assert "avx512vnni" in str(caught.value)
    assert lookup("x86_64", "+sse2") is None


def test_words_are_the_runtime_s() -> None:
    header = (Path(__file__).parents[2] / "backends" / "runtime" / "internal.h").read_text()
    assert f"enum word {{ {', '.join(WORDS)}, WORDS }};" in header
