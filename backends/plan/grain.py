"""How many tasks are worth a thread: one that gets too few makes a step slower than it is without."""

from __future__ import annotations

from collections.abc import Mapping

from ..bundle.program import Work

#: Cycles of work for which a thread pays: cores wait that long for each other, and for lines that the other one wrote.
THREAD_CYCLES = 5_000
#: Multiply-accumulates in a cycle, for each 32-bit lane of a vector: three quarters of what the instructions reach.
MACS: Mapping[str, float] = {
    "amx": 48,
    "smmla": 12,
    "vnni": 6,
    "sdot": 6,
    "pmaddubsw": 4,
    "pmaddwd": 3,
    "chains": 3,
    "smlal": 2,
    "smull": 2,
    "fma": 1.5,
}
#: In a cycle, for each lane: results made bytes, bytes of weights, and what kernels without products read and write.
RESCALED, CONSTANTS, READ, WRITTEN = 0.3, 1, 0.5, 2
#: Kernels without products, and about how many times as long as to read and write they take, by measurement on three
#: x86 levels; a copy is taken to be like a conversion. Of others the bytes do not tell how long they take.
MOVING: Mapping[str, float] = {
    "copy": 1,
    "unary": 1,
    "binary": 1.4,
    "table": 3,
    "chain": 2,
    "maxpool": 0.3,
    "avgpool": 1,
    "reducemean": 0.4,
    "softmax": 8,
    "floatlayernorm": 2,
}


def grain(work: Work, tasks: int, lanes: int) -> int:
    """The fewest of a step's tasks that are worth a thread, on vectors of `lanes` 32-bit lanes.

    The estimate need not be better than a factor of two: steps near the limit gain and lose little.
    """
    if not work.macs and work.kernel not in MOVING:
        return 1
    return max(1, -(-THREAD_CYCLES * tasks // max(1, round(_cycles(work, lanes)))))


def _cycles(work: Work, lanes: int) -> float:
    """What a step takes one thread, its parts one after the other. Products hide what is read and written meanwhile."""
    if work.macs:
        found = work.macs / MACS[work.instruction]
    else:
        found = MOVING[work.kernel] * (work.read / READ + work.written / WRITTEN)
    return (found + work.rescaled / RESCALED + work.constants / CONSTANTS) / lanes
