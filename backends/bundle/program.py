"""A compiled network as plain values: what to call, in which order, on which bytes.

This is all the bundle writer knows of a network. The planner makes it from its IR; tests write it by hand.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import Enum

from ...ir.errors import BundleError
from .features import ARCHITECTURES, lookup

#: Bytes per element of the types that may cross the boundary of a bundle.
DTYPES = {"float32": 4, "int8": 1, "uint8": 1, "int32": 4, "int64": 8, "bool": 1}

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_MAX_TASKS = 2**31 - 1


class Place(Enum):
    """Where the bytes of a kernel argument live."""

    INPUT = "input"
    OUTPUT = "output"
    ARENA = "arena"
    WEIGHTS = "weights"
    SCRATCH = "scratch"


@dataclass(frozen=True)
class Ref:
    """A kernel argument: ``offset`` bytes into input or output ``index``, the arena, the weights or the scratch."""

    place: Place
    offset: int = 0
    index: int = 0

    @staticmethod
    def input(index: int, offset: int = 0) -> Ref:
        return Ref(Place.INPUT, offset, index)

    @staticmethod
    def output(index: int, offset: int = 0) -> Ref:
        return Ref(Place.OUTPUT, offset, index)

    @staticmethod
    def arena(offset: int) -> Ref:
        return Ref(Place.ARENA, offset)

    @staticmethod
    def weights(offset: int) -> Ref:
        return Ref(Place.WEIGHTS, offset)

    @staticmethod
    def scratch(offset: int = 0) -> Ref:
        return Ref(Place.SCRATCH, offset)


@dataclass(frozen=True)
class Work:
    """What a step does, for profiles: ``macs`` multiply-accumulates by ``instruction``, and the bytes it moves.

    ``kernel`` is its kind, ``constants`` are bytes of weights, ``rescaled`` the results that are requantized.
    """

    kernel: str = ""
    instruction: str = ""
    macs: int = 0
    read: int = 0
    written: int = 0
    constants: int = 0
    rescaled: int = 0


@dataclass(frozen=True)
class Step:
    """One kernel call, ``int32_t symbol(void *, ..., int32_t begin, int32_t end)``, over ``tasks`` independent units.

    ``grain`` is the fewest tasks worth a thread of their own: a step of fewer than ``2 * grain`` tasks runs inline.
    ``label`` is the user's name of the layer, for messages and profiles. ``companions`` are small steps that neither
    wait for this one nor it for them: whoever runs a range of its tasks runs the same part of theirs, with no wait
    between. ``work`` is that of all, and a companion's own ``grain`` is of no use.
    """

    symbol: str
    args: tuple[Ref, ...]
    tasks: int
    label: str
    grain: int = 1
    work: Work = field(default_factory=Work)
    companions: tuple[Step, ...] = ()

    @property
    def calls(self) -> tuple[Step, ...]:
        """The companions, then the step."""
        return (*self.companions, self)


@dataclass(frozen=True)
class PlanProgram:
    """The steps for one set of input shapes.

    ``arena_bytes`` hold every intermediate value; kernels may read, never write, ``slack`` bytes beyond.
    ``scratch_bytes`` are private to each piece of a step that runs at the same time as another. ``alive_bytes`` is the
    most that values take which are needed at the same time: no arena is smaller.
    """

    arena_bytes: int
    slack: int
    steps: tuple[Step, ...]
    scratch_bytes: int = 0
    alive_bytes: int = 0


@dataclass(frozen=True)
class LevelProgram:
    """One instruction-set level: the features its kernels may use (LLVM names), and one plan per signature."""

    name: str
    features: tuple[str, ...]
    plans: tuple[PlanProgram, ...]


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: row-major, ``real = scale * (stored - zero_point)`` when quantized.

    ``alignment`` is what the kernels assume of the caller's buffer, in bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int | None = None
    alignment: int = 64

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.size * DTYPES[self.dtype]


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of one plan. All plans of a bundle share names and dtypes, and differ in shapes."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Program:
    """Everything a bundle runs. ``levels`` stand best first; ``prefix`` begins every symbol, kernels included.

    Raises:
        BundleError: something does not fit together (checked on construction).
    """

    prefix: str
    architecture: str
    signatures: tuple[Signature, ...]
    levels: tuple[LevelProgram, ...]

    def __post_init__(self) -> None:
        _check(bool(_IDENTIFIER.fullmatch(self.prefix)), f"prefix {self.prefix!r} is not a C identifier")
        _check(
            self.architecture in ARCHITECTURES, f"architecture {self.architecture!r}, expected one of {ARCHITECTURES}"
        )
        _check(bool(self.signatures) and bool(self.levels), "a bundle needs a signature and a level")
        for signature in self.signatures:
            _check_signature(signature, self.signatures[0])
        names = [level.name for level in self.levels]
        _check(len(set(names)) == len(names), f"levels {names} repeat a name")
        for level in self.levels:
            _check_level(self, level)


def symbols(level: LevelProgram) -> dict[str, int]:
    """The kernels a level calls, with their number of buffer arguments, in order of first use."""
    return {call.symbol: len(call.args) for plan in level.plans for step in plan.steps for call in step.calls}


def _check(good: bool, message: str) -> None:
    if not good:
        raise BundleError(f"malformed program: {message}")


def _check_signature(signature: Signature, first: Signature) -> None:
    for group, reference in ((signature.inputs, first.inputs), (signature.outputs, first.outputs)):
        named = [(spec.name, spec.dtype) for spec in group]
        _check(named == [(spec.name, spec.dtype) for spec in reference], "signatures differ in more than shapes")
        _check(bool(named), "a bundle needs inputs and outputs")
        _check(len({name for name, _ in named}) == len(named), f"two tensors share a name: {named}")
        for spec in group:
            _check(spec.dtype in DTYPES, f"{spec.name}: dtype {spec.dtype!r}, expected one of {list(DTYPES)}")
            _check(min(spec.shape, default=1) >= 1, f"{spec.name}: shape {spec.shape}")
            _check(spec.alignment.bit_count() == 1 and spec.alignment <= 64, f"{spec.name}: alignment {spec.alignment}")
            _check((spec.scale is None) == (spec.zero_point is None), f"{spec.name}: scale without zero point")
            _check(spec.scale is None or 0 < spec.scale < math.inf, f"{spec.name}: scale {spec.scale}")


def _check_level(program: Program, level: LevelProgram) -> None:
    _check(bool(re.fullmatch(r"[a-z0-9][a-z0-9.-]*", level.name)), f"level name {level.name!r}")
    _check(len(level.plans) == len(program.signatures), f"level {level.name} has not one plan per signature")
    for name in level.features:
        lookup(program.architecture, name)
    arguments: dict[str, int] = {}
    for plan, signature in zip(level.plans, program.signatures, strict=True):
        _check(min(plan.arena_bytes, plan.slack, plan.scratch_bytes) >= 0, f"level {level.name}: a negative size")
        for call in (call for step in plan.steps for call in step.calls):
            _check_step(program.prefix, call, plan, signature)
            known = arguments.setdefault(call.symbol, len(call.args))
            _check(known == len(call.args), f"{call.symbol} is called with {known} and with {len(call.args)} arguments")


def _check_step(prefix: str, step: Step, plan: PlanProgram, signature: Signature) -> None:
    where = f"step {step.label!r}"
    _check(
        bool(_IDENTIFIER.fullmatch(step.symbol)) and step.symbol.startswith(prefix + "_"),
        f"{where}: symbol {step.symbol!r} does not begin with {prefix}_",
    )
    _check(1 <= step.tasks <= _MAX_TASKS, f"{where}: {step.tasks} tasks")
    _check(step.grain >= 1, f"{where}: grain {step.grain}")
    for ref in step.args:
        limit = _limit(ref, plan, signature)
        _check(limit is not None, f"{where}: {ref.place.value} {ref.index} does not exist")
        _check(
            ref.offset >= 0 and (limit is None or ref.offset <= limit), f"{where}: {ref} is outside of {limit} bytes"
        )


def _limit(ref: Ref, plan: PlanProgram, signature: Signature) -> float | None:
    match ref.place:
        case Place.INPUT | Place.OUTPUT:
            group = signature.inputs if ref.place is Place.INPUT else signature.outputs
            return group[ref.index].bytes if 0 <= ref.index < len(group) else None
        case Place.ARENA:
            return plan.arena_bytes
        case Place.SCRATCH:
            return plan.scratch_bytes
        case Place.WEIGHTS:
            return math.inf
