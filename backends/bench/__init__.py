"""How fast a bundle runs: alone, in turn with other runtimes, and kernel by kernel."""

from __future__ import annotations

from .session import BenchResult, PeerResult, bench, peer_inputs, random_inputs
from .timing import Ratio, Timing, interleave, pair_ratio, raised_priority

__all__ = [
    "BenchResult",
    "PeerResult",
    "Ratio",
    "Timing",
    "bench",
    "interleave",
    "pair_ratio",
    "peer_inputs",
    "raised_priority",
    "random_inputs",
]
