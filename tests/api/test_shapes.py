"""Input shapes as text."""

from __future__ import annotations

import pytest
from octavo.backends.shapes import format_shapes, parse_shapes
from octavo.ir.errors import UsageError


def test_one_shape() -> None:
    assert parse_shapes([]) == ()
    assert parse_shapes(["x=1x3x224x224"]) == ({"x": (1, 3, 224, 224)},)
    assert parse_shapes(["scalar="]) == ({"scalar": ()},)
    assert parse_shapes(["a=b=2"]) == ({"a=b": (2,)},)


def test_alternatives_are_plans() -> None:
    assert parse_shapes(["x=1x48x{160,320,640}"]) == tuple({"x": (1, 48, w)} for w in (160, 320, 640))
    assert parse_shapes(["x={1,2}x{3,4}"]) == tuple({"x": s} for s in ((1, 3), (1, 4), (2, 3), (2, 4)))
    assert parse_shapes(["x=1x8", "x=1x16"]) == ({"x": (1, 8)}, {"x": (1, 16)})


def test_inputs_go_together() -> None:
    plans = parse_shapes(["ids=1x{32,128}", "mask=1x{32,128}", "seed=4"])
    assert plans == ({"ids": (1, 32), "mask": (1, 32), "seed": (4,)}, {"ids": (1, 128), "mask": (1, 128), "seed": (4,)})


@pytest.mark.parametrize("text", ["1x3", "=1x3", "x=1x", "x=1x0", "x=-1", "x=1x{2", "x=1x{2,}", "x=axb", "x=1,2"])
def test_what_is_no_shape(text: str) -> None:
    with pytest.raises(UsageError, match="NAME=1x3x224x224"):
        parse_shapes([text])


def test_different_numbers_of_alternatives() -> None:
    with pytest.raises(UsageError, match="x has 2, y has 3"):
        parse_shapes(["x={1,2}", "y={1,2,3}"])


def test_shapes_print_as_they_are_given() -> None:
    (plan,) = parse_shapes(["x=1x3", "y=2"])
    assert format_shapes(plan) == "x=1x3 y=2"
