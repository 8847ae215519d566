"""A pipeline: a list of passes with a text form that parses back.

::

    fold-batchnorm,fuse,observe{method=percentile},calibrate{batches=32},quantize{weights=per-channel}

Options are fields of the pass in kebab case; lists are spelled ``[a;b]``. The name of a pipeline in
:data:`NAMED` may stand wherever a pass may.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..ir.errors import ParseError, UsageError
from ..ir.graph import Graph
from .base import Pass, PassContext
from .observers import PipelineObserver, Verify
from .options import format_value, options_of, parse_value, split_outside
from .registry import find_pass

NAMED: dict[str, str] = {
    "simplify": "canonicalize,fold-constants,eliminate-common,eliminate-dead",
    "prepare": "simplify,fold-batchnorm,fuse,flatten-volumes,simplify",
    "finish": "tabulate,decompose,eliminate-common,eliminate-dead",
    "int8": (
        "narrow-floats,fold-qdq,fold-dynamic,split-recurrent,prepare,compose,"
        "observe{method=mse|minmax|percentile:99.99,keep-float=[op:layer_norm]},calibrate,quantize,lower-integer,finish"
    ),
    "default": "int8",
}
"""Pipelines that have a name; they may contain each other.

``int8`` tries three ways to choose ranges and takes the one that disturbs the outputs least: on the trained networks of
the test zoo each of them is the best for some, by up to 16 dB. Layer norms, and the sums that they read, stay in float:
a few channels of a residual stream are a hundred times larger than the rest, and one int8 grid cannot hold both.
"""


@dataclass(frozen=True)
class Pipeline:
    """Passes to run one after another."""

    passes: tuple[Pass, ...]

    def __post_init__(self) -> None:
        late = next((p for p in self.passes[len(self._entrance) :] if p.interface), None)
        if late is not None:
            what = f"{late.name} stands behind {self.passes[len(self._entrance)].name}"
            raise UsageError(what, expected=f"{late.name} first: it changes what the network takes")

    @property
    def _entrance(self) -> tuple[Pass, ...]:
        """The first passes, as far as they change what the network takes."""
        return tuple(itertools.takewhile(lambda p: p.interface, self.passes))

    def entered(self, graph: Graph) -> Graph:
        """The graph as the first passes leave it that change what it takes: a copy, if there are any."""
        if not self._entrance:
            return graph
        copy = graph.clone()
        Pipeline(self._entrance).run(copy)
        return copy

    @classmethod
    def parse(cls, text: str) -> Pipeline:
        """The pipeline that ``text`` spells.

        Raises:
            ParseError: with the place in the text, and the options a pass has.
            UsageError: no pass or pipeline has that name.
        """
        return cls(tuple(_parse_passes(text)))

    def __str__(self) -> str:
        return ",".join(map(format_pass, self.passes))

    def run(
        self,
        graph: Graph,
        context: PassContext | None = None,
        observers: Sequence[PipelineObserver] = (),
        *,
        verify: bool = True,
    ) -> bool:
        """Run every pass on ``graph``, in place; return whether any changed it.

        ``observers`` see the graph before and after each pass, after the verifier unless ``verify`` is off.
        """
        context = context or PassContext()
        watching = [*([Verify()] if verify else []), *observers]
        changed = [_run_pass(p, graph, context, watching) for p in self.passes]
        for observer in watching:
            observer.finish(graph)
        return any(changed)


def _run_pass(pass_: Pass, graph: Graph, context: PassContext, observers: Sequence[PipelineObserver]) -> bool:
    for observer in observers:
        observer.before(pass_, graph)
    start = time.perf_counter()
    changed = pass_.apply(graph, context)
    seconds = time.perf_counter() - start
    for observer in observers:
        observer.after(pass_, graph, changed, seconds)
    return changed


def format_pass(pass_: Pass) -> str:
    """A pass and the options that differ from their defaults."""
    given = [
        f"{option.spelling}={format_value(getattr(pass_, option.field))}"
        for option in options_of(type(pass_)).values()
        if option.required or getattr(pass_, option.field) != option.default
    ]
    return f"{pass_.name}{{{','.join(given)}}}" if given else pass_.name


# Parsing -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Piece:
    """A part of the text that remembers where it stands."""

    text: str
    start: int
    whole: str

    def split(self, separator: str) -> Iterator[_Piece]:
        start = self.start
        for piece in split_outside(self.text, separator):
            yield _Piece(piece, start, self.whole).strip()
            start += len(piece) + 1

    def strip(self) -> _Piece:
        leading = len(self.text) - len(self.text.lstrip())
        return _Piece(self.text.strip(), self.start + leading, self.whole)

    def part(self, start: int, stop: int | None = None) -> _Piece:
        return _Piece(self.text[start:stop], self.start + start, self.whole)

    @property
    def where(self) -> str:
        return f"character {self.start + 1} of the pipeline: {self.whole[self.start :][:40]}"


def _parse_passes(text: str, within: tuple[str, ...] = ()) -> Iterator[Pass]:
    if not text.strip():
        return
    for piece in _Piece(text, 0, text).split(","):
        if piece.text in NAMED and piece.text not in within:
            yield from _parse_passes(NAMED[piece.text], (*within, piece.text))
        else:
            yield _parse_pass(piece)


def _parse_pass(piece: _Piece) -> Pass:
    name, brace, _ = piece.text.partition("{")
    if brace and not piece.text.endswith("}"):
        raise ParseError("a { without its }", where=piece.where)
    if not name.strip():
        raise ParseError("a pass has no name", where=piece.where, expected="for example fuse,quantize")
    try:
        cls = find_pass(name.strip())
    except UsageError as error:
        if name.strip() in NAMED:
            what = f"{name.strip()} is a pipeline, and takes no options"
            raise ParseError(what, where=piece.where, expected=NAMED[name.strip()]) from error
        error.hint = error.hint or _close(name, NAMED)
        error.where = error.where or piece.where
        raise
    body = piece.part(len(name) + 1, -1) if brace else None
    return _construct(cls, _parse_options(cls, body) if body and body.text.strip() else {}, piece)


def _parse_options(cls: type[Pass], body: _Piece) -> dict[str, Any]:
    known = options_of(cls)
    values: dict[str, Any] = {}
    for piece in body.split(","):
        name, equals, _ = piece.text.partition("=")
        option = known.get(name.strip())
        if option is None:
            what = f"pass {cls.name} has no option {name.strip()!r}"
            raise ParseError(what, where=piece.where, expected=_list_options(cls), hint=_close(name, known))
        if not equals:
            raise ParseError(f"{name} has no value", where=piece.where, expected=f"{name.strip()}=... ({option})")
        value = piece.part(len(name) + 1).strip()
        try:
            values[option.field] = parse_value(value.text, option.annotation)
        except ParseError as error:
            what = f"option {name} of {cls.name}: {error.what}"
            raise ParseError(what, where=value.where, expected=str(option)) from error
    return values


def _construct(cls: type[Pass], values: dict[str, Any], piece: _Piece) -> Pass:
    missing = [o.spelling for o in options_of(cls).values() if o.required and o.field not in values]
    if missing:
        raise ParseError(f"pass {cls.name} needs {', '.join(missing)}", where=piece.where, expected=_list_options(cls))
    try:
        return cls(**values)
    except UsageError as error:
        error.where = error.where or piece.where
        raise


def _list_options(cls: type[Pass]) -> str:
    return ", ".join(map(str, options_of(cls).values())) or f"no options: {cls.name} has none"


def _close(name: str, known: Any) -> str | None:
    close = difflib.get_close_matches(name.strip(), list(known), 1)
    return f"did you mean {close[0]}?" if close else None


def with_options(pass_: Pass, **options: Any) -> Pass:
    """The same pass with some fields changed."""
    return dataclasses.replace(pass_, **options)
