"""The documents of this repository: their code blocks, tables and links."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

from octavo.cli.main import run

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))


def blocks(document: str, language: str) -> list[str]:
    """The code blocks of a document in one language. ``python`` and ``sh`` are whole and run; ``py`` shows a part."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(document: str) -> list[str]:
    """The lines of all ``sh`` blocks; a line that ends with a backslash goes on in the next."""
    joined = (re.sub(r"\\\n\s*", "", block) for block in blocks(document, "sh"))
    return [line for block in joined for line in block.splitlines() if line.strip()]


def run_command(line: str) -> int:
    """Run one line in the working directory, octavo in this process and all else in a shell; returns the exit code."""
    if line.startswith("octavo "):
        return run(shlex.split(line)[1:])
    return subprocess.run(["bash", "-euc", line], check=False, timeout=120).returncode


def links(path: Path) -> list[str]:
    """The targets of all links of a document but those to other sites."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]


def anchors(path: Path) -> set[str]:
    """The names that links to the headings of a document use."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
