"""Defects that a kernel, its constants or a plan could have. Each patches the code that makes one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from e2e.bundles import Array
from octavo.backends.bundle.program import PlanProgram
from octavo.backends.plan import builder, memory
from octavo.backends.plan.builder import PlanBuilder
from octavo.backends.plan.moves import Border
from octavo.backends.plan.views import Storage, View
from octavo.backends.tvm.isa import Isa
from octavo.backends.tvm.kernels.base import KernelSpec
from octavo.backends.tvm.kernels.border import BorderSpec
from octavo.backends.tvm.kernels.conv import ConvSpec
from octavo.backends.tvm.kernels.depthwise import DepthwiseSpec
from octavo.backends.tvm.kernels.elementwise import BinarySpec
from octavo.backends.tvm.kernels.matmul import MatmulSpec
from octavo.backends.tvm.kernels.sparse import SparseConvSpec

Patch = pytest.MonkeyPatch
Fault = Callable[[Patch], None]

FAULTS: dict[str, Fault] = {}


def fault(function: Fault) -> Fault:
    FAULTS[function.__name__.replace("_", " ")] = function
    return function


# Constants ---------------------------------------------------------------------------------------------------------


def _packed(patch: Patch, spec: type[KernelSpec], name: str, change: Callable[[Array], Array]) -> None:
    """Change one packed constant of every kernel of a kind."""
    original = spec.pack

    def pack(self: Any, isa: Isa, **arrays: Array) -> dict[str, Array]:
        packed = dict(original(self, isa, **arrays))
        if name in packed:
            packed[name] = change(packed[name].copy())
        return packed

    patch.setattr(spec, "pack", pack)


def _given(patch: Patch, spec: type[KernelSpec], name: str, change: Callable[[Array], Array]) -> None:
    """Change one constant before it is packed."""
    original = spec.pack

    def pack(self: Any, isa: Isa, **arrays: Array) -> dict[str, Array]:
        if name in arrays:
            arrays[name] = change(np.array(arrays[name]))
        return dict(original(self, isa, **arrays))

    patch.setattr(spec, "pack", pack)


def _next(array: Array) -> Array:
    return np.asarray(np.nextafter(array, np.float32(np.inf)))


def _one_flipped(array: Array) -> Array:
    """The lowest bit of the element in the middle is the other one."""
    array.reshape(-1)[array.size // 2] ^= 1
    return array


@fault
def bias_off_by_one(patch: Patch) -> None:
    _packed(patch, ConvSpec, "bias", lambda bias: bias + np.int32(1))


@fault
def depthwise_bias_off_by_one(patch: Patch) -> None:
    _packed(patch, DepthwiseSpec, "bias", lambda bias: bias + np.int32(1))


@fault
def multiplier_one_ulp_off(patch: Patch) -> None:
    _packed(patch, ConvSpec, "multiplier", _next)


@fault
def product_multiplier_one_ulp_off(patch: Patch) -> None:
    _given(patch, MatmulSpec, "multiplier", _next)


@fault
def input_zero_point_off_by_one(patch: Patch) -> None:
    _given(patch, ConvSpec, "x_zero_point", lambda zero: zero + 1)


@fault
def output_zero_point_off_by_one(patch: Patch) -> None:
    _given(patch, ConvSpec, "zero_point", lambda zero: zero + 1)


@fault
def residual_scaled_wrong(patch: Patch) -> None:
    _given(patch, ConvSpec, "residual_multiplier", lambda factor: factor * np.float32(1.01))


@fault
def addend_scaled_wrong(patch: Patch) -> None:
    _given(patch, BinarySpec, "b_multiplier", lambda factor: factor * np.float32(1.01))


@fault
def activation_forgotten(patch: Patch) -> None:
    _given(patch, ConvSpec, "lo", lambda low: low - 40)


@fault
def one_weight_off_by_one(patch: Patch) -> None:
    _given(patch, ConvSpec, "weight", _one_flipped)


@fault
def one_table_entry_wrong(patch: Patch) -> None:
    def change(table: Array) -> Array:
        table[120:136] += np.int8(1)
        return table

    _given(patch, ConvSpec, "table", change)


@fault
def last_weights_missing(patch: Patch) -> None:
    """The channel tail of a depthwise kernel."""

    def change(weight: Array) -> Array:
        weight[-1] = 0
        return weight

    _given(patch, DepthwiseSpec, "weight", change)


@fault
def sparse_input_zero_point_off_by_one(patch: Patch) -> None:
    _given(patch, SparseConvSpec, "x_zero_point", lambda zero: zero + 1)


@fault
def one_block_meets_other_bytes(patch: Patch) -> None:
    def change(taps: Array) -> Array:
        taps[len(taps) // 2] += 1
        return taps

    _packed(patch, SparseConvSpec, "taps", change)


@fault
def one_block_left_out(patch: Patch) -> None:
    """The last of the first channel tile that has any."""

    def change(starts: Array) -> Array:
        starts[np.flatnonzero(starts)[0]] -= 1
        return starts

    _packed(patch, SparseConvSpec, "starts", change)


@fault
def one_weight_of_a_block_off_by_one(patch: Patch) -> None:
    _packed(patch, SparseConvSpec, "weight", _one_flipped)


Call = tuple[KernelSpec, Any, Any]


def _called(patch: Patch, change: Callable[[KernelSpec, str, Any, Any], Call | None]) -> None:
    """Change (spec, views, constants) of every kernel call, or leave the call out."""
    original = PlanBuilder.call

    def call(
        self: PlanBuilder, spec: KernelSpec, label: str, views: Any, constants: Any = None, waits: bool = False
    ) -> None:
        changed = change(spec, label, views, constants)
        if changed is not None:
            original(self, changed[0], label, *changed[1:], waits=waits)

    patch.setattr(PlanBuilder, "call", call)


# Kernels -----------------------------------------------------------------------------------------------------------


@fault
def channel_tail_dropped(patch: Patch) -> None:
    """Kernels of several channels leave out the last one."""

    def change(spec: KernelSpec, label: str, views: Any, constants: Any) -> Call:
        if isinstance(spec, ConvSpec) and spec.groups == 1 and spec.out_channels > 2:
            channels = spec.out_channels - 1
            cut = ("weight", "bias", "multiplier")
            constants = {name: array[:channels] if name in cut else array for name, array in constants.items()}
            spec = replace(spec, out_channels=channels)
        return spec, views, constants

    _called(patch, change)


@fault
def last_task_dropped(patch: Patch) -> None:
    original = ConvSpec.tasks
    patch.setattr(ConvSpec, "tasks", lambda self, isa: max(1, original(self, isa) - 1))


@fault
def reads_one_pixel_to_the_right(patch: Patch) -> None:
    _shift(patch, lambda view: view.shape[1])


@fault
def reads_one_channel_to_the_right(patch: Patch) -> None:
    _shift(patch, lambda view: 1)


def _shift(patch: Patch, distance: Callable[[View], int]) -> None:
    original = PlanBuilder.padded

    def padded(self: PlanBuilder, value: Any, border: Border) -> View:
        view = original(self, value, border)
        return replace(view, offset=view.offset + distance(view))

    patch.setattr(PlanBuilder, "padded", padded)


# Plans -------------------------------------------------------------------------------------------------------------


@fault
def border_filled_with_another_value(patch: Patch) -> None:
    def change(spec: KernelSpec, label: str, views: Any, constants: Any) -> Call:
        if isinstance(spec, BorderSpec):
            constants = {"value": constants["value"] + 1}
        return spec, views, constants

    _called(patch, change)


@fault
def border_not_filled(patch: Patch) -> None:
    _called(patch, lambda spec, label, *rest: None if label == "border" else (spec, *rest))


@fault
def border_too_narrow(patch: Patch) -> None:
    """The first column behind the image is left as it was."""

    def change(spec: KernelSpec, label: str, views: Any, constants: Any) -> Call:
        if isinstance(spec, BorderSpec) and spec.right:
            spec = replace(spec, width=spec.width + 1, right=spec.right - 1)
        return spec, views, constants

    _called(patch, change)


@fault
def copies_skipped(patch: Patch) -> None:
    """Operands that must be brought into order are left as they lie."""
    _called(patch, lambda spec, label, *rest: None if label == "copy" else (spec, *rest))


@fault
def live_buffers_overlap(patch: Patch) -> None:
    """A buffer is given away one step before its last reader."""
    original = memory.assign_offsets

    def assign(storages: Iterable[Storage]) -> int:
        kept = list(storages)
        for storage in kept:
            if storage.first is not None:
                storage.last = max(storage.first, storage.last - 1)
        return original(kept)

    patch.setattr(builder, "assign_offsets", assign)


@fault
def buffers_lie_one_byte_too_near(patch: Patch) -> None:
    """Every offset but the first is one byte short."""
    original = memory.assign_offsets

    def assign(storages: Iterable[Storage]) -> int:
        kept = list(storages)
        total = original(kept)
        for storage in kept:
            storage.offset -= min(storage.offset, 1)
        return total

    patch.setattr(builder, "assign_offsets", assign)


@fault
def parts_of_a_concat_meet_too_early(patch: Patch) -> None:
    original = PlanBuilder.place

    def place(self: PlanBuilder, value: Any, concat: Any, start: int) -> None:
        original(self, value, concat, max(0, start - 1))

    patch.setattr(PlanBuilder, "place", place)


@fault
def residual_of_another_layer(patch: Patch) -> None:
    """A kernel that adds a residual reads its own input instead."""

    def change(spec: KernelSpec, label: str, views: Any, constants: Any) -> Call:
        return spec, {**views, "residual": views["x"]} if "residual" in views else views, constants

    _called(patch, change)


@fault
def steps_in_another_order(patch: Patch) -> None:
    """A kernel runs before the one whose result it reads."""
    original = PlanBuilder.finish

    def finish(self: PlanBuilder) -> PlanProgram:
        program = original(self)
        steps = list(program.steps)
        late = range(len(steps) // 2, len(steps) - 1)
        at = next(at for at in late if steps[at].args[-1] in steps[at + 1].args)
        steps[at], steps[at + 1] = steps[at + 1], steps[at]
        return replace(program, steps=tuple(steps))

    patch.setattr(PlanBuilder, "finish", finish)


@fault
def users_buffer_read_beyond_its_end(patch: Patch) -> None:
    """Kernels that read whole vectors get the user's input itself; the page behind it is not readable."""
    patch.setattr(PlanBuilder, "_operand", lambda self, arg, view, over_read: view)
