from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from octavo.ir import Graph, OctavoError
from octavo.ir.errors import ParseError, UsageError
from octavo.passes import Exactness, Pass, PassContext, Pipeline, all_passes, find_pass, register_pass, registry
from octavo.passes.fuse import Fuse
from octavo.passes.options import options_of
from octavo.passes.pipeline import NAMED, format_pass


class Color(enum.Enum):
    RED = "red"
    DARK_BLUE = "dark-blue"


@dataclass(frozen=True)
class Everything(Pass):
    """Has an option of every type.

    More is said here.
    """

    count: int
    ratio: float = 0.5
    enabled: bool = False
    mode: Literal["fast", "slow-but-sure"] = "fast"
    color: Color = Color.RED
    label: str = ""
    limit: int | None = None
    kernel_sizes: tuple[int, ...] = ()
    span: tuple[float, float] = (0.0, 1.0)
    names: tuple[str, ...] = ()

    name: ClassVar[str] = "everything"
    exactness: ClassVar[Exactness] = Exactness.EXACT

    def apply(self, graph: Graph, context: PassContext) -> bool:
        context.report(f"count {self.count}")
        return False


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register_pass(Everything)
    yield
    del registry._REGISTRY["everything"]


def test_options_of_every_type_are_read() -> None:
    text = (
        "everything{count=3, ratio=1e-3, enabled=true, mode=slow-but-sure, color=dark-blue, limit=7,"
        ' label="a, {b}", kernel-sizes=[1;3], span=[-1;2.5], names=[x;"y;z"]}'
    )
    assert Pipeline.parse(text).passes == (
        Everything(3, 1e-3, True, "slow-but-sure", Color.DARK_BLUE, "a, {b}", 7, (1, 3), (-1.0, 2.5), ("x", "y;z")),
    )


def test_only_what_differs_from_the_default_is_printed() -> None:
    assert str(Pipeline((Fuse(), Everything(1, names=("a",))))) == "fuse,everything{count=1,names=[a]}"


@given(
    st.builds(
        Everything,
        st.integers(),
        ratio=st.floats(allow_nan=False),
        enabled=st.booleans(),
        mode=st.sampled_from(["fast", "slow-but-sure"]),
        color=st.sampled_from(Color),
        label=st.text(),
        limit=st.none() | st.integers(),
        kernel_sizes=st.lists(st.integers()).map(tuple),
        span=st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False)),
        names=st.lists(st.text()).map(tuple),
    )
)
def test_what_prints_parses_back(made: Everything) -> None:
    pipeline = Pipeline((made, Fuse(), made))
    assert Pipeline.parse(str(pipeline)) == pipeline


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("fuse,fsue", ["no pass is named 'fsue'", "character 6", "fuse"]),
        ("everything{cuont=1}", ["has no option 'cuont'", "did you mean count?", "character 12", "count: int"]),
        ("everything{ratio=1.0}", ["needs count"]),
        ("everything{count=1,ratio=big}", ["option ratio", "'big' is not of type float", "character 26"]),
        ("everything{count=1,enabled=yes}", ["'yes' is not of type bool"]),
        ("everything{count=1,mode=slow}", ["mode: fast|slow-but-sure = fast"]),
        ("everything{count=1,kernel-sizes=3}", ["'3' is not of type [int;...]"]),
        ("everything{count", ["a { without its }"]),
        ("everything{count}", ["count has no value"]),
        ("fuse,,fuse", ["a pass has no name"]),
        ("fuse{speed=1}", ["has no option 'speed'"]),
        ("observe{method=percentil}", ["did you mean percentile?"]),
        ("observe{method=percentile:200}", ["at most 100"]),
        ("observe{method=mse|minimax}", ["did you mean minmax?"]),
        ("prepar", ["did you mean prepare?"]),
    ],
)
def test_errors_say_what_where_and_what_instead(text: str, parts: list[str]) -> None:
    with pytest.raises(OctavoError) as error:
        Pipeline.parse(text)
    for part in parts:
        assert part in str(error.value)


def test_an_empty_text_is_no_pass() -> None:
    assert Pipeline.parse(" ").passes == ()


@pytest.mark.parametrize("name", sorted(NAMED))
def test_named_pipelines_are_made_of_passes_and_print_as_such(name: str) -> None:
    pipeline = Pipeline.parse(f"{name}")
    assert pipeline.passes
    assert Pipeline.parse(str(pipeline)) == pipeline
    assert not any(p.name in NAMED for p in pipeline.passes)


def test_a_pipeline_runs_its_passes_and_says_whether_anything_changed() -> None:
    lines: list[str] = []
    assert not Pipeline((Everything(1), Everything(2))).run(Graph(), PassContext(report=lines.append))
    assert lines == ["count 1", "count 2"]


# The registry --------------------------------------------------------------------------------------------------------


def test_every_pass_says_what_it_does_and_how_exactly() -> None:
    for cls in all_passes():
        assert cls.summary().endswith("."), cls
        assert isinstance(cls.exactness, Exactness)
        assert find_pass(cls.name) is cls


def test_every_pass_without_required_options_has_a_text_form() -> None:
    for cls in all_passes():
        if not any(option.required for option in options_of(cls).values()):
            assert Pipeline.parse(cls.name).passes == (cls(),)
            assert format_pass(cls()) == cls.name


def test_a_name_is_taken_once() -> None:
    @dataclass(frozen=True)
    class Impostor(Everything):
        """Another one."""

    with pytest.raises(UsageError, match="exists already"):
        register_pass(Impostor)


def test_helper_modules_are_no_passes() -> None:
    with pytest.raises(UsageError, match="no pass is named 'analysis'"):
        find_pass("analysis")


@dataclass(frozen=True)
class _Distribution:
    name: str = "broken-plugin"


@dataclass(frozen=True)
class _EntryPoint:
    name: str
    value: str
    loaded: object
    dist: _Distribution = _Distribution()

    def load(self) -> object:
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded


def _offer(monkeypatch: pytest.MonkeyPatch, loaded: object) -> None:
    entries = [_EntryPoint("offered", "plugin:Offered", loaded)]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries if group == "octavo.passes" else [])


def test_a_pass_of_another_package_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Offered(Everything):
        """Offered by a package."""

        name: ClassVar[str] = "offered"

    _offer(monkeypatch, Offered)
    assert Pipeline.parse("offered{count=1}").passes == (Offered(1),)
    del registry._REGISTRY["offered"]


@pytest.mark.parametrize("loaded", [ImportError("no module named gone"), Everything, 3])
def test_a_broken_package_is_named(monkeypatch: pytest.MonkeyPatch, loaded: object) -> None:
    _offer(monkeypatch, loaded)
    with pytest.raises(UsageError, match="broken-plugin") as error:
        find_pass("offered")
    assert "plugin:Offered" in str(error.value)


def test_an_unknown_pass_lists_what_packages_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    _offer(monkeypatch, ImportError("never imported for a list"))
    with pytest.raises(UsageError) as error:
        find_pass("ofered")
    assert "did you mean offered" in str(error.value)


def test_a_text_error_is_a_parse_error() -> None:
    with pytest.raises(ParseError):
        Pipeline.parse("fuse{")
