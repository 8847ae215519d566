"""The zoo's networks answer as their makers promise, so that what later tests compare with is right."""

from __future__ import annotations

import importlib

import numpy as np
import onnxruntime
import pytest
import torch
from support.missing import MissingError

from . import bert, crepe, light, peers, samples
from .accuracy import agreement
from .images import (
    batch,
    calibration_images,
    cifar_photos,
    evaluation_images,
    evaluation_sample,
    photos,
)
from .onnx_models import decode_text
from .packages import package_file
from .registry import ONNX_MODELS, TORCH_MODELS, zoo_model


def answer(name: str, *inputs: np.ndarray) -> np.ndarray:
    """The first output of a torch or ONNX model of the zoo."""
    model = zoo_model(name)
    if name in ONNX_MODELS:
        session = onnxruntime.InferenceSession(model.path(), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, dict(zip(model.input_names, inputs, strict=True)))[0])
    with torch.no_grad():
        return np.asarray(model.module()(*map(torch.from_numpy, inputs)))


@pytest.mark.models
@pytest.mark.parametrize("name", [*TORCH_MODELS, *ONNX_MODELS])
def test_every_model_answers_its_samples(name: str) -> None:
    first, second = zoo_model(name).inputs(2)
    assert [a.dtype for a in first] == [a.dtype for a in zoo_model(name).inputs()[0]]
    one, other = answer(name, *first), answer(name, *second)
    assert np.isfinite(one).all()
    assert one.std() > 0
    assert not np.array_equal(one, other), "two inputs, one answer"


@pytest.mark.models
@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_lite0", "efficientnet_lite1"])
def test_image_classifiers_know_most_of_twenty_photographs(name: str) -> None:
    recipe = zoo_model(name).recipe
    assert recipe is not None
    logits = answer(name, batch(photos(), recipe))
    assert np.mean(logits.argmax(1) == [photo.label for photo in photos()]) >= 0.7


@pytest.mark.models
@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1"])
def test_our_efficientnets_are_those_of_the_package(name: str) -> None:
    package = importlib.import_module("efficientnet_lite_pytorch")
    theirs = package.EfficientNet.from_name(name.replace("_", "-")).eval()
    ours = zoo_model(name).module()
    theirs.load_state_dict(ours.state_dict())
    (x,) = map(torch.from_numpy, zoo_model(name).sample(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


@pytest.mark.models
def test_the_cifar_network_knows_most_of_twenty_pictures() -> None:
    scores = answer("cifar10_cnn", np.concatenate([zoo_model("cifar10_cnn").sample(i)[0] for i in range(20)]))
    assert np.mean(scores.argmax(1) == [photo.label for photo in cifar_photos()]) >= 0.6


@pytest.mark.models
@pytest.mark.parametrize("frequency", [110.0, 220.0, 440.0])
def test_crepe_hears_the_pitch_of_a_tone(frequency: float) -> None:
    bins = answer("crepe_tiny", samples.pitch_frame(frequency)[None])
    assert crepe.bin_frequency(int(bins.argmax())) == pytest.approx(frequency, rel=0.02)


@pytest.mark.models
def test_sentences_that_mean_the_same_are_close() -> None:
    rows = [answer("minilm_l6", *bert.tokenize(text, 32))[0] for text in samples.SENTENCES[:6]]
    unit = np.stack([row / np.linalg.norm(row) for row in rows])
    cosine = unit @ unit.T
    assert cosine[0, 1] > 0.6  # bread and food
    assert cosine[4, 5] > 0.6  # lovely weather and sun
    assert cosine[0, 4] < 0.2


@pytest.mark.models
def test_printed_text_is_read_back() -> None:
    read = [decode_text(answer("ppocr_rec", *zoo_model("ppocr_rec").sample(index))[0]) for index in range(4)]
    assert [text.replace(" ", "") for text in read] == [line.replace(" ", "") for line in samples.LINES[:4]]


@pytest.mark.models
def test_the_detector_finds_the_printed_part_of_a_page() -> None:
    page = samples.page_for_detection(0)
    page[:, :, 160:] = page[:, :1, :1]  # wipe the right half
    found = answer("ppocr_det", page[None])[0, 0]
    assert found[:, :150].mean() > 10 * found[:, 170:].mean()


@pytest.mark.models
@pytest.mark.parametrize(("name", "turns"), [("ppocr_cls", 2), ("page_orientation", 4)])
def test_turned_print_is_recognised(name: str, turns: int) -> None:
    found = [int(answer(name, *zoo_model(name).sample(index)).argmax()) for index in range(8)]
    assert np.mean([got == index % turns for index, got in enumerate(found)]) >= 0.75


LARGE = ("bvlc_alexnet", "vgg19", "zfnet512")  # up to 600 MB of weights


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.nightly if n in LARGE else ()) for n in light.NAMES]
)
def test_light_networks_keep_natural_ranges(name: str) -> None:
    model = light.seeded_light_model(name)
    before_softmax = [node for node in model.graph.node if node.op_type == "Softmax"]
    if before_softmax:
        model.graph.output[0].name = before_softmax[-1].input[0]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    image = zoo_model("resnet18").sample(0)[0]
    logits = np.asarray(session.run(None, {session.get_inputs()[0].name: image})[0])
    assert 0.05 < np.std(logits) < 50


@pytest.mark.models
@pytest.mark.parametrize("name", ["cifar10_cnn", "ppocr_cls"])
def test_a_peer_answers_close_to_the_network_that_it_was_made_from(name: str) -> None:
    model = zoo_model(name)
    whole = peers.answers(peers.float_session(model), model.sample(3))[0]
    np.testing.assert_allclose(whole, answer(name, *model.sample(3)), rtol=1e-3, atol=1e-4)
    small = peers.answers(peers.int8_session(model, peers.calibration_inputs(model, 12)), model.sample(3))[0]
    assert 0 < np.square(small - whole).sum() < 0.05 * np.square(whole).sum()


@pytest.mark.eval
def test_calibration_and_evaluation_are_disjoint_and_spread() -> None:
    calibration, evaluation = calibration_images(), evaluation_images()
    assert (len(calibration), len(evaluation)) == (100, 400)
    assert {*calibration} | {*evaluation} == {*evaluation_sample()}
    gaps = np.diff([image.label for image in calibration])
    assert gaps.max() <= 20, "every part of the class list takes part in calibration"


@pytest.mark.eval
@pytest.mark.models
@pytest.mark.nightly
@pytest.mark.parametrize(("name", "expected"), [("mobilenet_v2", 0.822), ("efficientnet_lite0", 0.886)])
def test_float_accuracy_has_not_moved(name: str, expected: float) -> None:
    model, right = zoo_model(name), 0
    module = model.module()
    assert model.recipe is not None
    for start in range(0, 500, 50):
        images = evaluation_sample()[start : start + 50]
        with torch.no_grad():
            logits = module(torch.from_numpy(batch(images, model.recipe)))
        right += int((logits.argmax(1).numpy() == [image.label for image in images]).sum())
    assert right / 500 == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize(
    ("package", "reason"),
    [("octavo-has-no-such-package", "is not installed (.*models.txt)"), ("numpy", "holds no weights.pth")],
)
def test_a_missing_file_is_named(package: str, reason: str) -> None:
    with pytest.raises(MissingError, match=f"{package} {reason}"):
        package_file(package, "weights.pth")


def test_agreement_counts_flips_and_noise() -> None:
    reference = np.asarray([[3.0, 1.0], [0.0, 2.0]], np.float32)
    other = np.asarray([[3.0, 1.0], [2.0, 0.0]], np.float32)
    same = agreement(reference, reference, [0, 0])
    assert (same.top1, same.flips, same.sqnr) == (0.5, 0.0, float("inf"))
    changed = agreement(reference, other, [0, 0])
    assert (changed.top1, changed.flips) == (1.0, 0.5)
    assert changed.sqnr == pytest.approx(10 * np.log10(14 / 8))
