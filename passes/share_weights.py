"""Weight sharing: each layer's weights become indices into a small codebook, whose entries train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..ir.constants import Tensor
from ..ir.errors import PassError, UsageError
from ..ir.graph import Graph, Node, Value
from ..ir.op import Quantization, Stage
from ..ir.ops.constant import Constant
from ..ir.ops.conv import ConvTranspose
from ..ir.ops.einsum import Einsum
from ..ir.ops.matmul import MatMul
from ..ir.ops.quantize import FakeQuantize
from ..ir.ops.recurrent import Recurrence, Recurrent
from ..ir.ops.shape import Concat, Gather
from ..ir.types import DType
from .analysis import array_of
from .base import Exactness, Pass, PassContext
from .kmeans import Initialization, cluster
from .names import check_patterns, is_named
from .registry import register_pass


@dataclass(frozen=True)
class Codebook:
    """The values that a weight may take, and which each element takes.

    ``centroids`` (f32 [k]) are what training changes. ``indices`` (integers of the weight's shape) count through the
    entries: the centroids, behind an entry of exact zero when ``has_zero``. ``error`` sums squared differences.
    """

    centroids: np.ndarray
    indices: np.ndarray
    has_zero: bool
    error: float

    @property
    def entries(self) -> np.ndarray:
        """All values (f32)."""
        return _with_zero(self.centroids, self.has_zero)


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
    names of layers that are left alone, and with them what has the same weights.

    ``quantize`` keeps equal weights of a channel equal, and zeros zero. With its ``weights=per-tensor`` equal weights
    of a layer stay equal, so it keeps as few values as its codebook, and less is stored. An entry that is the only one
    beside zero does not train: it is a constant of one element.
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
            UsageError: ``keep`` names no layer.
            PassError: the graph is frozen.
        """
        frozen = next((node for node in graph.nodes if node.op.stage is Stage.INTEGER), None)
        if frozen is not None:
            hint = "put share-weights before int8"
            raise PassError("weights are shared before the freeze", where=frozen.where, hint=hint)
        check_patterns(graph, self.keep, "share-weights: keep")
        random = np.random.default_rng(self.seed)
        done: dict[Value, Codebook] = {}
        for node in list(graph.nodes):
            # A weight of two layers has become a gather when the second comes.
            if any(value in done for value in node.inputs[1:2]):
                continue
            reason = self._obstacle(graph, node) if node.op.rule is Quantization.WEIGHTED else _why_no_layer(node)
            if reason is not None:
                context.report(f"{node.where} keeps its weights: {reason}")
            elif node.op.rule is Quantization.WEIGHTED:
                codebook = self._codebook(node, random)
                done[_share(graph, node.inputs[1], codebook)] = codebook
                context.report(f"{node.where}: {_describe(codebook)}")
        if done:
            context.report(self._summary(list(done.values())))
        return bool(done)

    @property
    def _count(self) -> int:
        return 2**self.bits if self.clusters is None else self.clusters

    def _obstacle(self, graph: Graph, node: Node) -> str | None:
        """Why a layer is left alone, or None."""
        if is_named(node, self.keep):
            return "by request"
        weight = array_of(node.inputs[1])
        if weight is None:
            return _why_not_constant(node.inputs[1])
        kept = next((user for user in node.inputs[1].users if is_named(user, self.keep)), None)
        if kept is not None:
            return f"{kept.where} has the same ones, and keeps them by request"
        if graph.is_output(node.inputs[1]):
            return "the network returns them"
        if node.inputs[1].type.dtype is not DType.F32:
            return "they are not float32"
        if not np.isfinite(weight).all():
            return "they are not finite"
        size = weight.size if self.per == "tensor" else weight.size // weight.shape[_output_axis(node)]
        if size <= self._count:
            return f"{size} are no more than a codebook has entries"
        return None if weight.any() else "they are all zero"

    def _codebook(self, node: Node, random: np.random.Generator) -> Codebook:
        """Codebooks of several channels stand one after another, behind one zero."""
        weight, axis = array_of(node.inputs[1]), _output_axis(node)
        assert weight is not None
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
        entries = np.concatenate(centroids).astype(np.float32)
        error = float(np.square(_with_zero(entries, has_zero)[indices].astype(np.float64) - weight).sum())
        return Codebook(entries, _narrow(indices), has_zero, error)

    def _summary(self, codebooks: Sequence[Codebook]) -> str:
        """What all weights cost, in accuracy and in bytes: of indices as long as they must be, and float32 entries."""
        count = sum(codebook.indices.size for codebook in codebooks)
        bits = 0
        for codebook in codebooks:
            length = int(min(self._count, codebook.entries.size) - 1).bit_length()
            bits += 32 * codebook.entries.size + codebook.indices.size * length
        error = sum(codebook.error for codebook in codebooks) / count
        stored = f"{4 * count:,} bytes -> {-(-bits // 8):,} as indices and codebooks"
        return f"{len(codebooks)} weights shared: mean squared error {error:.3g}; {stored}"


def _share(graph: Graph, weight: Value, codebook: Codebook) -> Value:
    """Put a gather in the place of a constant, under its name."""
    constant, op = weight.producer, weight.op
    assert constant is not None
    assert isinstance(op, Constant)

    def insert(array: np.ndarray, name: str) -> Value:
        data, path = Tensor.of(array), f"{weight.name}.{name}"
        return graph.constant(data, before=constant, origin=constant.origin, name=path, trains=op.trains)

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


def _why_no_layer(node: Node) -> str | None:
    """Why an op that multiplies by constants is no layer yet; None for every other op."""
    if not any(isinstance(value.op, Constant) and value.type.rank > 1 for value in node.inputs):
        return None
    match node.op:
        case MatMul() | Einsum():
            return "simplify makes a linear layer of it, run that before"
        case Recurrent():
            return "split-recurrent takes a linear layer out of it, run that before"
        case Recurrence():
            return "a recurrence stays in float"
        case _:
            return None


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


def _describe(codebook: Codebook) -> str:
    zero = ", one of them zero" if codebook.has_zero else ""
    count, error = codebook.indices.size, codebook.error / codebook.indices.size
    return f"{count:,} weights take {codebook.entries.size} values{zero}; mean squared error {error:.3g}"


def _output_axis(node: Node) -> int:
    return 1 if isinstance(node.op, ConvTranspose) else 0


def _with_zero(centroids: np.ndarray, has_zero: bool) -> np.ndarray:
    return np.concatenate([np.zeros(int(has_zero), np.float32), centroids])
