"""Builds the plan of one graph on one ISA level: the site where lowerings ask for views and call kernels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ...ir.errors import UnsupportedError, UnsupportedOp
from ...ir.graph import Graph, Node, Value
from ...ir.ops.constant import Constant
from ...ir.ops.shape import Concat
from ...ir.types import DType, TensorType
from ..bundle.program import Place, PlanProgram, Ref, Step, Work
from ..bundle.weights import WeightStore
from ..tvm.isa import Isa
from ..tvm.kernels.base import Arg, KernelSpec
from .grain import grain
from .memory import aligned, assign_offsets, most_alive
from .moves import Border, border_spec, copy_spec
from .views import ITEM_BYTES, Storage, View, dense_strides

Array = npt.NDArray[Any]
Constants = Mapping[str, npt.ArrayLike]
"""What a kernel's ``pack`` takes, by name."""


Notes = dict[Node, dict[str, list[str]]]
"""What lowerings chose where they had a choice, and on which levels, by node."""


Choices = Mapping[KernelSpec, KernelSpec]
"""Alternatives that take the place of kernels on one level."""


@dataclass(frozen=True)
class Call:
    """One kernel call before offsets are known."""

    symbol: str
    views: tuple[View | Ref, ...]
    tasks: int
    label: str
    work: Work
    companions: tuple[Call, ...] = ()


@dataclass
class PlanBuilder:
    """State of planning one graph. Lowerings use the methods; ``finish`` makes the program.

    ``node`` is what is being lowered; ``choices`` replaces kernels that were measured to be slower than others.
    """

    graph: Graph
    isa: Isa
    weights: WeightStore
    prefix: str
    notes: Notes = field(default_factory=dict)
    choices: Choices = field(default_factory=dict)
    node: Node | None = None
    kernels: dict[str, KernelSpec] = field(default_factory=dict)
    _views: dict[Value, View] = field(default_factory=dict)
    _borders: dict[Value, Border] = field(default_factory=dict)
    _bordered: dict[Value, Border] = field(default_factory=dict)
    _storages: list[Storage] = field(default_factory=list)
    _calls: list[Call] = field(default_factory=list)
    _waiting: dict[Storage, Call] = field(default_factory=dict)
    _copies: dict[tuple[View, object], View] = field(default_factory=dict)
    _placed: dict[Value, tuple[Node, int]] = field(default_factory=dict)
    _done: set[Node] = field(default_factory=set)
    _refused: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    _scratch: int = 0
    _slack: int = 0

    # Asking --------------------------------------------------------------------------------------------------------

    def view(self, value: Value) -> View:
        """Where a value lies; a constant is stored as it is."""
        if value not in self._views:
            assert isinstance(value.op, Constant), f"%{value.name} has no view yet"
            self._views[value] = self.constant(value.op.data.numpy(), value.type)
        return self._views[value]

    def has_view(self, value: Value) -> bool:
        """Whether the value lies somewhere already."""
        return value in self._views

    def constant(self, array: Array, type: TensorType) -> View:
        """A constant in the weights, in the stored domain when it is a quantized activation."""
        dtype = dtype_of(type)
        stored = (array.astype(np.int16) + self.isa.act_offset).astype(self.isa.act_dtype) if dtype == "act" else array
        storage = Storage(Place.WEIGHTS, stored.nbytes, offset=self.weights.add(stored))
        return View(storage, dtype, array.shape, dense_strides(array.shape, range(array.ndim)))

    def stored(self, value: int) -> int:
        """A logical s8 value in the stored domain of the level."""
        return value + self.isa.act_offset

    # Placing -------------------------------------------------------------------------------------------------------

    def bind(self, value: Value, view: View) -> None:
        """The value lies in a view that exists, so it is not written into its concat's buffer."""
        self._placed.pop(value, None)
        self._views[value] = view

    def allocate(self, value: Value, order: Sequence[int] | None = None) -> View:
        """A view for a kernel to write a value into: in its concat's buffer, or a new one with the border readers want.

        ``order`` nests the axes, outermost first; row-major by default.
        """
        shape, dtype = value.type.static_shape, dtype_of(value.type)
        order = tuple(order or range(len(shape)))
        part = self._part(value, shape, order)
        if part is not None:
            view = part
        else:
            # A border belongs to channels-last buffers; readers of another order copy anyway.
            border = self._borders.get(value) if order == channels_last_order(len(shape)) else None
            view = self._fresh(shape, dtype, order, border)
            if border is not None:
                self._bordered[value] = border
        self._views[value] = view
        return view

    def _part(self, value: Value, shape: tuple[int, ...], order: tuple[int, ...]) -> View | None:
        """The value's part of its concat's buffer, unless it has none or axes nest in another order there."""
        if value not in self._placed:
            return None
        node, start = self._placed[value]
        assert isinstance(node.op, Concat)
        whole = self._views[node.output] if node.output in self._views else self.allocate(node.output, order)
        if not whole.nests(order):
            del self._placed[value]
            return None
        starts = [0] * len(shape)
        starts[node.op.axis % len(shape)] = start
        return whole.sliced(starts, shape)

    def _fresh(self, shape: tuple[int, ...], dtype: str, order: Sequence[int], border: Border | None) -> View:
        outer = shape if border is None else (*shape[:2], *border.around(shape[2:]))
        strides = dense_strides(outer, order)
        storage = Storage(Place.ARENA, int(np.prod(outer)) * ITEM_BYTES[dtype])
        self._storages.append(storage)
        whole = View(storage, dtype, outer, strides)
        if border is None:
            return whole
        view = whole.sliced((0, 0, *(before for before, _ in border.padding)), shape)
        fill = self.stored(int(border.fill)) if dtype == "act" else border.fill
        self.call(border_spec(whole, border), "border", {"out": whole}, {"value": fill}, waits=True)
        return view

    def scratch_view(self, shape: tuple[int, ...], dtype: str, order: Sequence[int] | None = None) -> View:
        """A new buffer in the arena for an intermediate that is no value of the graph."""
        return self._fresh(shape, dtype, order or range(len(shape)), None)

    # Fetching operands ---------------------------------------------------------------------------------------------

    def contiguous(self, view: View, order: Sequence[int] | None = None) -> View:
        """The view itself when it is dense in ``order`` (row-major by default), else a copy that is."""
        if view.is_dense(order):
            return view
        return self._copied(view, tuple(order or range(view.rank)), None)

    def beside(self, view: View, out: View) -> View:
        """The view itself when kernels that write ``out`` element by element find its elements in a row, else a copy.

        What repeats along an axis of ``out`` is left as it is.
        """
        axis = next((axis for axis in reversed(out.order()) if out.shape[axis] != 1), 0)
        if view.shape != out.shape or view.strides[axis] in (0, 1) or out.strides[axis] != 1:
            return view
        return self._copied(view, out.order(), None)

    def channels_last(self, view: View) -> View:
        """The view itself when channels (axis 1) are adjacent elements and rows nest in order, else a copy."""
        spatial = view.strides[2:]
        nested = all(a >= b for a, b in pairwise(spatial)) and all(s > 0 for s in view.strides)
        if (view.strides[1] == 1 or view.shape[1] == 1) and nested:
            return view
        return self._copied(view, channels_last_order(view.rank), None)

    def padded(self, value: Value, border: Border) -> View:
        """Channels-last view of a value together with its border, which holds ``border.fill``."""
        view = self.view(value)
        have = self._bordered.get(value)
        if border.is_empty or (have is not None and have.covers(border)):
            view = self.channels_last(view)
        else:
            view = self._copied(view, channels_last_order(view.rank), border)
        starts = (0, 0, *(-before for before, _ in border.padding))
        return view.sliced(starts, (*view.shape[:2], *border.around(view.shape[2:])))

    def _copied(self, view: View, order: tuple[int, ...], border: Border | None) -> View:
        key = (view, (order, border))
        if key not in self._copies:
            copy = self._fresh(view.shape, view.dtype, order, border)
            self.copy(view, copy, "copy")
            self._copies[key] = copy
        return self._copies[key]

    # Calling -------------------------------------------------------------------------------------------------------

    def copy(self, source: View, target: View, label: str) -> None:
        """Move elements from one view to another of the same shape."""
        self.call(copy_spec(self.isa, source, target), label, {"x": source, "out": target})

    def call(
        self,
        spec: KernelSpec,
        label: str,
        views: Mapping[str, View],
        constants: Constants | None = None,
        waits: bool = False,
    ) -> None:
        """Add a kernel call: ``views`` for inputs and outputs by argument name, ``constants`` for its ``pack``.

        One that ``waits`` reads nothing, and writes what no kernel reads before others have written the rest of the
        same buffer: it runs beside the first of them.
        """
        spec = self._measured(spec)
        packed = spec.pack(self.isa, **{name: np.asarray(value) for name, value in (constants or {}).items()})
        reads = spec.over_read(self.isa)
        scratch = 0
        arguments: list[View | Ref] = []
        for arg in spec.args:
            if arg.role == "const":
                arguments.append(Ref.weights(self.weights.add(packed[arg.name])))
            elif arg.role == "scratch":
                arguments.append(Ref.scratch(scratch))
                scratch += aligned(arg.bytes)
            else:
                arguments.append(self._operand(arg, views[arg.name], reads.get(arg.name, 0)))
        self._scratch = max(self._scratch, scratch)
        work = self._work(spec, views, sum(array.nbytes for array in packed.values()))
        made = Call(self._symbol(spec), tuple(arguments), spec.tasks(self.isa), label, work)
        written = dict.fromkeys(views[arg.name].storage for arg in spec.args if arg.role == "out")
        if waits:
            self._waiting.update(dict.fromkeys(written, made))
            return
        for argument in arguments:
            if isinstance(argument, View):
                argument.storage.touch(len(self._calls))
        found = tuple(self._waiting.pop(storage) for storage in written if storage in self._waiting)
        self._calls.append(replace(made, companions=found))

    def _measured(self, spec: KernelSpec) -> KernelSpec:
        """The kernel, or the faster one that takes its place."""
        faster = self.choices.get(spec)
        if faster is None:
            return spec
        if self.node is not None:
            self.note(self.node, f"tuned: another {_kind(faster)} kernel was faster when measured")
        return faster

    def _work(self, spec: KernelSpec, views: Mapping[str, View], constants: int) -> Work:
        moved = {arg.name: views[arg.name].touched for arg in spec.args if arg.role in ("in", "out")}
        outputs = [arg.name for arg in spec.args if arg.role == "out"]
        written = sum(moved[name] for name in outputs)
        rescales = any(arg.name == "multiplier" for arg in spec.args)
        return Work(
            kernel=_kind(spec),
            instruction=spec.instruction(self.isa),
            macs=spec.macs,
            read=sum(moved.values()) - written,
            written=written if spec.bytes_written is None else spec.bytes_written,
            constants=constants,
            rescaled=sum(views[name].size for name in outputs) if rescales else 0,
        )

    def _operand(self, arg: Arg, view: View, over_read: int) -> View:
        """The view to pass; what a kernel may read beyond must not be a user's memory."""
        if arg.role == "in" and over_read and view.storage.place is Place.INPUT:
            # The kernel knows the strides of the view: the whole buffer is copied as it is.
            count = view.storage.bytes // ITEM_BYTES[view.dtype]
            buffer = self._copied(View(view.storage, view.dtype, (count,), (1,)), (0,), None)
            view = replace(view, storage=buffer.storage)
        if arg.role == "in":
            view.storage.over_read = max(view.storage.over_read, over_read)
            self._slack = max(self._slack, over_read)
        return view

    def _symbol(self, spec: KernelSpec) -> str:
        digest = hashlib.sha256(f"{type(spec).__module__} {spec!r}".encode()).hexdigest()[:12]
        symbol = f"{self.prefix}_{self.isa.name}_{_kind(spec)}_{digest}"
        self.kernels.setdefault(symbol, spec)
        return symbol

    # Nodes ---------------------------------------------------------------------------------------------------------

    def mark_done(self, node: Node) -> None:
        """The node was lowered together with another."""
        self._done.add(node)

    def is_done(self, node: Node) -> bool:
        return node in self._done

    def note(self, node: Node, text: str) -> None:
        """Say in the decision log which kernel the node got on this level, and why."""
        levels = self.notes.setdefault(node, {}).setdefault(text, [])
        if self.isa.name not in levels:
            levels.append(self.isa.name)

    def refuse(self, node: Node, reason: str) -> None:
        """The node has no kernel; every refusal is reported at once, so later nodes find its outputs, of no bytes."""
        self._refused.setdefault((node.op.name, reason), []).append(node.where)
        for value in node.outputs:
            shape = value.type.static_shape
            strides = dense_strides(shape, range(len(shape)))
            self._views.setdefault(value, View(Storage(Place.ARENA, 0), dtype_of(value.type), shape, strides))

    def request_border(self, value: Value, border: Border) -> None:
        """A reader of the value wants a border; the first fill wins, extents are joined."""
        if border.is_empty or isinstance(value.op, Constant) or value.producer is None:
            return
        have = self._borders.get(value)
        if have is None:
            self._borders[value] = border
        elif have.fill == border.fill:
            self._borders[value] = have.joined(border)

    def place(self, value: Value, concat: Node, start: int) -> None:
        """The value is to be written into its concat's buffer, ``start`` elements along; the first concat wins."""
        self._placed.setdefault(value, (concat, start))

    def is_placed(self, value: Value, concat: Node, start: int) -> bool:
        """Whether the value was written into the concat's buffer at that place."""
        return self._placed.get(value) == (concat, start) and value in self._views

    # Finishing -----------------------------------------------------------------------------------------------------

    def finish(self) -> PlanProgram:
        """Offsets for everything; raises :class:`UnsupportedError` when nodes were refused."""
        if self._refused:
            ops = [UnsupportedOp(name, tuple(places), reason) for (name, reason), places in self._refused.items()]
            raise UnsupportedError(tuple(ops), hint="keep these nodes out of the compiled network, or report the model")
        self._bind_outputs()
        storages = [storage for storage in self._storages if storage.place is Place.ARENA]
        arena = assign_offsets(storages)
        steps = tuple(self._step(call) for call in self._calls)
        return PlanProgram(arena, aligned(self._slack), steps, self._scratch, most_alive(storages))

    def _step(self, call: Call) -> Step:
        companions = tuple(self._step(companion) for companion in call.companions)
        work = replace(call.work, written=sum(part.work.written for part in (call, *call.companions)))
        fewest = grain(work, call.tasks, self.isa.lanes)
        return Step(call.symbol, tuple(map(_ref, call.views)), call.tasks, call.label, fewest, work, companions)

    def _bind_outputs(self) -> None:
        """Let the last kernels write into the user's buffers, or copy where they cannot."""
        for index, value in enumerate(self.graph.outputs):
            view = self.view(value)
            storage = view.storage
            whole = view.is_dense() and view.offset == 0 and storage.bytes == value.type.nbytes
            if storage.place is Place.ARENA and whole and not storage.over_read and view.dtype != "act":
                storage.place, storage.index = Place.OUTPUT, index
            else:
                shape = value.type.static_shape
                target = Storage(Place.OUTPUT, value.type.nbytes, index=index)
                strides = dense_strides(shape, range(len(shape)))
                self.copy(view, View(target, value.type.dtype.numpy.name, shape, strides), value.name)


def _kind(spec: KernelSpec) -> str:
    """What a kernel is called in symbols and profiles."""
    return type(spec).__name__.removesuffix("Spec").lower()


def _ref(view: View | Ref) -> Ref:
    if isinstance(view, Ref):
        return view
    return Ref(view.storage.place, view.storage.offset + view.byte_offset, view.storage.index)


def dtype_of(type: TensorType) -> str:
    """The dtype of a value's view: ``act`` for quantized int8."""
    if type.dtype is DType.I8 and type.quant is not None:
        return "act"
    return type.dtype.numpy.name


def channels_last_order(rank: int) -> tuple[int, ...]:
    """(0, 2, ..., rank - 1, 1): channels innermost."""
    return (0, *range(2, rank), 1)
