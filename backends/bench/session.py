"""A bundle's latency, alone or in turn with other runtimes so that all meet the same state of the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ...ir.errors import ModelError
from ..bundle.loader import load
from ..bundle.manifest import Manifest
from ..bundle.program import Signature
from .child import Runner
from .peers import Arrays, Peer, PeerFiles
from .timing import (
    Ratio,
    Timing,
    Turn,
    clock_for,
    pair_ratio,
    raised_priority,
    settling_for,
    take_turns,
    timed,
    warm_up,
)


@dataclass(frozen=True)
class PeerResult:
    """A peer's latencies, and how many times faster octavo is.

    ``isa`` is what the peer was held to, None without limit; ``kernels`` counts what multiplies, as far as known.
    """

    peer: Peer
    version: str
    timing: Timing
    ratio: Ratio
    isa: str | None
    kernels: Mapping[str, int]


@dataclass(frozen=True)
class BenchResult:
    """Timings at one number of threads; ``failures`` says of peers that did not take part why."""

    threads: int
    level: str
    octavo: Timing
    peers: tuple[PeerResult, ...] = ()
    failures: Mapping[str, str] | None = None

    @property
    def fastest(self) -> PeerResult | None:
        """The peer that octavo is the fewest times faster than."""
        return min(self.peers, key=lambda result: result.ratio.median, default=None)


def random_inputs(signature: Signature, seed: int = 0) -> dict[str, np.ndarray]:
    """Normal floats, and small non-negative integers: token ids and masks stay in range."""
    random = np.random.default_rng(seed)
    feeds: dict[str, np.ndarray] = {}
    for spec in signature.inputs:
        dtype = np.dtype(spec.dtype)
        drawn = random.normal(size=spec.shape) if dtype.kind == "f" else random.integers(0, 2, spec.shape)
        feeds[spec.name] = np.asarray(drawn).astype(dtype)
    return feeds


def bench(
    path: Path,
    *,
    threads: int = 1,
    runs: int = 50,
    warmup: float = 0.5,
    peers: Sequence[Peer] = (),
    files: PeerFiles | None = None,
    level: str | None = None,
    plan: int = 0,
    progress: Callable[[str, int, int | None], None] = lambda label, done, total: None,
) -> BenchResult:
    """Time a bundle on random inputs, in turn with peers.

    One thread is timed by the processor time of its process, several by the clock.

    Args:
        runs: measured runs of each.
        warmup: seconds of unmeasured runs of each before.
        peers: who takes part, with forms of ``files``.
        level: one of the bundle's levels, which holds OpenVINO to the same instructions.
        plan: which of the bundle's input shapes to use.

    Raises:
        ModelError: peers were asked for, and none can load or run the model.
    """
    label = f"{threads} thread(s)"
    with ExitStack() as stack:
        # Before anything starts threads or processes: they inherit it.
        stack.enter_context(raised_priority())
        bundle = stack.enter_context(load(path, threads=threads, level=level))
        feeds = random_inputs(bundle.manifest.signatures[plan])
        progress(f"{label}: loading", 0, None)
        inputs = peer_inputs(bundle.manifest, feeds) if peers else ()
        runners, failures = start_runners(stack, peers, files, inputs, threads, level)
        own = partial(timed, bundle.bind(feeds).run, clock_for(threads), settling_for(threads))
        turns: dict[str, Turn] = {"octavo": own, **{peer.name: runner.turn for peer, runner in runners.items()}}
        warm_up(turns, warmup)
        columns = take_turns(turns, runs, lambda done: progress(label, done, runs))
        return BenchResult(
            threads,
            bundle.level,
            Timing("octavo", tuple(columns["octavo"])),
            tuple(_result(peer, runner, columns) for peer, runner in runners.items()),
            failures,
        )


def peer_inputs(manifest: Manifest, feeds: dict[str, np.ndarray]) -> Arrays:
    """What a bundle's model takes, in the order of its inputs: numbers, where the bundle takes images."""
    from ..entrance import entrance_of, model_feeds

    return tuple(model_feeds(entrance_of(str(manifest.made.get("pipeline"))), feeds).values())


def start_runners(
    stack: ExitStack, peers: Sequence[Peer], files: PeerFiles | None, inputs: Arrays, threads: int, level: str | None
) -> tuple[dict[Peer, Runner], dict[str, str]]:
    """The peers that can run the network, until the stack closes, and by name why others cannot.

    Raises:
        ModelError: there are peers, and none can.
    """
    runners: dict[Peer, Runner] = {}
    failures: dict[str, str] = {}
    first: ModelError | None = None
    for peer in peers:
        assert files is not None, "peers need files"
        try:
            runners[peer] = stack.enter_context(Runner(peer, files.path(peer.form), inputs, threads, level))
        except ModelError as error:
            first = first or error
            failures[peer.name] = error.what
    if first and not runners:
        raise first
    return runners, failures


def _result(peer: Peer, runner: Runner, columns: Mapping[str, Sequence[float]]) -> PeerResult:
    timing = Timing(peer.name, tuple(columns[peer.name]))
    ratio = pair_ratio(columns[peer.name], columns["octavo"])
    return PeerResult(peer, runner.described.version, timing, ratio, runner.isa, runner.described.kernels)
