"""Programs that do not fit together are refused when they are made, with the reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from bundle.toys import Toy
from octavo.backends.bundle.program import LevelProgram, PlanProgram, Program, Ref, Signature, Step, TensorSpec
from octavo.backends.bundle.sequencer import c_string
from octavo.backends.bundle.weights import WeightStore
from octavo.ir.errors import BundleError, TargetError

X = TensorSpec("x", "float32", (2, 4))
Y = TensorSpec("y", "int8", (8,), scale=0.5, zero_point=-3)
STEP = Step("net_k", (Ref.input(0), Ref.arena(64), Ref.output(0)), 2, "conv1")


def program(step: Step = STEP, **changes: Any) -> Program:
    plan = PlanProgram(128, 0, (step,))
    fields: dict[str, Any] = {
        "prefix": "net",
        "architecture": "x86_64",
        "signatures": (Signature((X,), (Y,)),),
        "levels": (LevelProgram("avx2", ("avx2",), (plan,)),),
    }
    return Program(**{**fields, **changes})


def test_a_good_one() -> None:
    assert program().levels[0].plans[0].steps == (STEP,)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (replace(STEP, symbol="k"), "does not begin with net_"),
        (replace(STEP, symbol="net_k()"), "does not begin with net_"),
        (replace(STEP, tasks=0), "0 tasks"),
        (replace(STEP, tasks=2**31), "2147483648 tasks"),
        (replace(STEP, grain=0), "grain 0"),
        (replace(STEP, args=(Ref.input(1),)), "input 1 does not exist"),
        (replace(STEP, args=(Ref.output(-1),)), "output -1 does not exist"),
        (replace(STEP, args=(Ref.arena(129),)), "outside of 128 bytes"),
        (replace(STEP, args=(Ref.weights(-1),)), "outside of inf bytes"),
        (replace(STEP, args=(Ref.scratch(1),)), "outside of 0 bytes"),
        (replace(STEP, companions=(replace(STEP, tasks=0),)), "0 tasks"),
    ],
)
def test_bad_steps(step: Step, message: str) -> None:
    with pytest.raises(BundleError, match="malformed program") as caught:
        program(step)
    assert message in str(caught.value)
    assert "conv1" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prefix": "9net"}, "not a C identifier"),
        ({"prefix": "net;"}, "not a C identifier"),
        ({"architecture": "riscv64"}, "architecture 'riscv64'"),
        ({"signatures": ()}, "needs a signature"),
        ({"levels": ()}, "needs a signature and a level"),
        ({"levels": (LevelProgram("avx2", (), ()),)}, "not one plan per signature"),
        ({"levels": (LevelProgram("AVX 2", (), (PlanProgram(0, 0, ()),)),)}, "level name"),
        ({"signatures": (Signature((X,), (Y,)), Signature((X,), (X,)))}, "differ in more than shapes"),
        ({"signatures": (Signature((X, X), (Y,)),)}, "share a name"),
        ({"signatures": (Signature((), (Y,)),)}, "needs inputs and outputs"),
        ({"signatures": (Signature((replace(X, dtype="complex"),), (Y,)),)}, "dtype 'complex'"),
        ({"signatures": (Signature((replace(X, shape=(0,)),), (Y,)),)}, "shape (0,)"),
        ({"signatures": (Signature((replace(X, alignment=48),), (Y,)),)}, "alignment 48"),
        ({"signatures": (Signature((X,), (replace(Y, zero_point=None),)),)}, "scale without zero point"),
        ({"signatures": (Signature((X,), (replace(Y, scale=float("nan")),)),)}, "scale nan"),
    ],
)
def test_bad_programs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError) as caught:
        program(**changes)
    assert message in str(caught.value)


def test_unknown_feature() -> None:
    with pytest.raises(TargetError, match="avx3"):
        program(levels=(LevelProgram("avx2", ("avx3",), (PlanProgram(0, 0, ()),)),))


def test_one_symbol_with_two_arities() -> None:
    steps = (STEP, replace(STEP, args=STEP.args[:2]))
    with pytest.raises(BundleError, match="with 3 and with 2 arguments"):
        program(levels=(LevelProgram("avx2", (), (PlanProgram(128, 0, steps),)),))


def test_repeated_level() -> None:
    toy = Toy().program(WeightStore())
    with pytest.raises(BundleError, match="repeat a name"):
        replace(toy, levels=(toy.levels[0], toy.levels[0]))


def test_c_strings() -> None:
    assert c_string('a"b\\c?\n1é') == '"a\\042b\\134c\\077\\0121\\303\\251"'
