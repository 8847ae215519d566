"""The runtime's threads help each other."""

from __future__ import annotations

import subprocess
from pathlib import Path

from octavo.backends import runtime
from octavo.backends.bundle.link import find_toolchain, host_architecture

HEADERS = ("stddef", "stdint", "stdio", "string")
PARTS = ("internal.h", "rounding.c", "pool.c")


def test_a_thread_that_is_stopped_delays_a_step_by_one_slice(tmp_path: Path) -> None:
    folder = Path(runtime.__file__).parent
    sources = [*(folder / part for part in PARTS), Path(__file__).parent / "pool.c"]
    headers = "".join(f"#include <{name}.h>\n" for name in HEADERS)
    (tmp_path / "unit.c").write_text("#define _GNU_SOURCE\n" + headers + "".join(map(Path.read_text, sources)))
    toolchain = find_toolchain(host_architecture())
    strict = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function")
    toolchain.run(*strict, tmp_path / "unit.c", "-o", tmp_path / "pool", "-pthread")
    found = subprocess.run([tmp_path / "pool"], capture_output=True, check=True, timeout=60, text=True)
    launcher, worker = map(int, found.stdout.split())
    assert (launcher, worker) == (28, 4), "a quarter of the worker's piece of 16 tasks"
