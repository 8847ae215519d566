"""Bundles that take images: compiled, run, compared, timed and used from C like any other."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import octavo as library
import pytest
from octavo import load
from octavo.backends.preprocess import Preprocess
from octavo.cli.main import run
from octavo.passes.image_input import ImageInput

Octavo = Callable[..., Any]
NUMBERS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
STEPS = "resize=16,crop=16,mean=0.485/0.456/0.406,std=0.229/0.224/0.225"
PIXELS = "resize=16,crop=16,layout=NHWC,dtype=uint8"


def compile_arguments(work: Path, name: str, *more: object) -> list[str]:
    arguments = ["compile", work / "tiny.onnx", "--mcpu", "native", "--calib", work / "images", "--preprocess", STEPS]
    return [str(word) for word in [*arguments, "--cache", work / "cache", "-o", work / name, *more]]


@pytest.fixture(scope="module")
def floats(work: Path) -> Path:
    """Takes normalized numbers."""
    assert run(compile_arguments(work, "floats.bundle")) == 0
    return work / "floats.bundle"


@pytest.fixture(scope="module")
def images(work: Path) -> Path:
    """The same network, which takes images."""
    assert run(compile_arguments(work, "images.bundle", "--image-input")) == 0
    return work / "images.bundle"


def test_a_bundle_says_what_it_takes(octavo: Octavo, images: Path) -> None:
    manifest = octavo("inspect", images, "--json").json
    (taken,) = manifest["plans"][0]["inputs"]
    assert (taken["dtype"], taken["shape"]) == ("uint8", [1, 16, 16, 3])
    assert str(Preprocess.from_json(manifest["preprocessing"])) == PIXELS
    assert manifest["made"]["pipeline"].startswith("image-input{mean=[0.485;0.456;0.406],std=[0.229;0.224;0.225]},")
    assert manifest["exactness"] == "bit-exact"
    assert "qimage" in octavo("inspect", images, "--nodes").out


def test_it_answers_as_the_other(octavo: Octavo, work: Path, floats: Path, images: Path, tmp_path: Path) -> None:
    """Images and arrays alike."""
    for number in range(3):
        picture = work / "images" / f"{number}.png"
        want = octavo("run", floats, picture, "--json").json["outputs"]
        assert octavo("run", images, picture, "--json").json["outputs"] == want
        np.save(tmp_path / "pixels.npy", Preprocess.parse(PIXELS).load(picture))
        assert octavo("run", images, tmp_path / "pixels.npy", "--json").json["outputs"] == want
    with load(floats) as numbers, load(images) as pixels:
        assert numbers.manifest.made["ranges"] == pixels.manifest.made["ranges"]


def test_it_compares_with_its_model(octavo: Octavo, work: Path, floats: Path, images: Path) -> None:
    data = ("--data", work / "images", "--layers", "--json")
    want, have = (octavo("compare", work / "tiny.onnx", bundle, *data).json for bundle in (floats, images))
    assert have["outputs"] == want["outputs"]
    assert [layer["sqnr_db"] for layer in have["layers"]] == [layer["sqnr_db"] for layer in want["layers"]]


def test_it_is_timed(octavo: Octavo, images: Path) -> None:
    assert octavo("bench", images, "--runs", "3", "--warmup", "0", "--json").code == 0


def test_the_example_reads_raw_pixels(work: Path, images: Path) -> None:
    subprocess.run(["cc", "example.c", "-o", "example", "-L.", "-ltiny", "-Wl,-rpath,$ORIGIN"], cwd=images, check=True)
    pixels = Preprocess.parse(PIXELS).load(work / "images" / "0.png")
    (images / "image.raw").write_bytes(pixels.tobytes())
    out = subprocess.run(["./example", "image.raw"], cwd=images, check=True, capture_output=True, text=True).stdout
    with load(images) as bundle:
        assert int(out.split()[0]) == int(bundle(pixels).argmax())


def test_the_library_has_the_option(work: Path, images: Path) -> None:
    result = library.compile(
        work / "tiny.onnx",
        output=work / "again.bundle",
        mcpu="native",
        calibration=work / "images",
        preprocess=STEPS,
        image_input=True,
        cache=work / "cache",
    )
    assert result.cached
    assert (result.path / "manifest.json").read_bytes() == (images / "manifest.json").read_bytes()


def test_several_shapes(octavo: Octavo, work: Path, floats: Path, tmp_path: Path) -> None:
    """They are the model's own; each plan takes images of its size."""
    shapes = ("--shape", "image={1,2}x3x16x16")
    made = octavo(*compile_arguments(work, "many.bundle", "--image-input", *shapes), "--json").json
    assert made["plans"] == 2
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    with load(work / "many.bundle") as bundle:
        both = bundle(pixels)
        np.testing.assert_array_equal(both, np.concatenate([bundle(pixels[:1]), bundle(pixels[1:])]))
    np.savez(tmp_path / "images.npz", image=pixels)
    np.savez(tmp_path / "floats.npz", image=ImageInput(*NUMBERS).numbers(pixels))
    have, want = (
        octavo("compare", work / "tiny.onnx", bundle, "--data", tmp_path / name, "--json")
        for bundle, name in ((work / "many.bundle", "images.npz"), (floats, "floats.npz"))
    )
    assert have.json["outputs"] == want.json["outputs"]


def test_passes_run_on_images(octavo: Octavo, work: Path, tmp_path: Path) -> None:
    """As in any pipeline: data are for what the network takes behind the first pass, and what was frozen compiles."""
    data = ("--calib", work / "images", "--preprocess", PIXELS)
    pipeline = "image-input{mean=[0.5],std=[0.25]},int8"
    checked = ("--check-numerics", work / "images")
    assert octavo("opt", work / "tiny.onnx", "-p", pipeline, *data, *checked, "-o", tmp_path / "it.octavo").code == 0
    made = octavo("compile", tmp_path / "it.octavo", "--mcpu", "native", "--no-cache", "-o", tmp_path / "it.bundle")
    assert made.code == 0
    assert octavo("run", tmp_path / "it.bundle", work / "images" / "0.png", "--preprocess", PIXELS).code == 0


@pytest.mark.parametrize(
    ("more", "messages"),
    [
        (["--preprocess", PIXELS], ["nothing is left to become part of the network", "dtype=float32"]),
        (["--preprocess", f"{STEPS},layout=NHWC"], ["no input can be an image: image is f32", "layout=NCHW"]),
        (["--calib", "calib.npz"], ["has shape [4x3x16x16]", "[1x16x16x3]", "its pixels as they are"]),
    ],
)  # fmt: skip
def test_mistakes(octavo: Octavo, work: Path, tmp_path: Path, more: list[str], messages: list[str]) -> None:
    more = [str(work / word) if word.endswith(".npz") else word for word in more]
    result = octavo(*compile_arguments(work, "none.bundle", "--image-input", *more))
    assert result.code
    for message in messages:
        assert message in result.err


def test_preprocessing_must_be_given(octavo: Octavo, work: Path) -> None:
    result = octavo("compile", work / "tiny.onnx", "--image-input", "-o", work / "none.bundle")
    assert result.code == 2
    assert "needs the preprocessing that becomes part of the network" in result.err


def test_numbers_are_refused_by_images(octavo: Octavo, work: Path, images: Path) -> None:
    result = octavo("run", images, work / "images" / "0.png", "--preprocess", STEPS)
    assert result.code == 9
    assert "layout=NHWC,dtype=uint8" in result.err
