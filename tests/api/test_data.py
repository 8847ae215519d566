"""Calibration data: what becomes a batch, and what is refused with the file's name."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator, Sized
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from octavo.backends.data import open_data
from octavo.backends.preprocess import Preprocess
from octavo.ir.errors import CalibrationError
from octavo.ir.types import Dim, DType, TensorType, f32
from PIL import Image

ONE = {"x": f32(1, 3, 4, 4)}
FOUR = {"x": f32(4, 3, 4, 4)}
TWO = {"ids": TensorType(DType.I64, (1, 8)), "mask": f32(1, 8)}
ANY = {"x": f32(Dim("batch"), 3, 4, 4)}


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def shapes(source: Any, inputs: dict[str, TensorType], **options: Any) -> list[tuple[int, ...]]:
    data = open_data(source, inputs, **options)
    first = [batch["x"].shape for batch in data]
    assert not isinstance(data, Sized) or len(data) == len(first)
    assert [batch["x"].shape for batch in data] == first, "a second reading gives the same"
    return first


def save(path: Path, **arrays: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, allow_pickle=True, **arrays)
    return path


# What becomes a batch ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "shape", "batches"),
    [
        (ONE, (5, 3, 4, 4), 5),
        (ONE, (5, 1, 3, 4, 4), 5),
        (FOUR, (9, 3, 4, 4), 2),
        (FOUR, (2, 4, 3, 4, 4), 2),
        (ANY, (5, 3, 4, 4), 5),
        (ONE, (3, 4, 4), 1),
    ],
)
def test_an_array_becomes_batches(
    tmp_path: Path, inputs: dict[str, TensorType], shape: tuple[int, ...], batches: int
) -> None:
    array = normal(*shape)
    size = 4 if inputs is FOUR else 1
    expected = [(size, 3, 4, 4)] * batches
    np.save(tmp_path / "a.npy", array)
    for path in (save(tmp_path / "a.npz", x=array), save(tmp_path / "b.npz", arr_0=array), tmp_path / "a.npy"):
        assert shapes(path, inputs) == expected
    assert shapes([array], inputs) == expected
    assert shapes([torch.from_numpy(array)], inputs) == expected
    read = np.concatenate([batch["x"] for batch in open_data(tmp_path / "a.npz", inputs)])
    np.testing.assert_array_equal(read, array.reshape(-1, 3, 4, 4)[: len(read)])


def test_single_samples_are_stacked(tmp_path: Path) -> None:
    for index in range(9):
        np.save(tmp_path / f"{index}.npy", normal(3, 4, 4))
    assert shapes(tmp_path, FOUR) == [(4, 3, 4, 4)] * 2
    assert shapes(tmp_path, ONE, limit=3) == [(1, 3, 4, 4)] * 3
    assert shapes(tmp_path, FOUR, limit=5) == [(4, 3, 4, 4)]
    assert shapes([normal(3, 4, 4)] * 9, FOUR) == [(4, 3, 4, 4)] * 2


def test_inputs_are_found_by_name_position_and_repeated(tmp_path: Path) -> None:
    ids = np.arange(24).reshape(3, 8)
    by_name = save(tmp_path / "named.npz", mask=normal(1, 8), ids=ids, labels=np.arange(3))
    batches = list(open_data(by_name, TWO))
    assert [batch["ids"][0, 0] for batch in batches] == [0, 8, 16]
    assert all((batch["mask"] == normal(1, 8)).all() for batch in batches)
    by_position = save(tmp_path / "positions.npz", arr_0=ids, arr_1=normal(3, 8))
    assert len(list(open_data(by_position, TWO))) == 3
    assert len(list(open_data([(ids[:1], normal(1, 8), "label")], TWO))) == 1
    assert len(list(open_data([{"ids": ids, "mask": normal(3, 8)}], TWO))) == 3


def test_integers_and_floats_convert_where_nothing_is_lost(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", ids=np.zeros((1, 8), np.int32), mask=np.ones((1, 8), np.float64))
    batch = next(iter(open_data(path, TWO)))
    assert batch["ids"].dtype == np.int64
    assert batch["mask"].dtype == np.float32


def test_compressed_and_fortran_arrays(tmp_path: Path) -> None:
    array = normal(6, 3, 4, 4)
    np.savez_compressed(tmp_path / "c.npz", x=array)
    save(tmp_path / "f.npz", x=np.asfortranarray(array))
    for name in ("c.npz", "f.npz"):
        read = np.concatenate([batch["x"] for batch in open_data(tmp_path / name, ONE)])
        np.testing.assert_array_equal(read, array)


def test_images_in_folders_of_classes(tmp_path: Path) -> None:
    for index, name in enumerate(["dog/b.png", "cat/a.jpg", "cat/.hidden.png"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9 + index), (index, 0, 0)).save(tmp_path / name)
    (tmp_path / "README.txt").write_text("where these come from")
    preprocess = Preprocess(resize=(6,), crop=(4,))
    data = open_data(tmp_path, ONE, preprocess=preprocess)
    assert [path.name for path in data.files] == ["a.jpg", "b.png"]
    assert shapes(tmp_path, ONE, preprocess=preprocess) == [(1, 3, 4, 4)] * 2


@pytest.mark.parametrize("name", ["files.txt", "files.json"])
def test_a_list_of_files(tmp_path: Path, name: str) -> None:
    for index in range(3):
        save(tmp_path / f"{index}.npz", x=normal(1, 3, 4, 4) + index)
    names = ["2.npz", "0.npz"]
    text = json.dumps(names) if name.endswith("json") else "# two of three\n2.npz\n\n  0.npz\n"
    (tmp_path / name).write_text(text)
    first = [batch["x"].mean() for batch in open_data(tmp_path / name, ONE)]
    assert first[0] > first[1]
    assert len(first) == 2


def test_a_function_may_return_a_new_iterator() -> None:
    def batches() -> Iterator[np.ndarray]:
        yield from [normal(1, 3, 4, 4)] * 3

    assert len(shapes(batches, ONE)) == 3
    assert len(shapes(batches, ONE, limit=2)) == 2


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    array = np.zeros((64, 256, 256), np.float32)
    np.savez_compressed(tmp_path / "large.npz", x=array)
    total = array.nbytes
    del array
    data = open_data(tmp_path / "large.npz", {"x": f32(1, 256, 256)})
    tracemalloc.start()
    count = sum(1 for _ in data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 64
    assert peak < total / 8


# What is refused ---------------------------------------------------------------------------------------------------


def broken_npz(path: Path) -> Path:
    save(path, x=normal(8, 3, 4, 4))
    path.write_bytes(path.read_bytes()[:-80])
    return path


def pickled(path: Path) -> Path:
    return save(path, x=np.array([{"a": 1}], dtype=object))


def text_file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def image(path: Path) -> Path:
    Image.new("RGB", (8, 8)).save(path)
    return path


REFUSED: list[tuple[str, Callable[[Path], Path], dict[str, TensorType], str]] = [
    ("missing", lambda p: p / "none.npz", ONE, r"no such file(.|\n)*none.npz"),
    ("kind", lambda p: text_file(p / "data.csv", "1,2"), ONE, r"no kind of data(.|\n)*data.csv"),
    ("empty folder", lambda p: p, ONE, "the folder holds no data"),
    ("shape", lambda p: save(p / "a.npz", x=normal(1, 3, 5, 5)), ONE, r"shape \[1x3x5x5\](.|\n)*a.npz(.|\n)*1x3x4x4"),
    ("dtype", lambda p: save(p / "a.npz", x=np.zeros((1, 3, 4, 4), np.uint8)), ONE, r"dtype uint8(.|\n)*a.npz"),
    ("dtype", lambda p: save(p / "a.npz", ids=normal(1, 8), mask=normal(1, 8)), TWO, r"ids has dtype float32"),
    ("NaN", lambda p: save(p / "a.npz", x=normal(2, 3, 4, 4) * np.nan), ONE, r"48 value\(s\)(.|\n)*a.npz"),
    ("name", lambda p: save(p / "a.npz", ids=normal(1, 8)), TWO, r"no array for mask(.|\n)*a.npz(.|\n)*has ids"),
    ("counts", lambda p: save(p / "a.npz", ids=np.zeros((2, 8), int), mask=normal(3, 8)), TWO, "ids 2, mask 3"),
    ("truncated", lambda p: broken_npz(p / "a.npz"), ONE, r"cannot be read(.|\n)*a.npz"),
    ("pickle", lambda p: pickled(p / "a.npz"), ONE, r"Python objects(.|\n)*a.npz"),
    ("not npy", lambda p: text_file(p / "a.npy", "hello"), ONE, r"cannot be read(.|\n)*a.npy"),
    ("too few", lambda p: save(p / "a.npz", x=normal(3, 3, 4, 4)), FOUR, r"makes no batch(.|\n)*at least 4"),
    ("image", lambda p: image(p / "a.png"), ONE, r"need preprocessing(.|\n)*a.png(.|\n)*--preprocess"),
    ("image", lambda p: image(p / "a.png"), TWO, r"for 2 inputs(.|\n)*a.png"),
    ("list", lambda p: text_file(p / "l.txt", "gone.png"), ONE, r"gone.png is not there(.|\n)*l.txt"),
    ("list", lambda p: text_file(p / "l.txt", "# nothing"), ONE, r"list of files is empty(.|\n)*l.txt"),
    ("list", lambda p: text_file(p / "l.json", "{"), ONE, r"cannot be read(.|\n)*l.json"),
    ("list", lambda p: text_file(p / "l.json", '{"a": 1}'), ONE, r"not a list of files(.|\n)*l.json"),
]


@pytest.mark.parametrize(("make", "inputs", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_bad_files_are_named(
    tmp_path: Path, make: Callable[[Path], Path], inputs: dict[str, TensorType], message: str
) -> None:
    with pytest.raises(CalibrationError, match=message) as caught:
        list(open_data(make(tmp_path), inputs))
    assert caught.value.exit_code == 6


def test_an_image_of_the_wrong_size_is_named(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"shape \[3x8x8\](.|\n)*a.png(.|\n)*\[3x4x4\]"):
        list(open_data(image(tmp_path / "a.png"), ONE, preprocess=Preprocess()))


def test_images_and_arrays_do_not_mix(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    save(tmp_path / "b.npz", x=normal(1, 3, 4, 4))
    with pytest.raises(CalibrationError, match=r"mixed: a.png, b.npz"):
        open_data(tmp_path, ONE)


@pytest.mark.parametrize(
    ("source", "inputs", "message"),
    [
        ([], ONE, "the calibration data is empty"),
        (iter([normal(1, 3, 4, 4)]), ONE, "read only once"),
        ([normal(1, 3, 4, 5)], ONE, r"item 0 of the data"),
        ([{"y": normal(1, 3, 4, 4)}], ONE, r"no array for x(.|\n)*item 0"),
        ([normal(1, 8)], TWO, r"1 array\(s\) for 2 inputs"),
        ([object()], ONE, r"object is not an array"),
    ],
)
def test_bad_iterables(source: Any, inputs: dict[str, TensorType], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        list(open_data(source, inputs))


def test_a_limit_is_positive() -> None:
    with pytest.raises(CalibrationError, match="limit of 0"):
        open_data([normal(1, 3, 4, 4)], ONE, limit=0)
