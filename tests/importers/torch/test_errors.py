"""What users do wrong, and what they are told: the place in their model, and the way out."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from octavo.ir import run_graph
from octavo.ir.errors import ModelError, UnsupportedError
from octavo.ir.importers.torch import import_torch
from torch import Tensor, nn

from .cases import Call

X = (torch.ones(2, 3),)
HERE = Path(__file__).name


def branch(x: Tensor) -> Tensor:
    if x.sum() > 0:
        return x + 1
    return x - 1


def nonzero(x: Tensor) -> Tensor:
    return x[x > 0]


def to_number(x: Tensor) -> Tensor:
    return x * float(x.max())


@pytest.mark.parametrize(("function", "line"), [(branch, "if x.sum() > 0:"), (to_number, "float(x.max())")])
def test_control_flow_on_data_names_the_users_line(function: Callable[[Tensor], Tensor], line: str) -> None:
    with pytest.raises(ModelError, match="depends on the data") as caught:
        import_torch(Call(function), X)
    where = caught.value.where or ""
    assert HERE in where
    assert line in where
    assert "torch.where" in (caught.value.hint or "")


def test_results_of_unknown_size_are_unsupported() -> None:
    with pytest.raises(ModelError, match="depends on the data"):
        import_torch(Call(nonzero), X)


class Exotic(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.special.bessel_j0(x) + torch.linalg.inv(x @ x.T).sum() + torch.special.bessel_j0(x)
        return y


def test_all_unsupported_ops_are_listed_at_once() -> None:
    model = nn.Sequential(Exotic(), nn.ReLU(), Exotic())
    with pytest.raises(UnsupportedError) as caught:
        import_torch(model, X)
    ops = {op.name: op.places for op in caught.value.ops}
    assert ops["aten.special_bessel_j0.default"] == ("0", "0", "2", "2")
    assert any("linalg" in name for name in ops)
    assert "register a translation" in str(caught.value)


def test_functions_at_the_top_are_placed_by_source_line() -> None:
    with pytest.raises(UnsupportedError) as caught:
        import_torch(Exotic(), X)
    (place, _) = next(op.places for op in caught.value.ops if "bessel" in op.name)
    assert HERE in place


def test_why_a_known_op_is_refused() -> None:
    pool = nn.AdaptiveMaxPool2d(2, return_indices=True)
    with pytest.raises(UnsupportedError, match="the indices of the largest elements are used"):
        import_torch(pool, (torch.ones(1, 1, 4, 4),))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    last = nn.Linear(4, 2)
    with torch.no_grad():
        last.weight[1, 2] = value
    model = nn.Sequential(nn.Linear(3, 4), last)
    with pytest.raises(ModelError, match=r"1\.weight holds 1 value.*\[1, 2\]") as caught:
        import_torch(model, X)
    assert caught.value.where == "1.weight"


def test_weights_that_are_not_finite_may_be_allowed() -> None:
    last = nn.Linear(3, 2)
    norm = nn.BatchNorm1d(2)
    assert norm.running_mean is not None
    with torch.no_grad():
        last.weight[0, 1] = norm.running_mean[1] = float("nan")
    graph = import_torch(nn.Sequential(last, norm), X, allow_non_finite=True)
    assert np.isnan(run_graph(graph, {"input": X[0].numpy()})["output"]).all()


def test_statistics_that_are_not_finite_are_named() -> None:
    model = nn.BatchNorm1d(3)
    assert model.running_var is not None
    model.running_var[0] = float("inf")
    with pytest.raises(ModelError, match="running_var"):
        import_torch(model, X)


def test_complex_results_and_what_is_refused_of_complex_numbers() -> None:
    with pytest.raises(ModelError, match="returns complex numbers") as caught:
        import_torch(Call(torch.fft.fft), X)
    assert "view_as_real" in (caught.value.hint or "")
    with pytest.raises(UnsupportedError, match="of complex numbers"):
        import_torch(Call(lambda x: torch.fft.fft(x).tanh().abs()), X)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.full((3,), float("-inf")))

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x, self.get_buffer("mask"))


def test_a_mask_of_infinities_is_no_mistake() -> None:
    assert len(import_torch(Masked(), X)) == 2


@pytest.mark.parametrize(
    "inputs", [(torch.ones(2, 4),), (), X * 2, {"input": torch.ones(2, 4)}, {"other": torch.ones(2, 3)}]
)
def test_wrong_example_inputs(inputs: tuple[Tensor, ...]) -> None:
    with pytest.raises(ModelError, match="does not run on the example inputs") as caught:
        import_torch(nn.Linear(3, 4), inputs)
    assert "shapes and dtypes" in (caught.value.hint or "")


def test_example_inputs_are_needed() -> None:
    with pytest.raises(ModelError, match="needs example inputs"):
        import_torch(nn.ReLU())


def test_something_else_is_no_model() -> None:
    with pytest.raises(ModelError, match="cannot import a dict"):
        import_torch({"weight": torch.ones(1)})  # type: ignore[arg-type]


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.get_buffer("calls").add_(1)
        return x + self.get_buffer("calls")


def test_state_that_changes_is_refused() -> None:
    with pytest.raises(ModelError, match="writes to its buffer calls"):
        import_torch(Counting(), X)


def test_a_program_exported_for_training_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train()
    with pytest.raises(ModelError, match="training mode") as caught:
        import_torch(torch.export.export(model, X))
    assert "model.eval()" in (caught.value.hint or "")


def test_nothing_returned() -> None:
    with pytest.raises(ModelError, match="returns no tensor"):
        import_torch(Call(lambda x: None), X)


# Files -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(nn.Linear(3, 2).eval(), X), path)
    return path


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        import_torch(tmp_path / "model.pt2")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin"])
def test_pickles_are_not_loaded(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    torch.save(nn.Linear(3, 2), path)
    with pytest.raises(ModelError, match="pickles") as caught:
        import_torch(path)
    assert "torch.export.save" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:2000] + b"?" * 400 + b[2400:]]
)
def test_damaged_archives(archive: Path, damage: Callable[[bytes], bytes]) -> None:
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(ModelError, match="not a readable exported program"):
        import_torch(archive)


class Intruder:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


def test_no_code_hides_in_an_archive(archive: Path, tmp_path: Path) -> None:
    trap, target = io.BytesIO(), tmp_path / "evil.pt2"
    torch.save(Intruder(tmp_path / "trapped"), trap)
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            copy.writestr(name, trap.getvalue() if name.endswith("sample_inputs/model.pt") else source.read(name))
    with pytest.raises(ModelError, match="runs code"):
        import_torch(target)
    assert not (tmp_path / "trapped").exists()


def test_objects_in_an_archive_are_refused(archive: Path) -> None:
    with zipfile.ZipFile(archive, "a") as copy:
        copy.writestr("model/data/constants/opaque_obj_0", b"")
    with pytest.raises(ModelError, match="carries Python objects"):
        import_torch(archive)
