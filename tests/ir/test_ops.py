"""The registry's contract: each op is documented, frozen, prints and parses, and infers what it computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from octavo.ir import ExactOp, Graph, Op, Tensor, TensorType, all_ops, parse_graph, print_graph, verify
from octavo.ir.constants import from_tensors
from octavo.ir.errors import ModelError, OctavoError
from octavo.ir.interpreter import run_op, to_numpy, to_torch
from octavo.ir.op import arity, attribute_types, find_op
from octavo.ir.ops.constant import Constant
from octavo.ir.ops.conv import Conv
from octavo.ir.ops.integer.products import integer_conv, integer_matmul
from octavo.ir.types import Dim
from support.op_samples import SAMPLES, Sample

OPS = list(all_ops())


def single(sample: Sample) -> Graph:
    """A graph of just this op."""
    graph = Graph()
    inputs = [graph.add_input(f"in{i}", type) for i, type in enumerate(sample.types)]
    graph.set_outputs(graph.insert(sample.op, inputs, origin="here").outputs)
    return graph


def outputs(sample: Sample, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [to_numpy(t) for t in run_op(sample.op, sample.types, list(map(to_torch, arrays)))]


def test_every_op_has_a_sample() -> None:
    assert {cls.name for cls in OPS} == {sample.op.name for sample in SAMPLES}, "add one to tests/support/op_samples.py"


@pytest.mark.parametrize("cls", OPS, ids=lambda cls: cls.name)
def test_an_op_class_is_documented_frozen_and_plain(cls: type[Op]) -> None:
    assert cls.__doc__
    assert not cls.__doc__.startswith(f"{cls.__name__}("), "the docstring is the one that dataclass makes"
    parameters = cls.__dataclass_params__  # type: ignore[attr-defined]
    assert parameters.frozen
    assert find_op(cls.name) is cls
    assert attribute_types(cls).keys() == {f.name for f in dataclasses.fields(cls)}
    assert all(name.rstrip("?*").isidentifier() for name in cls.operands)
    assert issubclass(cls, ExactOp) or cls.run is not Op.run, "an op has a float meaning or an exact one"


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_an_op_infers_what_it_computes(sample: Sample) -> None:
    inferred = sample.op.infer(*sample.types)
    computed = outputs(sample, sample.arrays())
    assert [(a.shape, a.dtype) for a in computed] == [(t.static_shape, t.dtype.numpy) for t in inferred]


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_an_op_prints_and_parses(sample: Sample) -> None:
    graph = single(sample)
    verify(graph)
    text = print_graph(graph)
    parsed = parse_graph(text, from_tensors(graph.constants() | tensors_of(sample.op)))
    assert print_graph(parsed) == text
    assert [n.op for n in parsed.nodes] == [sample.op]
    assert hash(sample.op) == hash(next(parsed.nodes).op)
    verify(parsed)


def tensors_of(op: Op) -> dict[str, Tensor]:
    values = [getattr(op, field.name) for field in dataclasses.fields(op)]
    return {value.digest: value for value in values if isinstance(value, Tensor)}


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_an_op_answers_the_same_twice_and_keeps_its_operands(sample: Sample) -> None:
    arrays = sample.arrays(1)
    kept = [array.copy() for array in arrays]
    first, second = outputs(sample, arrays), outputs(sample, arrays)
    for a, b in zip(first, second, strict=True):
        assert a.tobytes() == b.tobytes()
    for a, b in zip(arrays, kept, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_an_op_knows_its_cost(sample: Sample) -> None:
    cost = sample.op.cost(sample.types, sample.op.infer(*sample.types))
    assert cost.macs >= 0
    assert cost.elementwise >= 0
    assert cost.macs + cost.elementwise > 0 or isinstance(sample.op, Constant)


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_a_wrong_number_of_operands_is_refused(sample: Sample) -> None:
    accepted = arity(type(sample.op))
    assert accepted.admits(len(sample.types))
    if accepted.most is None:
        return
    graph = Graph()
    values = [graph.add_input("x", TensorType(t.dtype, t.shape, t.quant)) for t in sample.types]
    extra = graph.add_input("extra", TensorType(SAMPLES[0].types[0].dtype, (1,)))
    with pytest.raises(ModelError, match="operands, not"):
        graph.insert(sample.op, [*values, *[extra] * (accepted.most - len(values) + 1)])


FLOATS = [s for s in SAMPLES if not isinstance(s.op, ExactOp) and s.types and s.types[0].dtype.value == "f32"]
UNDIFFERENTIABLE = {
    "equal", "greater", "greater_equal", "less", "less_equal", "isnan", "isinf", "argmax", "argmin",
    "max_pool_indices",
}  # fmt: skip


@pytest.mark.parametrize("sample", FLOATS, ids=str)
def test_float_ops_let_gradients_through(sample: Sample) -> None:
    if sample.op.name in UNDIFFERENTIABLE:
        return
    inputs = [to_torch(a) for a in sample.arrays()]
    inputs[0].requires_grad_()
    results = run_op(sample.op, sample.types, inputs)
    total = sum((r.sum() for r in results if r.is_floating_point()), start=torch.zeros(()))
    assert total.requires_grad


BATCHED = ("conv", "conv_transpose", "linear", "max_pool", "avg_pool", "batch_norm", "softmax", "relu", "layer_norm")


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.op.name in BATCHED], ids=str)
def test_an_unknown_batch_passes_through(sample: Sample) -> None:
    def opened(type: TensorType) -> TensorType:
        return type.with_shape((Dim("n"), *type.shape[1:]))

    # The residual of a convolution or linear layer has the batch of its output.
    types = [opened(t) if i in (0, 3) and len(sample.types) != 5 else t for i, t in enumerate(sample.types)]
    types[0] = opened(sample.types[0])
    (inferred,) = sample.op.infer(*types)
    (fixed,) = sample.op.infer(*sample.types)
    assert inferred.shape == (Dim("n"), *fixed.shape[1:])


def test_an_unknown_op_is_close_to_a_known_one() -> None:
    with pytest.raises(OctavoError, match="no op is named convv") as caught:
        find_op("convv")
    assert "conv" in (caught.value.hint or "")


def test_products_with_the_lowest_int8_are_exact() -> None:
    """-128 has no magnitude in int8: taken for less than it is, sums would lose bits in float32."""
    weight = np.where(np.arange(1200) % 2, -128, 127).astype(np.int8)
    x = np.where(weight < 0, -255, 255)
    x[0] = 254
    expected = int(np.sum(x * weight.astype(np.int64)))
    assert integer_matmul(x[None], weight[:, None]).item() == expected
    convolved = integer_conv(x[None, :, None], weight[None, :, None], Conv((1,), ((0, 0),), (1,)))
    assert convolved.item() == expected
