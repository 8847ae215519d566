"""Compiling, and what is done with a bundle afterwards."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from octavo import load
from octavo.backends.job import prefix_of

Octavo = Callable[..., Any]


@pytest.fixture
def compile_arguments(work: Path, bundle: Path) -> list[object]:
    """What the bundle was compiled with, but for its destination: the cache has it."""
    return [
        *("compile", work / "tiny.onnx", "--mcpu", "native", "--calib", work / "images"),
        *("--preprocess", "resize=16,crop=16", "--labels", work / "labels.txt", "--cache", work / "cache"),
    ]


def same(left: Path, right: Path) -> bool:
    names = sorted(path.name for path in left.iterdir())
    equal, _, _ = filecmp.cmpfiles(left, right, names, shallow=False)
    return sorted(equal) == names == sorted(path.name for path in right.iterdir())


def test_a_bundle_runs(work: Path, bundle: Path) -> None:
    with load(bundle) as network:
        assert network.manifest.name == "tiny"
        assert network.run({"image": np.zeros((1, 3, 16, 16), np.float32)})["logits"].shape == (1, 5)


def test_the_second_compilation_is_a_copy(
    octavo: Octavo, work: Path, bundle: Path, tmp_path: Path, compile_arguments: list[object]
) -> None:
    result = octavo(*compile_arguments, "-o", tmp_path / "again", "--json", "--save-ranges", tmp_path / "ranges.json")
    assert result.json["cached"] is True
    assert result.json["float_nodes"] == 0
    assert result.json["exactness"] == "bit-exact"
    assert same(bundle, tmp_path / "again")
    assert "image" in (tmp_path / "ranges.json").read_text()


def test_other_options_are_other_bundles(
    octavo: Octavo, work: Path, tmp_path: Path, compile_arguments: list[object]
) -> None:
    """Nothing is compiled: the run fails at the range, after the cache has been asked in vain."""
    result = octavo(*compile_arguments, "-o", tmp_path / "other", "--act-range", "gone=0:1")
    assert result.code == 2
    assert "gone" in result.err


def test_a_damaged_cache_entry_is_not_used(
    octavo: Octavo, work: Path, bundle: Path, tmp_path: Path, compile_arguments: list[object]
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(work / "cache", cache)
    (entry,) = (cache / "bundles").iterdir()
    (entry / "tiny.h").write_text("damaged")
    compile_arguments[-1] = cache
    result = octavo(*compile_arguments, "-o", tmp_path / "again", "--json")
    assert result.json["cached"] is False
    assert same(bundle, tmp_path / "again"), "compiled again, byte for byte"
    assert octavo(*compile_arguments, "-o", tmp_path / "third", "--json").json["cached"] is True


def test_parallel_runs_share_the_cache(work: Path, bundle: Path, tmp_path: Path) -> None:
    from octavo.backends.cache import Cache

    cache = Cache(tmp_path)

    def use(index: int) -> bool:
        cache.store("key", bundle)
        return cache.fetch("key", tmp_path / f"copy{index}") is not None

    with ThreadPoolExecutor(4) as executor:
        assert all(executor.map(use, range(8)))
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == ["key"]
    assert all(same(bundle, tmp_path / f"copy{index}") for index in range(8))


def test_a_cache_that_cannot_be_written_is_no_error(bundle: Path, tmp_path: Path) -> None:
    from octavo.backends.cache import Cache

    (tmp_path / "file").write_text("no folder")
    Cache(tmp_path / "file").store("key", bundle)


def test_overwrite_replaces_a_bundle_only_when_asked(
    octavo: Octavo, bundle: Path, tmp_path: Path, compile_arguments: list[object]
) -> None:
    output = tmp_path / "out"
    assert octavo(*compile_arguments, "-o", output).code == 0
    again = octavo(*compile_arguments, "-o", output)
    assert again.code == 8
    assert "exists already" in again.err
    assert octavo(*compile_arguments, "-o", output, "--overwrite").code == 0
    assert same(bundle, output)


def test_several_models_go_on_after_a_mistake(
    octavo: Octavo, work: Path, tmp_path: Path, compile_arguments: list[object]
) -> None:
    command, model, *options = compile_arguments
    result = octavo(command, "gone.onnx", model, *options, "-o", tmp_path / "all")
    assert result.code == 3
    assert "gone.onnx" in result.err
    assert "tiny.bundle" in result.out
    assert (tmp_path / "all" / "tiny.bundle" / "manifest.json").is_file()
    listed = octavo(command, "gone.onnx", model, *options, "-o", tmp_path / "json", "--json").json["bundles"]
    assert listed[0]["error"]["exit_code"] == 3
    assert listed[1]["cached"] is True


@pytest.mark.slow
def test_several_shapes_share_ranges_and_weights(octavo: Octavo, work: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shapes = ["--shape", "image={1,4}x3x16x16"]
    arguments = ["--calib", work / "calib.npz", "--mcpu", "native", "--no-cache", "-o", output]
    assert octavo("compile", work / "tiny.onnx", *shapes, *arguments).code == 0
    data = np.load(work / "calib.npz")["image"]
    with load(output) as network:
        assert [plan.inputs[0].shape[0] for plan in network.manifest.signatures] == [1, 4]
        together = network.run({"image": data})["logits"]
        one_by_one = [network.run({"image": data[i : i + 1]})["logits"] for i in range(4)]
    np.testing.assert_array_equal(together, np.concatenate(one_by_one))
    np.save(tmp_path / "small.npy", np.zeros((1, 3, 8, 8), np.float32))
    refused = octavo("run", output, tmp_path / "small.npy")
    assert (refused.code, "[1x3x16x16] or [4x3x16x16]" in refused.err) == (9, True), refused.err


def test_tuning_is_reported(octavo: Octavo, work: Path, tmp_path: Path) -> None:
    """How much is found depends on the machine; a time as short as this finds nothing."""
    arguments = ["compile", work / "tiny.onnx", "--mcpu", "native", "--calib", work / "calib.npz", "--no-cache"]
    result = octavo(*arguments, "-o", tmp_path / "out", "--tune", "0.001s", "--json")
    tuned = result.json["tuned"]
    assert (tuned["level"], tuned["replaced"], tuned["ratio"]) == (result.json["levels"][0], 0, None)
    assert 0 == tuned["measured"] < tuned["alternatives"]
    assert f"there was time for 0 of {tuned['alternatives']} alternatives" in octavo("inspect", tmp_path / "out").out


def test_what_tuning_found_is_a_line() -> None:
    from octavo.cli.console import format_tuned

    found = {
        "level": "avx2",
        "kernels": 9,
        "replaced": 2,
        "alternatives": 30,
        "measured": 30,
        "ratio": [1.25, 1.2, 1.3],
    }
    assert format_tuned(found) == "2 of 9 kernels replaced on avx2, 1.25 times as fast [1.20, 1.30]"
    assert format_tuned(found | {"replaced": 0}) == "nothing is faster for certain on avx2"
    assert format_tuned(found | {"measured": 4}).endswith("; there was time for 4 of 30 alternatives")


# What is done with a bundle ----------------------------------------------------------------------------------------


def test_run_shows_labels(octavo: Octavo, work: Path, bundle: Path, tmp_path: Path) -> None:
    image = work / "images" / "1.png"
    result = octavo("run", bundle, image, "--top", "2", "--profile", "-o", tmp_path / "out.npz", "--json")
    best = result.json["outputs"]["logits"]["top"]
    logits = np.load(tmp_path / "out.npz")["logits"]
    assert len(best) == 2
    assert best[0]["index"] == int(logits.argmax())
    assert best[0]["label"] == ["ant", "bee", "cat", "dog", "eel"][best[0]["index"]]
    assert result.json["steps"]
    text = octavo("run", bundle, image, "--threads", "1")
    assert best[0]["label"] in text.out
    assert "1 thread" in text.err


def test_run_takes_arrays(octavo: Octavo, work: Path, bundle: Path) -> None:
    assert octavo("run", bundle, work / "calib.npz").code == 0


@pytest.mark.parametrize(
    ("input", "message"),
    [("gone.png", "no such file"), ("labels.txt", "cannot be read|is not there"), ("tiny.onnx", "no kind of data")],
)
def test_run_names_a_wrong_input(octavo: Octavo, work: Path, bundle: Path, input: str, message: str) -> None:
    import re

    result = octavo("run", bundle, work / input)
    assert result.code == 9
    assert re.search(message, result.err)
    assert input in result.err


def test_run_refuses_a_wrong_shape_and_level(octavo: Octavo, work: Path, bundle: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 3, 8, 8), np.float32))
    assert octavo("run", bundle, tmp_path / "a.npy").code == 9
    unknown = octavo("run", bundle, work / "calib.npz", "--level", "sse2")
    assert unknown.code in (8, 9)
    assert "sse2" in unknown.err


def test_inspect_shows_the_manifest(octavo: Octavo, bundle: Path) -> None:
    text = octavo("inspect", bundle, "--nodes").out
    for word in ("x86-int8", "image", "logits", "bit-exact", "resize=16,crop=16", "qconv", "weighted"):
        assert word in text
    assert octavo("inspect", bundle, "--json").json["name"] == "tiny"


def test_verify_finds_an_altered_file(octavo: Octavo, bundle: Path, tmp_path: Path) -> None:
    assert octavo("verify", bundle, "--json").json["intact"] is True
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    weights = bytearray((copy / "weights.bin").read_bytes())
    weights[-1] ^= 1
    (copy / "weights.bin").write_bytes(weights)
    result = octavo("verify", copy)
    assert result.code == 8
    assert "weights.bin" in result.err


def test_compare_measures_outputs_and_layers(octavo: Octavo, work: Path, bundle: Path) -> None:
    arguments = ["compare", work / "tiny.onnx", bundle, "--data", work / "images"]
    found = octavo(*arguments, "--layers", "--json").json
    assert found["batches"] == 3
    (output,) = found["outputs"]
    assert output["name"] == "logits"
    assert output["sqnr_db"] > 20
    assert output["rankings"] == 3
    layers = {layer["where"]: layer for layer in found["layers"]}
    assert {"conv", "head"} <= set(layers)
    assert all(layer["sqnr_db"] > 15 for layer in layers.values())
    last = found["layers"][-1]
    assert last["largest_error"] == pytest.approx(output["largest_error"], rel=1e-3), "kernels equal the interpreter"
    assert "logits" in octavo(*arguments, "--worst", "1").out


def test_compare_can_fail(octavo: Octavo, work: Path, bundle: Path) -> None:
    arguments = ["compare", work / "tiny.onnx", bundle, "--data", work / "images", "--limit", "1"]
    assert octavo(*arguments, "--min-sqnr", "5").code == 0
    result = octavo(*arguments, "--min-sqnr", "500", "--json")
    assert result.code == 10
    assert "below 500 dB" in result.json["failed"][0]


def test_compare_takes_a_frozen_graph(octavo: Octavo, work: Path, tmp_path: Path) -> None:
    frozen = tmp_path / "frozen.octavo"
    shape = ["--shape", "image=1x3x16x16"]
    octavo("opt", work / "tiny.onnx", *shape, "-p", "int8", "--calib", work / "calib.npz", "-o", frozen)
    found = octavo("compare", work / "tiny.onnx", frozen, "--data", work / "calib.npz", "--layers", "--json").json
    assert found["batches"] == 4
    assert len(found["layers"]) >= 3


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("tiny", "tiny"), ("MobileNet V2", "MobileNet_V2"), ("3d-net", "net_3d_net"), ("é", "net"), ("R", "net_R")],
)
def test_names_become_c_identifiers(name: str, prefix: str) -> None:
    assert prefix_of(name) == prefix
