"""The pass that docs/writing-a-pass.md teaches, used in every way the page shows."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from octavo.backends.job import _only_builtin
from octavo.ir import parse_graph, print_graph, run_graph
from octavo.ir.errors import PassError, UsageError
from octavo.passes import PassContext, Pipeline, registry
from octavo.passes.base import Remark
from octavo.passes.observers import NumericsCheck
from octavo.passes.registry import all_passes, find_pass, load_passes
from support.documents import ROOT, blocks, run_command

PAGE = "docs/writing-a-pass.md"


@pytest.fixture(autouse=True)
def only_this_test_knows_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Built-in passes come first: one imported meanwhile would be known to the copy alone, and never again."""
    assert list(all_passes())
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))


@pytest.fixture
def case() -> tuple[str, str, str]:
    """The golden case of the page: pipeline, before, and after with its remarks."""
    (text,) = (block for block in blocks(PAGE, "") if "// becomes" in block)
    match = re.fullmatch(r"// .*?\n// run: (.*?)\n(.*?)// becomes\n(.*)", text, re.DOTALL)
    assert match
    pipeline, before, after = match.groups()
    return pipeline, before, after


def test_the_pass_is_short() -> None:
    assert len(blocks(PAGE, "python")[0].splitlines()) < 40


def test_every_command_and_program_of_the_page_runs(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, *programs = blocks(PAGE, "python")
    for program in programs:
        exec(compile(program, PAGE, "exec"), {"__name__": "example"})
    assert "clamp=(0.0, 4.0)" in capsys.readouterr().out
    # The page shows commands for a shell, where no import registered the pass before.
    registry._REGISTRY.pop("cap-relu")
    for line in (line for block in blocks(PAGE, "sh") for line in block.splitlines()):
        assert run_command(line) == 0, line
    assert "limit   float  6.0" in capsys.readouterr().out
    assert (desk / "model.bundle").is_dir()


def test_the_golden_case_of_the_page(desk: Path, case: tuple[str, str, str]) -> None:
    pipeline, before, after = case
    load_passes(desk / "cap_relu.py")
    graph = parse_graph("octavo.graph 1\n" + before)
    remarks: list[Remark] = []
    Pipeline.parse(pipeline).run(graph, PassContext(explain=remarks.append))
    printed = print_graph(graph).removeprefix("octavo.graph 1\n")
    assert printed.rstrip() + "\n" + "".join(f"// {remark}\n" for remark in remarks) == after
    (capped,) = run_graph(graph, {"x": np.array([[-1.0, 9.0]], np.float32)}).values()
    assert capped.tolist() == [[4.0, 4.0]]


def test_a_false_promise_is_found_out(desk: Path, case: tuple[str, str, str]) -> None:
    liar = (desk / "cap_relu.py").read_text(encoding="utf-8").replace("LOSSY", "EXACT")
    (desk / "liar.py").write_text(liar, encoding="utf-8")
    load_passes(desk / "liar.py")
    pipeline, before, _ = case
    check = NumericsCheck([{"x": np.array([[9.0, 9.0]], np.float32)}])
    with pytest.raises(PassError, match="cap-relu claims to be exact but changed output y"):
        Pipeline.parse(pipeline).run(parse_graph("octavo.graph 1\n" + before), PassContext(), [check])


def test_an_entry_point_is_found_by_name(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = re.search(r'cap-relu = "my_package\.cap_relu:CapRelu"', "".join(blocks(PAGE, "toml")))
    assert declared
    entry = EntryPoint("cap-relu", "cap_relu:CapRelu", registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "_offered", lambda: {"cap-relu": entry})
    assert find_pass("cap-relu").__name__ == "CapRelu"
    assert (desk / "cap_relu.py").exists()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1 / 0", "the file fails: ZeroDivisionError"),
        ("def no(:", "the file fails: SyntaxError"),
        ("import nothing_of_the_kind", "the file fails: ModuleNotFoundError"),
        ("x = 1", "the file registers no pass"),
        (None, "passes cannot be loaded from it"),
    ],
)
def test_a_file_without_a_pass_is_an_error_that_names_it(tmp_path: Path, text: str | None, complaint: str) -> None:
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=complaint) as caught:
        load_passes(path)
    assert str(path) in str(caught.value)


def test_a_bundle_made_with_a_pass_of_ones_own_is_not_kept_in_the_cache() -> None:
    assert _only_builtin("fold-qdq, int8,observe{keep-float=[a,b]}")
    assert not _only_builtin("cap-relu{limit=4},int8")
    assert not _only_builtin("lower_integer")


def test_the_page_links_what_it_speaks_of() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    for path in (
        "passes/base.py",
        "passes/analysis.py",
        "passes/fuse.py",
        "ir/graph.py",
        "tests/passes/test_golden.py",
    ):
        assert f"(../{path})" in text
