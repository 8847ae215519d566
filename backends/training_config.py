"""What a training run is told: a strict TOML file, whose mistakes are reported all at once.

Keys are the fields of the classes below in kebab-case; paths are relative to the file's folder.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
import tomllib
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from ..ir.errors import OctavoError, UsageError
from ..passes.options import describe
from ..passes.pipeline import Pipeline
from ..passes.training.loop import Settings
from ..passes.training.losses import TERMS, are_pairs
from ..passes.training.sparsity import GradualSparsity
from .shapes import Shapes, parse_shapes
from .targets import resolve_target

QUANTIZE = "prepare,observe{method=mse},calibrate,quantize"
"""The passes that ``quantize = true`` stands for."""


def _check_source(text: object, base: Path) -> None:
    """Files must be there; functions are imported when they are needed."""
    if text == "":
        raise UsageError("names nothing", expected="a file, or package.module:function")
    if isinstance(text, str) and ":" not in text and not (base / text).exists():
        raise UsageError(f"there is no file {base / text}")


def _check_pipeline(text: object, base: Path) -> None:
    if isinstance(text, str) and text:
        Pipeline.parse(text)


def _check_validation(value: object, base: Path) -> None:
    if isinstance(value, float) and not 0 < value < 1:
        raise UsageError(f"{value:g} is no share of the data", expected="a source, or a fraction between 0 and 1")
    _check_source(value, base)


_SOURCE = {"check": _check_source}
_PIPELINE = {"check": _check_pipeline}


@dataclass(frozen=True)
class ModelSection:
    """``[model]`` and ``[teacher]``: the source as on the command line, and shapes as ``--shape`` spells them."""

    source: str = field(metadata=_SOURCE)
    shapes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(parse_shapes(self.shapes)) > 1:
            raise UsageError("several shapes for one input", expected="one: training has one graph")

    @property
    def plan(self) -> Shapes | None:
        plans = parse_shapes(self.shapes)
        return plans[0] if plans else None


@dataclass(frozen=True)
class DataSource:
    """One of several sources of training data; ``weight`` is its share of what is drawn."""

    source: str = field(metadata=_SOURCE)
    weight: float | None = None


@dataclass(frozen=True)
class Augmentation:
    """Changes of training images: mirrored left to right with a chance of one half; moved by up to ``crop`` pixels."""

    flip: bool = False
    crop: int = 0

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise UsageError(f"crop is {self.crop}", expected="at least 0")


@dataclass(frozen=True)
class DataSection:
    """``[data]``: where samples come from; ``validation`` is a source, or the fraction of the data held back for it."""

    train: str | tuple[DataSource, ...] = field(metadata=_SOURCE)
    validation: str | float = field(default=0.1, metadata={"check": _check_validation})
    labels: str = "labels"
    augment: Augmentation = Augmentation()

    def __post_init__(self) -> None:
        if not self.sources:
            raise UsageError("train names no source", expected="at least one")
        weights = [source.weight for source in self.sources]
        if any(w is None for w in weights) and any(w is not None for w in weights):
            raise UsageError("some sources have a weight and some have none", expected="a weight for each, or for none")
        if any(w is not None and not 0 < w < math.inf for w in weights):
            shown = ", ".join(f"{w:g}" for w in weights if w is not None)
            raise UsageError(f"the weights of the sources are {shown}", expected="finite numbers above 0")

    @property
    def sources(self) -> tuple[DataSource, ...]:
        return (DataSource(self.train),) if isinstance(self.train, str) else self.train

    @property
    def texts(self) -> tuple[str, ...]:
        """Every source, those of training first."""
        own = tuple(source.source for source in self.sources)
        return (*own, self.validation) if isinstance(self.validation, str) else own


@dataclass(frozen=True)
class PassesSection:
    """``[passes]``: what happens to the graph before training; ``calibration`` counts samples that passes may read.

    With ``keep_zeros`` weights that are zero then stay zero.
    """

    before: str = field(default="", metadata=_PIPELINE)
    quantize: bool | str = field(default=False, metadata=_PIPELINE)
    calibration: int = 512
    keep_zeros: bool = False

    def __post_init__(self) -> None:
        if self.calibration < 1:
            raise UsageError(f"calibration is {self.calibration}", expected="at least 1 sample")

    @property
    def quantization(self) -> str:
        """The pipeline that puts rounding into the network; empty without one."""
        return self.quantize if isinstance(self.quantize, str) else QUANTIZE if self.quantize else ""


@dataclass(frozen=True)
class LossTerm:
    """An entry of ``[loss]``: a weight, and the options of the term."""

    weight: float
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class OutputSection:
    """``[output]``: a folder for checkpoints and the log, the graph, and with ``compile`` (a target) a bundle.

    ``compress`` stores the bundle's weights entropy coded.
    """

    folder: str = ""
    graph: str = ""
    compile: Literal["x86-int8", "arm-int8"] | None = None
    mcpu: str | None = None
    bundle: str = ""
    compress: bool = False

    def __post_init__(self) -> None:
        if self.graph and not self.graph.endswith(".octavo"):
            raise UsageError(f"graph is {self.graph}", expected="a name that ends in .octavo")
        of_bundles = [name for name in ("mcpu", "bundle", "compress") if getattr(self, name)]
        if self.compile is None and of_bundles:
            what = f"{of_bundles[0]} is given, and no target to compile for"
            raise UsageError(what, expected='compile = "x86-int8" or "arm-int8" beside it')
        if self.compile:
            resolve_target(self.compile, self.mcpu)


@dataclass(frozen=True)
class TrainingConfig:
    """A whole configuration, and the file it came from."""

    path: Path
    model: ModelSection
    data: DataSection
    teacher: ModelSection | None = None
    passes: PassesSection = PassesSection()
    loss: Mapping[str, LossTerm] = field(default_factory=lambda: {"cross-entropy": LossTerm(1.0)})
    training: Settings = field(default_factory=Settings)
    sparsity: GradualSparsity | None = None
    output: OutputSection = OutputSection()

    @property
    def folder(self) -> Path:
        """Where checkpoints and the log are; by default a folder beside the file, named after it."""
        return self.path.parent / (self.output.folder or f"{self.path.stem}.run")

    @property
    def graph(self) -> Path:
        return self.path.parent / self.output.graph if self.output.graph else self.folder / "trained.octavo"

    @property
    def bundle(self) -> Path:
        return self.path.parent / self.output.bundle if self.output.bundle else self.graph.with_suffix(".bundle")


def read_config(path: Path) -> TrainingConfig:
    """The configuration in a file.

    Raises:
        UsageError: the file cannot be read, or holds mistakes: unknown keys, values that do not fit, sources that are
            not there, passes and losses that do not exist. All are listed.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"the configuration cannot be read: {reason}", where=str(path)) from error
    reader = _Reader(path.parent)
    config = reader.config(path, document)
    reader.finish(path)
    assert config is not None
    return config


# From tables to values ---------------------------------------------------------------------------------------------

_WRONG: Any = object()
T = TypeVar("T")


class _Reader:
    """Reads values of given types and collects what is wrong with them."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.mistakes: dict[str, str] = {}

    def wrong(self, where: str, what: str) -> Any:
        self.mistakes.setdefault(where, what)
        return _WRONG

    def attempt(self, where: str, action: Callable[[], T]) -> T:
        """What ``action`` returns; what it raises becomes a mistake."""
        try:
            return action()
        except OctavoError as error:
            tail = [error.expected and f"expected {error.expected}", error.hint]
            found: T = self.wrong(where, "; ".join([error.what, *filter(None, tail)]))
            return found

    def finish(self, path: Path) -> None:
        if len(self.mistakes) == 1:
            ((where, what),) = self.mistakes.items()
            raise UsageError(f"{where}: {what}", where=str(path))
        if self.mistakes:
            lines = [f"  {where}: {what}" for where, what in self.mistakes.items()]
            raise UsageError("\n".join([f"{len(lines)} mistakes in the configuration:", *lines]), where=str(path))

    def config(self, path: Path, document: Mapping[str, Any]) -> TrainingConfig | None:
        sections = {f.name: f for f in dataclasses.fields(TrainingConfig) if f.name != "path"}
        self.unknown("", document, sections)
        hints = typing.get_type_hints(TrainingConfig)
        read: dict[str, Any] = {}
        for name in sections:
            if name == "loss":
                if "loss" in document:
                    read["loss"] = self.losses(document["loss"])
            elif name in document or name in ("model", "data"):
                read[name] = self.value(document.get(name, {}), hints[name], name)
        terms = read.get("loss") or () if read.get("loss") is not _WRONG else ()
        learning = [term for term in terms if TERMS[term].needs_teacher]
        for term in learning if "teacher" not in document else ():
            self.wrong(f"loss.{term}", "compares with a teacher, and there is no section teacher")
        if "teacher" in document and not learning:
            needing = ", ".join(name for name, term in TERMS.items() if term.needs_teacher)
            self.wrong("teacher", f"no loss compares with it; expected one of {needing}")
        wrong = any(value is _WRONG for value in read.values())
        return None if wrong else TrainingConfig(path, **read)

    def unknown(self, where: str, table: Iterable[str], known: Collection[str]) -> None:
        for key in (key for key in table if key not in known):
            close = difflib.get_close_matches(key, list(known), 1)
            hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"
            self.wrong(f"{where}.{key}" if where else key, f"no such {'key' if where else 'section'}; {hint}")

    def table(self, cls: type[Any], table: Mapping[str, Any], where: str) -> Any:
        hints = typing.get_type_hints(cls)
        known = {f.name.replace("_", "-"): f for f in dataclasses.fields(cls)}
        self.unknown(where, table, known)
        read: dict[str, Any] = {}
        for key, entry in known.items():
            if key in table:
                read[entry.name] = value = self.value(table[key], hints[entry.name], f"{where}.{key}")
                if (check := entry.metadata.get("check")) and value is not _WRONG:
                    self.attempt(f"{where}.{key}", functools.partial(check, value, self.base))
            elif entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
                read[entry.name] = self.wrong(f"{where}.{key}", "is missing")
        return _WRONG if any(v is _WRONG for v in read.values()) else self.attempt(where, lambda: cls(**read))

    def value(self, value: Any, hint: Any, where: str) -> Any:
        choices = _choices(hint)
        choice = next((choice for choice in choices if _is_kind(value, choice)), None)
        if choice is None:
            return self.wrong(where, f"{_show(value)} does not fit; expected {_describe(hint)}")
        if typing.get_origin(choice) is tuple:
            inner = typing.get_args(choice)[0]
            items = [self.value(item, inner, f"{where}[{index}]") for index, item in enumerate(value)]
            return _WRONG if any(item is _WRONG for item in items) else tuple(items)
        if dataclasses.is_dataclass(choice):
            assert isinstance(choice, type)
            return self.table(choice, {"source": value} if isinstance(value, str) else value, where)
        return float(value) if choice is float else value

    def losses(self, table: Any) -> Any:
        if not isinstance(table, dict) or not table:
            return self.wrong("loss", f"expected terms and their weights, for example {next(iter(TERMS))} = 1.0")
        self.unknown("loss", table, TERMS)
        return {name: self.term(name, entry) for name, entry in table.items() if name in TERMS}

    def term(self, name: str, entry: Any) -> LossTerm:
        where = f"loss.{name}"
        options = dict(entry) if isinstance(entry, dict) else {"weight": entry}
        weight = options.pop("weight", 1.0)
        if not (_is_kind(weight, float) and 0 < weight < math.inf):
            self.wrong(where, f"the weight is {_show(weight)}; expected a finite number above 0")
            weight = 1.0
        known = _MADE.get(name, tuple(inspect.signature(TERMS[name]).parameters))
        self.unknown(where, options, ["weight", *known])
        if "pairs" in known and not are_pairs(options.get("pairs")):
            self.wrong(f"{where}.pairs", 'expected names of values, for example [["layer1", "blocks.0"]]')
        if name not in _MADE and set(options) <= set(known):
            self.attempt(where, lambda: TERMS[name](**options))
        return LossTerm(float(weight), options)


_MADE: Mapping[str, tuple[str, ...]] = {
    "features": ("pairs",),
    "attention": ("pairs",),
    "l1": ("scales",),
    "group-lasso": (),
}
"""Options of the terms that are made from graphs, which their constructors do not tell."""


def _choices(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _is_kind(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin is Literal:
        return value in typing.get_args(hint)
    if origin is tuple:
        return isinstance(value, list)
    if hint is DataSource:
        return isinstance(value, str | dict)
    if dataclasses.is_dataclass(hint):
        return isinstance(value, dict)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _describe(hint: Any) -> str:
    choices = _choices(hint)
    names = {str: "text", float: "a number", int: "a whole number", bool: "true or false"}
    texts = [
        names.get(c)
        or ("a list" if typing.get_origin(c) is tuple else "a table" if dataclasses.is_dataclass(c) else describe(c))
        for c in choices
        if c is not types.NoneType
    ]
    return " or ".join(texts)


def _show(value: Any) -> str:
    return repr(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"
