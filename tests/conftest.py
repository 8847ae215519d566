"""What every test shares: what a marker asks of the machine, and files that record an expected text."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support.missing import MissingError

# Two test processes share two cores; torch and OpenMP read this when they are first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile(
    "octavo", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("octavo")

ARM_TOOLS = ("qemu-aarch64", "aarch64-linux-gnu-gcc")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", action="store_true", help="also run the tests marked nightly")
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden from what the code prints")


def pytest_configure() -> None:
    # A runner in the background ignores SIGINT, and processes inherit that: those a test interrupts would go on.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    if item.get_closest_marker("nightly") and not item.config.getoption("--nightly"):
        pytest.skip("runs with --nightly")
    if item.get_closest_marker("eval") and "OCTAVO_EVAL_DATA" not in os.environ:
        pytest.skip("OCTAVO_EVAL_DATA does not name a folder with imagenet-sample-500")
    with _skipping():
        tools = [tool for tool in ARM_TOOLS if shutil.which(tool) is None]
        if item.get_closest_marker("arm") and tools:
            raise MissingError(f"not found: {', '.join(tools)}", "OCTAVO_REQUIRE_ARM")
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    with _skipping():
        return (yield)


@contextlib.contextmanager
def _skipping() -> Generator[None]:
    """Skip a test for what this machine lacks, or fail it where a variable says that nothing may be missing."""
    try:
        yield
    except MissingError as missing:
        if os.environ.get(missing.required) == "1":
            pytest.fail(f"{missing.required}=1, but {missing}", pytrace=False)
        pytest.skip(str(missing))


@dataclass(frozen=True)
class Golden:
    """Texts under ``tests/golden`` that a test compares with what the code prints today."""

    folder: Path
    update: bool

    def check(self, name: str, text: str) -> None:
        """Assert that ``text`` equals the file ``name``; with ``--update-golden`` write the file instead."""
        path = self.folder / name
        if self.update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"{path} does not exist; run pytest with --update-golden to write it"
        assert text == path.read_text(encoding="utf-8"), f"{path.name} differs; --update-golden accepts the change"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(Path(__file__).parent / "golden", bool(request.config.getoption("--update-golden")))
