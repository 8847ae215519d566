"""Weight sharing: each layer's weights become indices into a small codebook, whose entries train on."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..ir.constants import Tensor
from ..ir.errors import PassError, UsageError
from ..ir.graph import Graph, Node, Value
from ..ir.op import Quantization, Stage
from ..ir.ops.constant import Constant
from ..ir.ops.conv import ConvTranspose
from ..ir.ops.quantize import FakeQuantize
from ..ir.ops.shape import Concat, Gather
from ..ir.types import DType
from .analysis import array_of
from .base import Exactness, Pass, PassContext
from .kmeans import Initialization, cluster
from .registry import register_pass


@dataclass(frozen=True)
class Codebook:
    """The values that a weight may take, and which each element takes.

    ``centroids`` (f32 [k]) are what training changes. ``indices`` (integers of the weight's shape) count through the
    entries: the centroids, behind an entry of exact zero when ``has_zero``.
    """

    centroids: np.ndarray
    indices: np.ndarray
    has_zero: bool

    @property
    def entries(self) -> np.ndarray:
        """All values (f32)."""
        return np.concatenate([np.zeros(int(self.has_zero), np.float32), self.centroids])


@register_pass
@dataclass(frozen=True)
class ShareWeights(Pass):
    """Let the weights of each layer take few values: a codebook found by k-means, and an index per weight.

    A weight becomes a ``gather`` from its codebook. Training then moves the entries, each by the summed gradient of its
    weights; constant folding, the first thing ``prepare`` does, makes a dense weight of it again. Exact zeros, of a
    sparse layer for example, take an entry that stays zero (Han, Mao, Dally, "Deep Compression", ICLR 2016, section 3).

    A codebook has ``2**bits`` entries, or ``clusters``, ``per`` tensor or output channel. ``initialization`` spaces the
    first centroids evenly over the range (``linear``), over the sorted weights (``density``), or draws weights
    (``random``, with ``seed``); k-means then takes at most ``iterations`` steps. ``keep`` lists shell patterns over
    names of layers that are left alone.
    """

    bits: int = 4
    clusters: int | None = None
    per: Literal["tensor", "channel"] = "tensor"
    initialization: Initialization = "linear"
    iterations: int = 300
    keep: tuple[str, ...] = ()
    seed: int = 0

    name: ClassVar[str] = "share-weights"
    exactness: ClassVar[Exactness] = Exactness.LOSSY

    def __post_init__(self) -> None:
        ranges = {"bits": (1, 8), "clusters": (2, 256), "iterations": (1, 1_000_000), "seed": (0, 2**63)}
        for option, (low, high) in ranges.items():
            given = getattr(self, option)
            if given is not None and not low <= given <= high:
                raise UsageError(f"share-weights: {option}={given}", expected=f"{low} to {high}")

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Layers that are left alone are reported with the reason.

        Raises:
            PassError: the graph is frozen.
        """
        frozen = next((node for node in graph.nodes if node.op.stage is Stage.INTEGER), None)
        if frozen is not None:
            hint = "put share-weights before int8"
            raise PassError("weights are shared before the freeze", where=frozen.where, hint=hint)
        random = np.random.default_rng(self.seed)
        done: dict[Value, float] = {}
        sizes = np.zeros(2, np.int64)
        for node in list(graph.nodes):
            # A weight of two layers has become a gather when the second comes.
            if node.op.rule is not Quantization.WEIGHTED or node.inputs[1] in done:
                continue
            weight = array_of(node.inputs[1])
            axis = 1 if isinstance(node.op, ConvTranspose) else 0
            reason = self._obstacle(node, weight, axis)
            if weight is None or reason is not None:
                context.report(f"{node.where} keeps its weights: {reason}")
                continue
            codebook = self._codebook(weight, axis, random)
            error = float(np.square(codebook.entries[codebook.indices].astype(np.float64) - weight).sum())
            context.report(f"{node.where}: {_describe(weight.size, codebook, error)}")
            done[_share(graph, node.inputs[1], codebook)] = error
            sizes += weight.size, self._stored_bits(codebook)
        if done:
            error = sum(done.values()) / sizes[0]
            stored = f"{4 * sizes[0]:,} bytes -> {-(-sizes[1] // 8):,} as indices and codebooks"
            context.report(f"{len(done)} weights shared: mean squared error {error:.3g}; {stored}")
        return bool(done)

    @property
    def _count(self) -> int:
        return 2**self.bits if self.clusters is None else self.clusters

    def _obstacle(self, node: Node, weight: np.ndarray | None, axis: int) -> str | None:
        """Why a layer is left alone, or None."""
        if any(fnmatch.fnmatchcase(node.origin, pattern) for pattern in self.keep):
            return "by request"
        if weight is None:
            return _why_not_constant(node.inputs[1])
        if node.inputs[1].type.dtype is not DType.F32:
            return "they are not float32"
        if not np.isfinite(weight).all():
            return "they are not finite"
        size = weight.size if self.per == "tensor" else weight.size // weight.shape[axis]
        if size <= self._count:
            return f"{size} are no more than a codebook has entries"
        return None if weight.any() else "they are all zero"

    def _codebook(self, weight: np.ndarray, axis: int, random: np.random.Generator) -> Codebook:
        """Codebooks of several channels stand one after another, behind one zero."""
        parts = np.moveaxis(weight, axis, 0) if self.per == "channel" else weight[np.newaxis]
        has_zero = bool((weight == 0).any())
        indices = np.zeros(parts.shape, np.int64)
        centroids: list[np.ndarray] = []
        start = int(has_zero)
        for part, index in zip(parts, indices, strict=True):
            places = part != 0
            if not places.any():
                continue
            count = self._count - (not places.all())
            found = cluster(part[places], count, self.initialization, self.iterations, random)
            index[places] = found.labels + start
            start += len(found.centroids)
            centroids.append(found.centroids)
        indices = np.moveaxis(indices, 0, axis) if self.per == "channel" else indices[0]
        return Codebook(np.concatenate(centroids).astype(np.float32), _narrow(indices), has_zero)

    def _stored_bits(self, codebook: Codebook) -> int:
        """Bits of the entries (float32), and of indices as long as they must be."""
        length = int(min(self._count, codebook.entries.size) - 1).bit_length()
        return 32 * codebook.entries.size + codebook.indices.size * length


def _share(graph: Graph, weight: Value, codebook: Codebook) -> Value:
    """Put a gather in the place of a constant, under its name."""
    constant = weight.producer
    assert constant is not None

    def insert(array: np.ndarray, name: str) -> Value:
        return graph.constant(Tensor.of(array), before=constant, origin=constant.origin, name=f"{weight.name}.{name}")

    entries = insert(codebook.centroids, "codebook")
    if codebook.has_zero:
        # A constant of one element is a fixed number to training: what is zero stays so.
        parts = [insert(np.zeros(1, np.float32), "zero"), entries]
        entries = graph.insert(Concat(0), parts, before=constant, origin=constant.origin).output
    operands = [entries, insert(codebook.indices, "indices")]
    shared = graph.insert(Gather(), operands, before=constant, origin=constant.origin).output
    shared.name, weight.name = weight.name, shared.name
    graph.replace(weight, shared)
    graph.erase(constant)
    return shared


def _why_not_constant(weight: Value) -> str:
    match weight.op:
        case Gather() if weight.producer is not None and isinstance(weight.producer.inputs[1].op, Constant):
            return "they are shared already"
        case FakeQuantize():
            return "they are quantized already"
        case _:
            return "they are computed at run time"


def _narrow(indices: np.ndarray) -> np.ndarray:
    """The indices in the smallest integer type that torch computes with."""
    largest = int(indices.max())
    fitting = next(dtype for dtype in (np.uint8, np.int16, np.int32) if largest <= np.iinfo(dtype).max)
    return indices.astype(fitting)


def _describe(count: int, codebook: Codebook, error: float) -> str:
    zero = ", one of them zero" if codebook.has_zero else ""
    return f"{count:,} weights take {codebook.entries.size} values{zero}; mean squared error {error / count:.3g}"
