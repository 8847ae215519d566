"""The ISA levels as test parameters; ARM levels carry the marker that asks for QEMU."""

from __future__ import annotations

from typing import Any

import pytest
from kernels.harness import QEMU_CPUS, runnable_levels


def every_level(*only: str) -> list[Any]:
    """All x86 levels that run here, natively or imitated, and all ARM levels, or those of them that are named."""
    x86, arm = ([name for name in levels if not only or name in only] for levels in (runnable_levels(), QEMU_CPUS))
    return [*x86, *(pytest.param(name, marks=pytest.mark.arm) for name in arm)]
