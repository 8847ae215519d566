"""The C runtime that every bundle carries, as source text.

``octavo.backends.bundle.sequencer`` joins these files with the generated tables of one network into a single
translation unit, so that nothing but the public functions is visible outside. See README.md in this folder.
"""

from __future__ import annotations

from pathlib import Path

PUBLIC_HEADER = "octavo_bundle.h"

#: Order matters: each file uses what those before it define. The generated tables stand between the two groups.
BEFORE_TABLES = ("internal.h",)
AFTER_TABLES = ("errors.c", "cpu.c", "rounding.c", "quota.c", "pool.c", "decode.c", "weights.c", "api.c")


def read(name: str) -> str:
    """The text of one runtime file, spelled with the prefix ``octavo_bundle``."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
