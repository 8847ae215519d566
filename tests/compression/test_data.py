"""The split is fixed and disjoint, and augmentation only moves and mirrors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from octavo.ir.errors import UsageError
from support.missing import MissingError
from torch.nn import functional as F
from zoo.packages import REQUIRED

from compression.data import DATASETS, Dataset, Pictures, augmentation, training_samples, unseen_samples


def numbered() -> Pictures:
    """Pictures that all differ: the first two pixels hold the number."""
    pixels = np.random.default_rng(0).integers(0, 256, (600, 28, 28)).astype(np.uint8)
    pixels[:, 0, 0], pixels[:, 0, 1] = np.divmod(np.arange(600), 256)
    return pixels, np.arange(600) % 10


PLAIN = Dataset(numbered, numbered, held_back=100, mean=0.0, deviation=1.0, shift=2, mirror=True)


def numbers(images: torch.Tensor) -> list[int]:
    first, second = (images[:, 0, 0, i] * 255 for i in (0, 1))
    return [round(value) for value in (first * 256 + second).tolist()]


def test_held_back_images_are_fixed_and_not_trained_on() -> None:
    train, validation = training_samples(PLAIN)
    seen, held = numbers(train.inputs[0]), numbers(validation.inputs[0])
    assert len(held) == 100
    assert sorted(seen + held) == list(range(600))
    assert held[:5] == [438, 529, 10, 429, 171], "the split is part of every number that was published"
    assert train.labels is not None
    assert train.labels.tolist() == [number % 10 for number in seen]
    some, few = training_samples(PLAIN, 10)
    assert (numbers(some.inputs[0]), numbers(few.inputs[0])) == (seen[:10], held[:10])


def test_pixels_are_normalized() -> None:
    samples = unseen_samples(dataclasses.replace(PLAIN, mean=0.25, deviation=0.5), 7)
    pixels, labels = numbered()
    np.testing.assert_allclose(samples.inputs[0][:, 0].numpy(), (pixels[:7] / 255.0 - 0.25) / 0.5, atol=1e-6)
    assert samples.labels is not None
    assert samples.labels.tolist() == labels[:7].tolist()


@pytest.mark.parametrize("mirror", [False, True])
def test_an_augmented_image_is_moved_and_perhaps_mirrored(mirror: bool) -> None:
    dataset = dataclasses.replace(PLAIN, mean=0.5, mirror=mirror)
    images = training_samples(dataset, 60)[0].inputs
    (changed,) = augmentation(dataset)(images, torch.Generator().manual_seed(3))
    (again,) = augmentation(dataset)(images, torch.Generator().manual_seed(3))
    assert torch.equal(changed, again)
    padded = F.pad(images[0], (2, 2, 2, 2), value=dataset.black)
    kinds = {(y, x, flip): padded[..., y : y + 28, x : x + 28] for y in range(5) for x in range(5) for flip in (0, 1)}
    kinds = {kind: view.flip(-1) if kind[2] else view for kind, view in kinds.items()}
    found = [next(kind for kind, view in kinds.items() if torch.equal(view[i], changed[i])) for i in range(60)]
    assert {flip for _, _, flip in found} == ({0, 1} if mirror else {0})
    assert {y for y, _, _ in found} == {x for _, x, _ in found} == set(range(5))


def available(name: str) -> Dataset:
    try:
        DATASETS[name].test()
    except UsageError as error:
        raise MissingError(f"{error.what}: {error.hint}", REQUIRED) from error
    return DATASETS[name]


@pytest.mark.parametrize(("name", "sizes"), [("fashion-mnist", (55000, 5000, 10000)), ("digits", (3500, 500, 1000))])
def test_real_data_is_complete(name: str, sizes: tuple[int, int, int]) -> None:
    dataset = available(name)
    train, validation = training_samples(dataset)
    parts = (train, validation, unseen_samples(dataset))
    assert tuple(map(len, parts)) == sizes
    for part in parts:
        assert part.labels is not None
        assert part.inputs[0].shape[1:] == (1, 28, 28)
        counts = torch.bincount(part.labels) / len(part)
        assert len(counts) == 10
        assert ((counts > 0.07) & (counts < 0.14)).all()
    assert abs(float(train.inputs[0].mean())) < 0.02
    assert abs(float(train.inputs[0].std()) - 1) < 0.02
    known = {image.numpy().tobytes() for image in train.inputs[0]}
    assert sum(image.numpy().tobytes() in known for image in validation.inputs[0]) <= 0.01 * sizes[1]
