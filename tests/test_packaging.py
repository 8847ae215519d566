"""The repository root is the package ``octavo``: these tests hold the rules that make this work."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("ir", "passes", "backends", "cli")
HEAVY = ("torch", "onnx", "onnx_graphsurgeon", "tvm", "tvm_ffi", "typer", "PIL", "rich")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def sources() -> Iterator[Path]:
    """All Python files of the package."""
    yield from ROOT.glob("*.py")
    for room in ROOMS:
        yield from (ROOT / room).rglob("*.py")


def package_folders() -> set[str]:
    inits = [path for path in sources() if path.name == "__init__.py"]
    return {".".join(("octavo", *path.parent.relative_to(ROOT).parts)) for path in inits}


def run_python(code: str, *, path: Path | None = None) -> str:
    """Run ``code`` in a fresh interpreter, ``path`` first on its module path, and return what it prints."""
    env = dict(os.environ) | ({"PYTHONPATH": str(path)} if path else {})
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=env,
        cwd="/",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_packages_list_equals_the_folders_with_an_init_file() -> None:
    listed: list[str] = project()["tool"]["setuptools"]["packages"]
    assert listed == sorted(package_folders()), "keep [tool.setuptools] packages in pyproject.toml complete and sorted"


def test_every_source_folder_is_a_package() -> None:
    without = {path.parent for path in sources() if not (path.parent / "__init__.py").is_file()}
    assert not without, "without __init__.py a folder is left out of the wheel"


def test_the_root_holds_no_other_python_file() -> None:
    assert [path.name for path in ROOT.glob("*.py")] == ["__init__.py"]


def test_the_folder_for_type_checkers_points_at_every_room() -> None:
    links = {path.name: path.readlink().as_posix() for path in (ROOT / ".types" / "octavo").iterdir()}
    assert links == {name: f"../../{name}" for name in (*ROOMS, "__init__.py", "py.typed")}


def test_rooms_are_imported_by_one_name_only() -> None:
    """``import passes`` finds a second copy of every class when the root happens to be on the path."""
    stray: list[str] = []
    for path in [*sources(), *(ROOT / "tests").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            stray += [f"{path}:{name}" for name in names if name.split(".")[0] in ROOMS]
            if path.is_relative_to(ROOT / "tests"):
                continue
            stray += [f"{path}:{name} (not relative)" for name in names if name.split(".")[0] == "octavo"]
    assert not stray


def test_importing_octavo_imports_nothing_heavy() -> None:
    code = f"import sys, octavo; octavo.__version__; print(sorted(set({HEAVY}) & set(sys.modules)))"
    assert run_python(code) == "[]"


def test_the_loader_imports_only_numpy_and_the_standard_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import octavo; octavo.load\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(n for n in new - sys.stdlib_module_names if not n.startswith('_')))"
    )
    assert run_python(code) in ("['numpy', 'octavo']", "['octavo']")


def test_an_unknown_name_lists_the_known_ones() -> None:
    import octavo

    with pytest.raises(AttributeError, match=r"no attribute 'lode'; it has .*compile, .*load, optimize, .*trace"):
        octavo.__getattr__("lode")
    assert {"compile", "load", "optimize", "trace"} <= set(dir(octavo))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy without ignored files, so that it holds nothing left over in the tree."""
    copy = tmp_path_factory.mktemp("source")
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_symlink() or not (ROOT / name).is_file():
            continue
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    out = tmp_path_factory.mktemp("dist")
    pip = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--wheel-dir", str(out), str(copy)]
    subprocess.run(pip, check=True, timeout=300)
    return next(out.glob("octavo-*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert not [name for name in names if not name.startswith("octavo/")]
    assert not [name for name in names if name.split("/")[1] in ("tests", "docs", "build")]
    assert {"octavo/__init__.py", "octavo/py.typed"} <= set(names)
    data = [path for room in ROOMS for suffix in ("*.c", "*.h", "*.S") for path in (ROOT / room).rglob(suffix)]
    missing = {f"octavo/{path.relative_to(ROOT).as_posix()}" for path in data} - set(names)
    assert not missing, "C sources are package data: see [tool.setuptools.package-data]"


@pytest.mark.slow
def test_the_installed_wheel_imports_without_the_repository(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    where = run_python("import octavo; print(octavo.__file__); octavo.load", path=tmp_path)
    assert Path(where).is_relative_to(tmp_path)
