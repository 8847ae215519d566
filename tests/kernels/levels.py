"""The ISA levels as test parameters; ARM levels carry the marker that asks for QEMU."""

from __future__ import annotations

from typing import Any

import pytest
from kernels.harness import QEMU_CPUS, native_levels


def every_level() -> list[Any]:
    """All x86 levels of this machine and all ARM levels."""
    return [*native_levels(), *(pytest.param(name, marks=pytest.mark.arm) for name in QEMU_CPUS)]
