"""Options that list names of layers: a pattern that fits none is a mistake, and close names are told."""

from __future__ import annotations

from collections import OrderedDict

import octavo
import pytest
import torch
from octavo.ir import Graph
from octavo.ir.errors import UsageError
from octavo.passes import PassContext, Pipeline
from octavo.passes.training.sparsity import GradualSparsity
from torch import nn


def network() -> Graph:
    torch.manual_seed(0)
    layers: dict[str, nn.Module] = {"stem": nn.Linear(8, 16), "act": nn.ReLU(), "head": nn.Linear(16, 4)}
    return octavo.trace(nn.Sequential(OrderedDict(layers)).eval(), (torch.zeros(2, 8),))


CONTEXT = PassContext(calibration=[{"input": torch.zeros(2, 8).numpy()}])
OPTIONS = {
    "prune-channels: keep": "prune-channels{{ratio=0.1,keep=[{names}]}}",
    "keep": "sparsify{{ratio=0.1,keep=[{names}]}}",
    "share-weights: keep": "share-weights{{bits=1,keep=[{names}]}}",
    "observe: keep-float": "observe{{keep-float=[{names}]}}",
    "quantize: keep-int8": "observe{{method=minmax}},calibrate,quantize{{weight-bits=4,keep-int8=[{names}]}}",
}


@pytest.mark.parametrize("option", OPTIONS)
def test_a_pattern_that_fits_no_layer_is_refused(option: str) -> None:
    for names, wrong, close in (("head;stemm", "stemm", "did you mean stem"), ("laast*", "laast*", "stem, act, head")):
        with pytest.raises(UsageError) as error:
            Pipeline.parse(OPTIONS[option].format(names=names)).run(network(), CONTEXT)
        assert f"{option}: no layer is named '{wrong}'" in str(error.value)
        assert close in str(error.value)


@pytest.mark.parametrize("option", OPTIONS)
def test_names_patterns_and_kinds_of_ops_are_taken(option: str) -> None:
    for names in ("head", "he*", "op:layer_norm"):
        Pipeline.parse(OPTIONS[option].format(names=names)).run(network(), CONTEXT)
    with pytest.raises(UsageError, match="did you mean op:layer_norm"):
        Pipeline.parse(OPTIONS[option].format(names="op:layernorm")).run(network(), CONTEXT)


def test_a_schedule_of_zeros_names_layers_too() -> None:
    module = octavo.to_torch(network(), keep_zeros=True)
    with pytest.raises(UsageError, match="no layer is named 'haed'"):
        GradualSparsity(0.5, keep=("haed",)).apply(module, 0, 1)
