"""The walk over an exported program: inputs, parameters, calls, outputs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from ...errors import ModelError, UnsupportedError, UnsupportedOp
from ...graph import Graph, Value
from ...op import operand_index
from ...ops.constant import Constant
from ...ops.norm import BatchNorm
from ...types import Dim, DType, TensorType
from ...verifier import verify
from .capture import Inputs, capture, is_users_file
from .context import Complex, Context, Refusal, Translation, module_path, translations
from .families.complexes import translate_complex, understands
from .folding import fold

HINT = (
    "replace the operation in the model, register a translation with octavo.ir.importers.torch.context.translate,"
    " or report it with this list"
)


def import_torch(
    model: nn.Module | ExportedProgram | Path | str,
    example_inputs: Inputs | None = None,
    *,
    dynamic_batch: bool = False,
    name: str | None = None,
    input_names: Sequence[str] | None = None,
    allow_non_finite: bool = False,
) -> Graph:
    """The network of a module, ``fx.GraphModule``, exported program or ``.pt2`` file, as octavo's float IR.

    Args:
        model: what to import. A module is captured by ``torch.export`` as it computes in eval mode, whatever mode it
            is in now; it is left as it was found.
        example_inputs: the arguments of one call (tensors or numpy arrays): a tuple in order, or a dict by name.
            Needed for modules; an exported program has its own.
        dynamic_batch: let axis 0 of every example input of rank 1 or more be the symbolic dimension ``batch``.
        name: of the graph; the module's class by default.
        input_names: instead of the names of ``forward``'s arguments.
        allow_non_finite: accept NaN and infinite weights.

    Raises:
        UnsupportedError: lists every operation that has no translation, with the modules that use it.
        ModelError: the model cannot be captured (data-dependent control flow, wrong example inputs, an unreadable
            file), or its parameters are not finite.
    """
    program = capture(model, example_inputs, dynamic_batch)
    importer = _Importer(program, name or _name_of(model), input_names, allow_non_finite)
    importer.run()
    verify(importer.graph)
    return importer.graph


def _name_of(model: object) -> str:
    if isinstance(model, str | Path):
        return Path(model).stem
    return "main" if isinstance(model, ExportedProgram) else type(model).__name__


class _Importer:
    def __init__(
        self, program: ExportedProgram, name: str, input_names: Sequence[str] | None, allow_non_finite: bool
    ) -> None:
        self.program = program
        self.graph = Graph(name)
        self.context = Context(self.graph, allow_non_finite)
        self._input_names = list(input_names) if input_names is not None else None
        self._tensors: dict[fx.Node, tuple[str, torch.Tensor, bool]] = {}
        self._held: dict[Value, str] = {}
        self._refused: dict[tuple[str, str], list[str]] = {}

    def run(self) -> None:
        self._bind_placeholders()
        table = translations()
        for node in self.program.graph.nodes:
            if node.op == "call_function":
                self._call(node, table)
        if self._refused:
            raise UnsupportedError(
                tuple(UnsupportedOp(op, tuple(where), reason) for (op, reason), where in self._refused.items()),
                hint=HINT,
            )
        self._set_outputs()
        self._drop_unused()
        self._mark_parameters()

    # Inputs

    def _bind_placeholders(self) -> None:
        nodes = [n for n in self.program.graph.nodes if n.op == "placeholder"]
        specs = self.program.graph_signature.input_specs
        users = [
            (node, spec)
            for node, spec in zip(nodes, specs, strict=True)
            if spec.kind is InputKind.USER_INPUT and isinstance(node.meta.get("val"), torch.Tensor)
        ]
        names = self._names_of_inputs([node.name for node, _ in users])
        self._name_batch([node for node, _ in users])
        for (node, _), name in zip(users, names, strict=True):
            fake = node.meta["val"]
            type = TensorType(DType.from_torch(fake.dtype), self.context.shape_of(fake))
            self.context.env[node] = self.graph.add_input(name, type)
        for node, spec in zip(nodes, specs, strict=True):
            if spec.kind is InputKind.USER_INPUT:
                self.context.env.setdefault(node, getattr(spec.arg, "value", None))
            else:
                self._bind_tensor(node, spec.kind, str(spec.target))

    def _names_of_inputs(self, names: list[str]) -> list[str]:
        if self._input_names is None:
            return names
        if len(self._input_names) != len(names) or len(set(self._input_names)) != len(names):
            raise ModelError(
                f"{len(self._input_names)} input names for the inputs {', '.join(names)}",
                expected=f"{len(names)} different names",
            )
        return self._input_names

    def _name_batch(self, nodes: Sequence[fx.Node]) -> None:
        """Call the symbol of axis 0 ``batch``, and others by input and axis."""
        for node in nodes:
            for axis, extent in enumerate(node.meta["val"].shape):
                if isinstance(extent, torch.SymInt):
                    dim = Dim("batch") if axis == 0 else Dim.named(f"{node.name}_{axis}")
                    self.context.dims.setdefault(extent.node.expr, dim)

    def _bind_tensor(self, node: fx.Node, kind: InputKind, target: str) -> None:
        program = self.program
        if kind is InputKind.CUSTOM_OBJ or kind is InputKind.TOKEN:
            return
        source: Mapping[str, Any] = program.state_dict if target in program.state_dict else program.constants
        tensor = source[target]
        assert isinstance(tensor, torch.Tensor)
        self._tensors[node] = (target, tensor, kind is InputKind.PARAMETER)

    def _read(self, node: fx.Node) -> Any:
        """The value of an fx node; parameters become constants when first read."""
        if node not in self.context.env:
            target, tensor, parameter = self._tensors[node]
            if not self.context.allow_non_finite:
                check_finite(target, tensor, parameter)
            value = self.context.constants(tensor.detach().contiguous(), name=target)
            self.context.env[node] = value
            if isinstance(value, Value):
                self._held[value] = target
        return self.context.env[node]

    # Calls

    def _call(self, node: fx.Node, table: Mapping[object, Translation]) -> None:
        self.context.enter(node)
        translation = table.get(node.target)
        refused = any(_is_refused(self.context.env.get(n)) for n in node.all_input_nodes)
        if translation is None and not understands(node.target):
            if not refused and fold(self.context, node, self._read):
                return
            self._refuse(node, "")
        elif not refused:
            try:
                self.context.env[node] = self._named(node, self._translated(node, translation))
                return
            except Refusal as refusal:
                if fold(self.context, node, self._read):
                    return
                self._refuse(node, str(refusal))
            except ModelError as error:
                error.where = error.where or self.context.origin
                raise
        self.context.env[node] = _REFUSED

    def _translated(self, node: fx.Node, translation: Translation | None) -> Any:
        args, kwargs = fx.map_arg((node.args, node.kwargs), self._read)
        takes_complex = any(isinstance(leaf, Complex) for leaf in pytree.tree_leaves((args, kwargs)))
        if takes_complex and isinstance(node.target, torch._ops.OpOverload):
            return translate_complex(self.context, node.target, args, kwargs)
        if translation is None:
            raise Refusal("of real numbers")
        return translation(self.context, *args, **kwargs)

    def _named(self, node: fx.Node, result: Any) -> Any:
        """Check a translated tensor against what torch.export foresaw: a wrong translation must not pass silently."""
        fake = node.meta.get("val")
        if isinstance(result, Value) and isinstance(fake, torch.Tensor):
            expected = TensorType(DType.from_torch(fake.dtype), self.context.shape_of(fake))
            if result.type != expected:
                raise ModelError(
                    f"{node.target} became {result.type}, torch makes {expected}",
                    where=self.context.origin,
                    hint="this is a defect of the importer; please report it",
                )
        return result

    def _refuse(self, node: fx.Node, reason: str) -> None:
        path, _ = module_path(node)
        place = path or _source_line(node) or node.name
        self._refused.setdefault((str(node.target), reason), []).append(place)

    # Outputs

    def _set_outputs(self) -> None:
        output = next(n for n in self.program.graph.nodes if n.op == "output")
        arguments = list(output.args[0])
        specs = self.program.graph_signature.output_specs
        kept: list[Any] = []
        for argument, spec in zip(arguments, specs, strict=True):
            if spec.kind is OutputKind.BUFFER_MUTATION:
                raise ModelError(
                    f"the model writes to its buffer {spec.target} while it runs",
                    where=str(spec.target),
                    hint="make the state an input and an output of forward",
                )
            if spec.kind is OutputKind.USER_OUTPUT:
                kept.append(argument)
        names = _output_names(self.program, len(kept))
        values = [
            (name, self._read(argument))
            for name, argument in zip(names, kept, strict=True)
            if isinstance(argument, fx.Node)
        ]
        for name, value in values:
            if isinstance(value, Complex):
                hint = "return torch.view_as_real of it, or .real and .imag"
                raise ModelError("the model returns complex numbers", where=name, hint=hint)
        values = [(name, value) for name, value in values if isinstance(value, Value)]
        if not values:
            raise ModelError("the model returns no tensor", hint="return the tensors that the network computes")
        self.graph.set_outputs([value for _, value in values], [name for name, _ in values])

    def _drop_unused(self) -> None:
        for node in reversed(list(self.graph.nodes)):
            if not any(v.uses or self.graph.is_output(v) for v in node.outputs):
                self.graph.erase(node)

    def _mark_parameters(self) -> None:
        """Say of tensors of the module whether they train, where :class:`Constant` would be understood otherwise.

        A module without a parameter that requires gradients was made ready for inference as a whole; then all do.
        """
        parameters = {target: tensor for target, tensor, parameter in self._tensors.values() if parameter}
        training = {target for target, tensor in parameters.items() if tensor.requires_grad} or set(parameters)
        for value, target in self._held.items():
            node = value.producer
            if node is None or node.graph is None or not value.type.dtype.is_float or _is_statistic(value):
                continue
            assert isinstance(node.op, Constant)
            if (target in training) != (value.type.size > 1):
                node.op = replace(node.op, trains=target in training)


def _is_statistic(value: Value) -> bool:
    """Whether it is one by its place: what batch normalization measures."""
    places = [operand_index(BatchNorm, name) for name in ("mean", "variance")]
    return bool(value.uses) and all(isinstance(n.op, BatchNorm) and position in places for n, position in value.uses)


_REFUSED = object()


def _is_refused(value: Any) -> bool:
    return value is _REFUSED


def _output_names(program: ExportedProgram, count: int) -> list[str]:
    """``output`` for one result; keys or positions where the model returns a dict, tuple or list."""
    spec = program.call_spec.out_spec
    if spec is None or spec.num_leaves != count:
        return [f"output_{i}" for i in range(count)]
    tree = pytree.tree_unflatten(list(range(count)), spec)
    leaves, _ = pytree.tree_flatten_with_path(tree)
    names = ["_".join(map(_key_text, path)) for path, _ in leaves]
    if names in ([""], ["0"]):
        return ["output"]
    return [f"output_{name}" if name[:1].isdigit() or not name else name for name in names]


def _key_text(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _source_line(node: fx.Node) -> str:
    """``file:line`` of the user's code in the stack trace that torch.export kept."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', node.stack_trace or "")
    own = [f"{path}:{line}" for path, line in frames if is_users_file(path)]
    return own[-1] if own else ""


def check_finite(name: str, tensor: torch.Tensor, parameter: bool) -> None:
    """Raise :class:`ModelError` for NaN, and for infinities in parameters (buffers may be masks of -inf)."""
    if not tensor.is_floating_point():
        return
    bad = ~torch.isfinite(tensor) if parameter else torch.isnan(tensor)
    if bad.any():
        index = tuple(int(i) for i in bad.nonzero()[0])
        raise ModelError(
            f"{name} holds {int(bad.sum())} value(s) that are not finite, the first {tensor[index].item()} at"
            f" {list(index)}",
            where=name,
            hint="the checkpoint is damaged or training diverged: load one with finite weights, or pass"
            " allow_non_finite (--allow-non-finite)",
        )
