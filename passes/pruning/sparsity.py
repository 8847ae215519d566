"""Which weights become zero: the patterns they are chosen in, and the layers that can be treated."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from ...ir.errors import UsageError
from ...ir.graph import Graph, Node, Value
from ...ir.op import Op, Quantization
from ...ir.ops.constant import Constant
from ...ir.ops.conv import Conv, ConvTranspose
from ...ir.ops.quantize import FakeQuantize
from ...ir.ops.recurrent import Recurrence, Recurrent
from ..names import check_patterns, is_named

Scope: TypeAlias = Literal["local", "global"]

PATTERNS = "single, N:M such as 2:4, or block:RxC such as block:4x1"

# Patterns ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Units:
    """The weights of a layer that become zero together.

    ``of`` is the number of each weight's unit (int64, any shape), -1 for a weight that stays; ``scores`` (float64, one
    for each unit) how important they are, infinite for a unit that stays.
    """

    of: np.ndarray
    scores: np.ndarray


class Pattern(ABC):
    """How the zeros of a layer lie."""

    @property
    def most(self) -> float:
        """The largest share of weights that it can make zero; below 1 that is the share it stands for."""
        return 1.0

    @abstractmethod
    def units(self, importance: np.ndarray) -> Units:
        """Units for the importance (float64, at least 0) of weights (outputs, taps, input channels).

        A layer never loses everything: its most important unit stays.
        """

    def why_not(self, layer: Layer) -> str | None:
        """Why a layer has no room for the pattern."""
        return None

    def remark(self, layer: Layer) -> str | None:
        """How the pattern fits a layer whose sizes it does not divide."""
        return None


@dataclass(frozen=True)
class Single(Pattern):
    """Weights anywhere (Han et al., "Learning both Weights and Connections for Efficient Neural Networks", 2015)."""

    def units(self, importance: np.ndarray) -> Units:
        return Units(np.arange(importance.size).reshape(importance.shape), _with_best_kept(importance.reshape(-1)))


@dataclass(frozen=True)
class OfGroup(Pattern):
    """At most ``kept`` of each ``group`` input channels in a row, for each output and each place of a kernel.

    Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021. Channels that fill no group are a shorter one, so a
    group longer than all of them is all of them.
    """

    kept: int
    group: int

    @property
    def most(self) -> float:
        return 1 - self.kept / self.group

    def units(self, importance: np.ndarray) -> Units:
        outputs, taps, channels = importance.shape
        group = min(self.group, channels)
        # What fills the last group up is less important than anything.
        filling = ((0, 0), (0, 0), (0, -channels % group))
        groups = np.pad(importance, filling, constant_values=-1.0).reshape(outputs, taps, -1, group)
        order = np.argsort(-groups, axis=-1, kind="stable")
        losers = np.zeros(groups.shape, bool)
        np.put_along_axis(losers, order[..., self.kept :], True, axis=-1)
        chosen = losers.reshape(outputs, taps, -1)[..., :channels]
        of = np.where(chosen, np.cumsum(chosen).reshape(chosen.shape) - 1, -1)
        return Units(of, importance[chosen])

    def why_not(self, layer: Layer) -> str | None:
        channels = layer.layout.channels
        if channels > self.kept:
            return None
        return f"an output sums {channels} input channels, and {self.kept} of {self.group} may stay"

    def remark(self, layer: Layer) -> str | None:
        channels = layer.layout.channels
        if channels % self.group == 0:
            return None
        return f"{channels} input channels do not divide into groups of {self.group}: the last one is shorter"


@dataclass(frozen=True)
class Block(Pattern):
    """Blocks of ``rows`` outputs by ``columns`` weights in the order in which the integer kernels sum them.

    That is place by place of the kernel, row-major, and all input channels at each. So a block of a layer whose sizes
    divide is ``rows`` output channels by ``columns`` input channels in a row at one place. Where channels do not divide
    blocks go on at the next place, where outputs do not they go on in the next group of a grouped convolution, and the
    last ones are smaller: a kernel that skips blocks may not skip these.

    A block's importance is the root of its mean square: the L2 norm, with blocks at an edge not less for being small.
    """

    rows: int
    columns: int

    def units(self, importance: np.ndarray) -> Units:
        outputs, taps, channels = importance.shape
        columns = np.arange(taps * channels) // self.columns
        of = np.arange(outputs)[:, None] // self.rows * (columns[-1] + 1) + columns
        squares = np.bincount(of.reshape(-1), np.square(importance).reshape(-1))
        scores = np.sqrt(squares / np.bincount(of.reshape(-1)))
        return Units(of.reshape(importance.shape), _with_best_kept(scores))

    def why_not(self, layer: Layer) -> str | None:
        layout = layer.layout
        if layout.groups * layout.outputs > self.rows or layout.places * layout.channels > self.columns:
            return None
        return f"all of them are no more than one block of {self.rows}x{self.columns}"

    def remark(self, layer: Layer) -> str | None:
        layout = layer.layout
        if layout.outputs % self.rows == 0 and layout.channels % self.columns == 0:
            return None
        where = " of each group" if layout.groups > 1 else ""
        sizes = f"{layout.outputs} outputs{where} by {layout.channels} input channels"
        return f"{sizes} do not divide into blocks of {self.rows}x{self.columns}"


def _with_best_kept(scores: np.ndarray) -> np.ndarray:
    scores = scores.copy()
    scores[np.argmax(scores)] = np.inf
    return scores


def parse_pattern(text: str) -> Pattern:
    """The pattern that ``text`` spells.

    Raises:
        UsageError: it spells none.
    """
    if text == "single":
        return Single()
    if (found := re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)) and 0 < int(found[1]) < int(found[2]):
        return OfGroup(int(found[1]), int(found[2]))
    if (found := re.fullmatch(r"block:(\d{1,9})x(\d{1,9})", text)) and int(found[1]) and int(found[2]):
        return Block(int(found[1]), int(found[2]))
    raise UsageError(f"no pattern of zeros is spelled {text!r}", expected=PATTERNS)


def final_ratio(pattern: Pattern, ratio: float | None) -> float:
    """The share of zeros to reach: ``ratio``, which a pattern N:M says itself; a half when nothing says it.

    Raises:
        UsageError: no share in [0, 1), or another than the pattern's.
    """
    if pattern.most < 1:
        if ratio not in (None, pattern.most):
            raise UsageError(f"ratio={ratio} with a pattern that has its own", expected=f"{pattern.most}, or no ratio")
        return pattern.most
    if ratio is None:
        return 0.5
    if not 0 <= ratio < 1:
        raise UsageError(f"ratio={ratio}", expected="a share in [0, 1)")
    return ratio


def choose_zeros(importances: Sequence[np.ndarray], pattern: Pattern, ratio: float, scope: Scope) -> list[np.ndarray]:
    """Which weights become zero, for layers given by the importance of their weights (outputs, taps, input channels).

    At most the share ``ratio`` of them does, and less by one unit at most: of every layer (``local``), or of all
    together (``global``). Where that is less than the pattern's own share, some groups keep more than the pattern says.

    Returns:
        for each layer an array (bool) of the importance's shape, true for zeros.
    """
    layers = [pattern.units(importance) for importance in importances]
    share = ratio / pattern.most
    if scope == "global":
        return _least_important(layers, share)
    return [_least_important([layer], share)[0] for layer in layers]


def _least_important(layers: Sequence[Units], share: float) -> list[np.ndarray]:
    sizes = np.concatenate([np.bincount(u.of[u.of >= 0].reshape(-1), minlength=len(u.scores)) for u in layers])
    scores = np.concatenate([layer.scores for layer in layers])
    # 0.29 * 100 is a little less than 29.
    goal = math.floor(share * int(sizes.sum()) + 1e-9)
    gone = np.zeros(len(scores), bool)
    gone[_smallest(scores, sizes, goal)] = True
    gone &= np.isfinite(scores)
    parts = np.split(gone, np.cumsum([len(layer.scores) for layer in layers])[:-1])
    # Unit -1 is the last one, which stays.
    return [np.append(part, False)[layer.of] for layer, part in zip(layers, parts, strict=True)]


def _smallest(scores: np.ndarray, sizes: np.ndarray, goal: int) -> np.ndarray:
    """The indices of as many of the smallest scores as have sizes that sum to at most ``goal``."""
    if len(scores) and int(sizes.max()) == 1:
        # Single weights are many: no need to sort them.
        return np.argpartition(scores, goal - 1)[:goal]
    order = np.argsort(scores, kind="stable")
    return order[: int(np.searchsorted(np.cumsum(sizes[order]), goal, side="right"))]


# Layers ------------------------------------------------------------------------------------------------------------

_ROWS_BEFORE, _ROWS_BEHIND = (0, 1, 3, 2), (0, 2, 3, 1)


@dataclass(frozen=True)
class Layout:
    """How a weight becomes (outputs, taps, input channels): split into four axes, permuted, the first two joined.

    Permuted, the axes are groups of a grouped layer, outputs of each, places of the kernel, and input channels.
    """

    split: tuple[int, int, int, int]
    order: tuple[int, ...]

    @property
    def groups(self) -> int:
        """Parts of the layer that share no inputs, or matrices of a batch."""
        return self.split[self.order[0]]

    @property
    def outputs(self) -> int:
        """Output channels of each group."""
        return self.split[self.order[1]]

    @property
    def places(self) -> int:
        """Places of the kernel."""
        return self.split[self.order[2]]

    @property
    def channels(self) -> int:
        """Input channels of each group."""
        return self.split[self.order[3]]

    def to_rows(self, weight: np.ndarray) -> np.ndarray:
        """(outputs, taps, input channels) of an array of the weight's shape."""
        four = weight.reshape(self.split).transpose(self.order)
        return four.reshape(-1, *four.shape[2:])

    def from_rows(self, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """An array of the weight's ``shape`` again."""
        four = rows.reshape([self.split[axis] for axis in self.order])
        return four.transpose(np.argsort(self.order)).reshape(shape)


@dataclass(frozen=True)
class Layer:
    """A layer whose weight can become sparse: its node, the constant that holds the weight, and how that lies."""

    node: Node
    weight: Value
    layout: Layout

    @property
    def name(self) -> str:
        """How the user calls the layer."""
        return self.node.where


@dataclass(frozen=True)
class Layers:
    """The layers of a graph that can become sparse, and lines that say why others cannot."""

    found: tuple[Layer, ...]
    remarks: tuple[str, ...]


def find_layers(graph: Graph, keep: Sequence[str] = ()) -> Layers:
    """Convolutions, linear layers and matrix products with a constant weight; a shared weight counts once.

    ``keep`` lists shell patterns over names of layers that are left out, without a remark.

    Raises:
        UsageError: one of them names no layer.
    """
    check_patterns(graph, keep, "keep")
    found: dict[Value, Layer] = {}
    remarks = []
    for node in graph.nodes:
        if is_named(node, keep):
            continue
        position = _weight_position(node)
        if isinstance(node.op, Recurrent):
            remarks.append(f"{node.where} keeps its weights: split-recurrent makes a linear layer of some of them")
        elif isinstance(node.op, Recurrence):
            remarks.append(f"{node.where} keeps its weights: they belong to a recurrence")
        elif position is not None:
            weight = _stored(node.inputs[position])
            reason = _why_dense(node, position, weight, keep)
            if reason:
                remarks.append(f"{node.where} keeps its weights: {reason}")
            elif weight not in found:
                found[weight] = Layer(node, weight, _layout(node.op, position, weight.type.static_shape))
    return Layers(tuple(found.values()), tuple(remarks))


def _weight_position(node: Node) -> int | None:
    """The operand that is a weight; None for a node that is no layer."""
    if node.op.rule is Quantization.WEIGHTED:
        return 1
    if node.op.rule is Quantization.MATMUL and len(node.inputs) == 2:
        constant = [isinstance(_stored(value).op, Constant) for value in node.inputs]
        return None if constant[0] == constant[1] else constant.index(True)
    return None


def _stored(value: Value) -> Value:
    """What a weight is made from: the constant itself, or the one behind its fake quantization."""
    producer = value.producer
    return producer.inputs[0] if producer is not None and isinstance(producer.op, FakeQuantize) else value


def _why_dense(node: Node, position: int, weight: Value, keep: Sequence[str]) -> str | None:
    if not isinstance(weight.op, Constant):
        return "its weight is computed at run time"
    if not weight.type.dtype.is_float:
        return f"its weight is stored as {weight.type.dtype.value}"
    if node.graph is not None and node.graph.is_output(weight):
        return "its weight is an output of the network"
    if any(isinstance(user.op, FakeQuantize) and user.op.step > 1 for user in weight.users):
        return "its grid of one bit has no zero"
    layout = _layout(node.op, position, weight.type.static_shape)
    for user, place in _readers(weight):
        if is_named(user, keep):
            return f"it shares its weight with {user.where}, which is to be kept"
        if place != _weight_position(user) or _layout(user.op, place, weight.type.static_shape) != layout:
            return f"{user.where} reads its weight in another way"
    return None


def _readers(weight: Value) -> list[tuple[Node, int]]:
    """Who uses a weight, and as which operand, fake quantization aside."""
    readers = []
    for user, place in weight.uses:
        behind = isinstance(user.op, FakeQuantize) and place == 0
        readers += list(user.output.uses) if behind else [(user, place)]
    return readers


def _layout(op: Op, position: int, shape: tuple[int, ...]) -> Layout:
    if op.rule is Quantization.MATMUL:
        rows, columns = shape[-2:]
        return Layout((math.prod(shape[:-2]), rows, columns, 1), _ROWS_BEHIND if position else _ROWS_BEFORE)
    first, second, *kernel = shape
    if isinstance(op, ConvTranspose):
        return Layout((op.groups, first // op.groups, second, math.prod(kernel)), _ROWS_BEHIND)
    groups = op.groups if isinstance(op, Conv) else 1
    return Layout((groups, first // groups, second, math.prod(kernel)), _ROWS_BEFORE)
