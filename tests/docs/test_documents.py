"""What the documents show runs, what they list is complete, and their links lead somewhere."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from octavo.cli.main import COMMANDS, EXIT_DEFECT, EXIT_INTERRUPTED
from octavo.ir import errors
from support.documents import DOCUMENTS, ROOT, anchors, blocks, commands, links, run_command

CLI = "docs/cli.md"


def run_commands(document: str, *, arm: bool) -> None:
    lines = [line for line in commands(document) if ("arm-int8" in line) is arm]
    assert lines
    failed = {line: code for line in lines if (code := run_command(line)) != 0}
    assert not failed


def run_program(code: str, folder: Path) -> None:
    path = folder / "program.py"
    path.write_text(code, encoding="utf-8")
    runpy.run_path(str(path))


def test_the_readme(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The five lines as they stand, then the same on the command line, then the C example."""
    (program,) = blocks("README.md", "python")
    assert len(program.strip().splitlines()) <= 6
    run_program(program, desk)
    assert re.fullmatch(r"\w+ \d\n", capsys.readouterr().out)
    run_commands("README.md", arm=False)


def test_the_command_line(desk: Path) -> None:
    run_commands(CLI, arm=False)
    first, second = (desk / name / "manifest.json" for name in ("first.bundle", "second.bundle"))
    assert first.read_bytes() == second.read_bytes(), "the same ranges make the same bytes"


@pytest.mark.arm
@pytest.mark.usefixtures("desk")
def test_the_command_line_for_arm() -> None:
    run_commands(CLI, arm=True)


def test_bundles(desk: Path) -> None:
    assert run_command("octavo compile model.onnx --mcpu native --calib calib.npz -o model.bundle") == 0
    (program,) = blocks("docs/bundle.md", "python")
    run_program(program, desk)
    run_commands("docs/bundle.md", arm=False)


def test_training(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = blocks("docs/training.md", "python")
    run_program(program, desk)
    assert capsys.readouterr().out == "(1, 4)\n"
    run_commands("docs/training.md", arm=False)
    assert (desk / "curve.svg").exists()


def test_the_tables_of_commands_and_exit_codes_are_complete() -> None:
    text = (ROOT / CLI).read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `octavo (\w+)", text, re.MULTILINE)) == set(COMMANDS)
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.OctavoError)]
    codes = {0, 10, EXIT_DEFECT, EXIT_INTERRUPTED, *(kind.exit_code for kind in kinds)}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)} == codes


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in links(document):
        name, _, anchor = link.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


def test_the_readme_leads_to_every_document() -> None:
    linked = {(ROOT / link).resolve() for link in links(ROOT / "README.md")}
    assert set(DOCUMENTS) - linked == {ROOT / "README.md"}
