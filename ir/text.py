"""The text form: a graph prints, and what prints parses back to an equal graph.

::

    octavo.graph 1
    #q0 = quant(axis=0, scale=[0.01, 0.02], zero_point=0)
    graph @name(%x: f32[?Nx3x8x8]) -> ("logits": %y) {
      %w: f32[8x3x3x3] = constant{data=sha256:9f86d081884c7d65...}() @"conv1"
      %y: f32[?Nx8x8x8] = conv{stride=(1, 1)}(%x, %w) @"conv1" !quantized("weighted", "static int8")
    }

Attributes are Python literals. Constants of up to 64 elements stand inline; larger ones are named by digest and come
from a :class:`~octavo.ir.constants.ConstantSource`. Per-tensor quantization is printed in the type, ``i8[4]<0.5:-3>``;
per-channel parameters are named once at the top.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import itertools
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .constants import (
    INLINE_LIMIT,
    ConstantSource,
    Tensor,
    from_tensors,
    map_constants,
    no_constants,
    save_constants,
)
from .errors import OctavoError, ParseError
from .graph import Decision, Graph, Node, Precision, Value
from .op import Op, attribute_types, find_op, is_dtype_field
from .types import Dim, DType, QuantParams, TensorType, format_shape, per_channel, per_tensor

VERSION = 1
HEADER = "octavo.graph"


class _QuantNames:
    """Names for per-channel parameters, in order of first use."""

    def __init__(self) -> None:
        self.names: dict[QuantParams, str] = {}

    def __call__(self, params: QuantParams) -> str:
        if params.axis is None:
            return f"<{_float32(params.scale[0])}:{params.zero_point[0]}>"
        return f"<{self.names.setdefault(params, f'#q{len(self.names)}')}>"


def _float32(value: float) -> str:
    """The shortest text that reads back as the same float32."""
    return str(np.float32(value))


def format_type(type: TensorType, quant_names: _QuantNames | None = None) -> str:
    """A type as text, e.g. ``i8[1x8]<0.5:-3>``."""
    quant = (quant_names or _short_quant)(type.quant) if type.quant else ""
    return f"{type.dtype.value}{format_shape(type.shape)}{quant}"


def _short_quant(params: QuantParams) -> str:
    return _QuantNames()(params) if params.axis is None else f"<per-channel axis={params.axis}>"


# Printing ----------------------------------------------------------------------------------------------------------


def print_graph(graph: Graph) -> str:
    """The text form of a graph, with a trailing newline."""
    quant = _QuantNames()
    body = [f"  {_print_node(node, quant)}" for node in graph.nodes]
    inputs = ", ".join(f"%{v.name}: {format_type(v.type, quant)}" for v in graph.inputs)
    pairs = zip(graph.output_names, graph.outputs, strict=True)
    outputs = ", ".join(f"{json.dumps(name)}: %{v.name}" for name, v in pairs)
    table = [_print_quant(name, params) for params, name in quant.names.items()]
    head = f"graph @{json.dumps(graph.name)}({inputs}) -> ({outputs}) {{"
    return "\n".join([f"{HEADER} {VERSION}", *table, head, *body, "}"]) + "\n"


def _print_quant(name: str, params: QuantParams) -> str:
    scale = ", ".join(map(_float32, params.scale))
    zero = "0" if params.symmetric else str(list(params.zero_point))
    return f"{name} = quant(axis={params.axis}, scale=[{scale}], zero_point={zero})"


def _print_node(node: Node, quant: _QuantNames) -> str:
    results = ", ".join(f"%{v.name}: {format_type(v.type, quant)}" for v in node.outputs)
    operands = ", ".join(f"%{v.name}" for v in node.inputs)
    text = f"{results} = {print_op(node.op, quant)}({operands})"
    if node.origin:
        text += f" @{json.dumps(node.origin)}"
    if node.decision:
        d = node.decision
        text += f" !{d.precision.value}({json.dumps(d.rule)}, {json.dumps(d.reason)})"
    return text


def print_op(op: Op, quant: _QuantNames | None = None) -> str:
    """An op and the attributes that differ from their defaults, e.g. ``conv{stride=(2, 2)}``."""
    names = quant or _QuantNames()
    fields = [f for f in dataclasses.fields(op) if getattr(op, f.name) != f.default]
    attributes = ", ".join(f"{f.name}={_print_attribute(getattr(op, f.name), names)}" for f in fields)
    return f"{op.name}{{{attributes}}}" if attributes else op.name


def _print_attribute(value: object, quant: _QuantNames) -> str:
    match value:
        case Tensor():
            return _print_tensor(value)
        case QuantParams():
            return f'"{quant(value)}"'
        case DType():
            return f'"{value.value}"'
        case enum.Enum():
            return json.dumps(value.value)
        case Dim():
            return f'"{value}"'
        case tuple():
            items = ", ".join(_print_attribute(item, quant) for item in value)
            return f"({items},)" if len(value) == 1 else f"({items})"
        case str():
            return json.dumps(value)
        case float():
            return _print_float(value)
        case _:
            return repr(value)


def _print_float(value: float) -> str:
    if math.isnan(value):
        return '"nan"'
    if value in (float("inf"), float("-inf")):
        return f'"{value}"'
    return repr(value)


def _print_tensor(tensor: Tensor) -> str:
    if tensor.size > INLINE_LIMIT:
        return f"sha256:{tensor.digest}"
    array = tensor.numpy()
    if tensor.dtype.is_float:
        # float64 repr holds every narrower float exactly; inf and nan travel as strings.
        flat = ", ".join(_print_float(float(x)) for x in array.astype(np.float64).ravel())
    else:
        flat = ", ".join(str(x.item()) for x in array.ravel())
    return f'dense("{tensor.dtype.value}{format_shape(tensor.shape)}", [{flat}])'


# Parsing -----------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<digest>sha256:[0-9a-f]+)
      | (?P<value>%[A-Za-z_][A-Za-z0-9_.]*)
      | (?P<quantref>\#q\d+)
      | (?P<type>(?:f64|f32|f16|bf16|i64|i32|i16|i8|u64|u32|u16|u8|bool)\[[^\]]*\])
      | (?P<number>[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+|inf|nan)(?![A-Za-z_]))
      | (?P<word>[A-Za-z_][A-Za-z0-9_.\-]*)
      | (?P<arrow>->)
      | (?P<punct>[(){}\[\],:=@!<>])""",
    re.VERBOSE,
)


@dataclasses.dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int


def _tokenize(text: str) -> Iterator[_Token]:
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ParseError(f"unexpected {text[position : position + 20]!r}", where=f"line {line}")
        if match.lastgroup != "space":
            yield _Token(str(match.lastgroup), match.group(), line)
        line += match.group().count("\n")
        position = match.end()


def parse_graph(text: str, constants: ConstantSource = no_constants) -> Graph:
    """The graph that ``text`` prints.

    Raises:
        ParseError: with the line, for anything that is not such a text; for a newer version too.
    """
    parser = _Parser(text, constants)
    try:
        return parser.graph()
    except OctavoError as error:
        if isinstance(error, ParseError) and error.where:
            raise
        raise ParseError(error.what, where=parser.where, expected=error.expected, hint=error.hint) from error
    except (ValueError, TypeError, ArithmeticError, AttributeError, RecursionError) as error:
        raise ParseError(f"malformed text: {error}", where=parser.where) from error


class _Parser:
    def __init__(self, text: str, constants: ConstantSource) -> None:
        self._tokens = itertools.chain(_tokenize(text), [_Token("end", "end of text", text.count("\n") + 1)])
        self._token = self._last = next(self._tokens)
        self._constants = constants
        self._quants: dict[str, QuantParams] = {}
        self._values: dict[str, Value] = {}

    # Tokens

    def _advance(self) -> _Token:
        self._last = self._token
        self._token = next(self._tokens, self._token)
        return self._last

    @property
    def where(self) -> str:
        """The line that was read last."""
        return f"line {self._last.line}"

    def _expect(self, text: str) -> None:
        if self._advance_if(text) is None:
            raise self._unexpected(text)

    def _advance_if(self, text: str) -> _Token | None:
        return self._advance() if self._token.text == text else None

    def _kind(self, kind: str) -> str:
        if self._token.kind != kind:
            raise self._unexpected(f"a {kind}")
        return self._advance().text

    def _error(self, what: str, expected: str | None = None) -> ParseError:
        return ParseError(what, where=self.where, expected=expected)

    def _unexpected(self, expected: str) -> ParseError:
        return ParseError(f"found {self._token.text!r}", where=f"line {self._token.line}", expected=expected)

    # Grammar

    def graph(self) -> Graph:
        self._expect(HEADER)
        version = int(self._kind("number"))
        if version > VERSION:
            raise self._error(f"text form version {version} is newer than this octavo", f"at most {VERSION}")
        while self._token.kind == "quantref":
            self._quant_definition()
        self._expect("graph")
        self._expect("@")
        graph = Graph(json.loads(self._kind("string")))
        self._inputs(graph)
        outputs = self._output_list()
        self._expect("{")
        while not self._advance_if("}"):
            self._node(graph)
        if self._token.kind != "end":
            raise self._unexpected("end of text after the graph")
        graph.set_outputs([self._lookup(v) for _, v in outputs], [name for name, _ in outputs])
        return graph

    def _quant_definition(self) -> None:
        name = self._kind("quantref")
        for text in ("=", "quant", "(", "axis", "="):
            self._expect(text)
        axis = int(self._kind("number"))
        for text in (",", "scale", "="):
            self._expect(text)
        scale = self._literal()
        for text in (",", "zero_point", "="):
            self._expect(text)
        zero = self._literal()
        self._expect(")")
        if not isinstance(scale, list) or not isinstance(zero, int | list):
            raise self._error("malformed quantization parameters")
        self._quants[name] = per_channel(scale, None if isinstance(zero, int) else zero, axis)

    def _inputs(self, graph: Graph) -> None:
        self._expect("(")
        while not self._advance_if(")"):
            name, type = self._typed_value()
            self._values[name] = graph.add_input(name, type)
            self._advance_if(",")

    def _output_list(self) -> list[tuple[str, str]]:
        self._expect("->")
        self._expect("(")
        outputs: list[tuple[str, str]] = []
        while not self._advance_if(")"):
            name = json.loads(self._kind("string"))
            self._expect(":")
            outputs.append((name, self._kind("value")[1:]))
            self._advance_if(",")
        return outputs

    def _typed_value(self) -> tuple[str, TensorType]:
        name = self._kind("value")[1:]
        self._expect(":")
        return name, self._type()

    def _type(self) -> TensorType:
        base = parse_type(self._kind("type"))
        if not self._advance_if("<"):
            return base
        if self._token.kind == "quantref":
            quant = self._quant_reference(self._advance().text)
        else:
            scale = float(self._kind("number"))
            self._expect(":")
            quant = per_tensor(scale, int(self._kind("number")))
        self._expect(">")
        return base.with_quant(quant)

    def _quant_reference(self, name: str) -> QuantParams:
        if name not in self._quants:
            raise self._error(f"{name} is not defined")
        return self._quants[name]

    def _node(self, graph: Graph) -> None:
        results = [self._typed_value()]
        while self._advance_if(","):
            results.append(self._typed_value())
        self._expect("=")
        op = self._op()
        operands = self._operands()
        origin = json.loads(self._kind("string")) if self._advance_if("@") else ""
        names, types = [name for name, _ in results], [type for _, type in results]
        try:
            node = graph.insert(op, operands, origin=origin, names=names, types=types)
        except OctavoError as error:
            raise self._error(error.what, error.expected) from error
        node.decision = self._decision()
        for name, value in zip(names, node.outputs, strict=True):
            if name != value.name:
                raise self._error(f"%{name} is defined twice")
            self._values[name] = value

    def _op(self) -> Op:
        cls = find_op(self._kind("word"))
        attributes: dict[str, object] = {}
        if self._advance_if("{"):
            while not self._advance_if("}"):
                name = self._kind("word")
                self._expect("=")
                attributes[name] = self._attribute(cls, name)
                self._advance_if(",")
        try:
            return cls(**attributes)
        except (TypeError, OctavoError) as error:
            raise self._error(f"{cls.name}: {error}") from error

    def _operands(self) -> list[Value]:
        self._expect("(")
        operands: list[Value] = []
        while not self._advance_if(")"):
            operands.append(self._lookup(self._kind("value")[1:]))
            self._advance_if(",")
        return operands

    def _lookup(self, name: str) -> Value:
        if name not in self._values:
            raise self._error(f"%{name} is not defined")
        return self._values[name]

    def _decision(self) -> Decision | None:
        if not self._advance_if("!"):
            return None
        precision = Precision(self._kind("word"))
        self._expect("(")
        rule = json.loads(self._kind("string"))
        self._expect(",")
        reason = json.loads(self._kind("string"))
        self._expect(")")
        return Decision(precision, rule, reason)

    def _attribute(self, cls: type[Op], name: str) -> object:
        annotation = attribute_types(cls).get(name)
        if annotation is None:
            raise self._error(f"{cls.name} has no attribute {name}", ", ".join(attribute_types(cls)) or "none")
        if self._token.kind == "digest":
            return self._constants(self._advance().text.removeprefix("sha256:"))
        if self._advance_if("dense"):
            return self._dense()
        return self._coerce(self._literal(), annotation)

    def _dense(self) -> Tensor:
        self._expect("(")
        type = parse_type(json.loads(self._kind("string")))
        self._expect(",")
        items = self._literal()
        self._expect(")")
        if not isinstance(items, list):
            raise self._error("malformed constant", "a list")
        numbers = [float(x) if isinstance(x, str) else x for x in items]
        return Tensor.of(np.array(numbers, type.dtype.numpy).reshape(type.static_shape))

    def _coerce(self, literal: object, annotation: object) -> object:
        """A literal as the field's type: enums, dtypes, dimensions and non-finite floats travel as strings."""
        if isinstance(literal, tuple):
            return tuple(self._coerce(item, annotation) for item in literal)
        if not isinstance(literal, str):
            return literal
        if is_dtype_field(annotation):
            return DType(literal)
        if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            return annotation(literal)
        if "QuantParams" in str(annotation):
            return self._quant_text(literal)
        if literal.startswith("?") and "Dim" in str(annotation):
            return Dim.parse(literal)
        if literal in ("inf", "-inf", "nan") and "float" in str(annotation):
            return float(literal)
        return literal

    def _quant_text(self, text: str) -> QuantParams:
        inner = text[1:-1]
        if inner.startswith("#"):
            return self._quant_reference(inner)
        scale, zero = inner.split(":")
        return per_tensor(float(scale), int(zero))

    def _literal(self) -> object:
        """A Python literal spelled in tokens."""
        pieces: list[str] = []
        depth, start = 0, self._token.line
        while depth or self._token.text not in (",", "}", ")"):
            token = self._advance()
            if token.kind == "end":
                raise ParseError("the text ends inside an attribute", where=f"line {start}")
            depth += (token.text in "([") - (token.text in ")]") if token.kind == "punct" else 0
            pieces.append(token.text)
        try:
            return ast.literal_eval(" ".join(pieces))
        except (ValueError, SyntaxError) as error:
            raise self._error(f"{' '.join(pieces)!r} is not a literal") from error


def parse_type(text: str) -> TensorType:
    """A type without quantization, e.g. ``f32[?Nx3]``."""
    match = re.fullmatch(r"(\w+)\[([^\]]*)\]", text)
    if match is None or match[1] not in {d.value for d in DType}:
        raise ParseError(f"{text!r} is not a type", expected="for example f32[1x3x224x224]")
    dims = re.split(r"x(?=[\d?])", match[2]) if match[2] else []
    return TensorType(DType(match[1]), tuple(Dim.parse(d) if d.startswith("?") else int(d) for d in dims))


# Files -------------------------------------------------------------------------------------------------------------


def save_graph(graph: Graph, path: Path) -> None:
    """Write ``path`` (text) and, beside it, the constants that the text names by digest."""
    large = {digest: t for digest, t in graph.constants().items() if t.size > INLINE_LIMIT}
    if large:
        save_constants(large, path.with_suffix(".safetensors"))
    path.write_text(print_graph(graph), encoding="utf-8")
    if large:
        # safetensors keeps its files to their owner; the two belong together.
        path.with_suffix(".safetensors").chmod(path.stat().st_mode & 0o777)


def load_graph(path: Path) -> Graph:
    """Read what :func:`save_graph` wrote; constants are mapped when first used."""
    data = path.with_suffix(".safetensors")
    source = map_constants(data) if data.exists() else from_tensors({})
    try:
        return parse_graph(path.read_text(encoding="utf-8"), source)
    except ParseError as error:
        error.where = f"{path}, {error.where}" if error.where else str(path)
        raise
