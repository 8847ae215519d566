"""What is measured: stages, each of which starts from what another one made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from octavo.passes.training.loop import Settings
from octavo.passes.training.sparsity import GradualSparsity

# Kernels of the widest vectors compute 16 output channels at once.
PRUNE = "prune-channels{ratio=0.5,of=macs,scope=greedy,multiple=16}"
QUANTIZE = "prepare,observe{method=mse},calibrate,quantize"
FREEZE = "lower-integer,finish"
# One scale for a layer keeps its 16 values 16 integers; a scale per channel would make others of them in each.
QUANTIZE_SHARED = "prepare,observe{method=mse},calibrate,quantize{weights=per-tensor}"
QUANTIZE_INT4 = "prepare,observe{method=mse},calibrate,quantize{weight-bits=4,weight-range=mse,keep-int8=[stem.0;head]}"


@dataclass(frozen=True)
class Term:
    """A term of the loss by its name in :data:`octavo.passes.training.losses.TERMS`."""

    name: str
    weight: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One network to make: take the parent's, run ``before``, train, run ``after``.

    Args:
        title: what it is, for a table.
        dataset, network: names in :data:`.data.DATASETS` and :data:`.networks.NETWORKS`.
        parent: the stage that it starts from; a network with random weights if None.
        before: the pipeline that compresses.
        settings: how to train; None does not. The seed is that of the run.
        loss: the terms to minimize.
        teacher: the stage whose network those terms compare with.
        learn_scales: step sizes train too.
        keep_zeros: weights that are zero stay so in training.
        sparsity: zeros that come in training, and then stay.
        augment: images are moved and mirrored as the dataset says.
        precision: of the products in training: bfloat16 takes half the time, but blurs the grid of eight bits.
        after: the pipeline that ends it. A stage that freezes is evaluated as a compiled bundle.
    """

    title: str
    dataset: str
    network: str
    parent: str | None = None
    before: str = ""
    settings: Settings | None = None
    loss: tuple[Term, ...] = (Term("cross-entropy"),)
    teacher: str | None = None
    learn_scales: bool = False
    keep_zeros: bool = False
    sparsity: GradualSparsity | None = None
    augment: bool = True
    precision: Literal["float32", "bfloat16"] = "float32"
    after: str = ""

    @property
    def needs(self) -> tuple[str, ...]:
        """The stages that come first."""
        return tuple(dict.fromkeys(name for name in (self.parent, self.teacher) if name))


DISTILLED = (Term("cross-entropy", 0.5), Term("soft-labels", 0.5))
SCRATCH = Settings(epochs=12, batch_size=128, lr=0.1, warmup=0.5)
HEALING = Settings(epochs=8, batch_size=128, lr=0.05, warmup=0.25)
QAT = Settings(epochs=3, batch_size=128, optimizer="adam", lr=2e-4, weight_decay=0.0)
SHARED = Settings(epochs=3, batch_size=128, optimizer="adam", lr=1e-4, weight_decay=0.0)
LENET = {
    "fashion-mnist": Settings(epochs=25, batch_size=128, optimizer="adam", lr=1e-3, weight_decay=0.0),
    "digits": Settings(epochs=60, batch_size=64, optimizer="adam", lr=1e-3, weight_decay=0.0),
}
# There are 14 times as many steps in an epoch of the larger set.
LENET_SPARSE = {
    "fashion-mnist": replace(LENET["fashion-mnist"], epochs=30),
    "digits": replace(LENET["digits"], epochs=150, lr=2e-3),
}
LENET_SHARED = {
    "fashion-mnist": replace(LENET["fashion-mnist"], epochs=8, lr=2e-4),
    "digits": replace(LENET["digits"], epochs=40, lr=2e-4),
}


def _resnet(title: str, **options: Any) -> Stage:
    return Stage(title, "fashion-mnist", "resnet20", **options)


def _healed(title: str, parent: str, before: str, settings: Settings, **options: Any) -> Stage:
    """Fine-tuned with the baseline as teacher, in bfloat16."""
    distilled = {"settings": settings, "loss": DISTILLED, "teacher": "baseline", "precision": "bfloat16"}
    return _resnet(title, parent=parent, before=before, **distilled, **options)


def _quantized(title: str, parent: str, before: str) -> Stage:
    """Quantization-aware training with the baseline as teacher."""
    return _healed(title, parent, before, QAT, learn_scales=True, after=FREEZE)


def _deep_compression(
    name: str, network: str, dataset: str, title: str, zeros: float, *, augment: bool = True
) -> dict[str, Stage]:
    """The three stages of Han et al., 2016: zeros, shared values, and the coding that every bundle gets.

    ``augment`` is for the training of few weights, which may be too few to learn more than the images themselves.
    """

    def stage(title: str, **options: Any) -> Stage:
        return Stage(title, dataset, network, **options)

    sparse, shared = f"{name}-sparse", f"{name}-shared"
    # The other epochs heal what the last zeros cost.
    arrive = GradualSparsity(ratio=zeros, scope="global", end=0.5 * LENET_SPARSE[dataset].epochs, every=50)
    prune = {"settings": LENET_SPARSE[dataset], "sparsity": arrive}
    share = {
        "before": "share-weights{bits=4}",
        "settings": LENET_SHARED[dataset],
        "after": f"{QUANTIZE_SHARED},{FREEZE}",
    }
    taught = {"loss": DISTILLED, "teacher": name, "augment": augment}
    return {
        name: stage(title, settings=LENET[dataset]),
        sparse: stage(f"{title}, {zeros:.0%} of weights zero", parent=name, **prune, **taught),
        shared: stage("of these 16 values per layer, then int8", parent=sparse, **share, **taught),
    }


STAGES: Mapping[str, Stage] = {
    "baseline": _resnet("ResNet-20", settings=SCRATCH, precision="bfloat16"),
    "ptq-int8": _resnet("int8 after training", parent="baseline", before="int8"),
    "qat-int8": _quantized("int8 in training", "baseline", QUANTIZE),
    "ptq-int4": _resnet("4-bit weights after training", parent="baseline", before=f"{QUANTIZE_INT4},{FREEZE}"),
    "qat-int4": _quantized("4-bit weights in training", "baseline", QUANTIZE_INT4),
    "pruned50": _healed("half of the MACs pruned", "baseline", PRUNE, HEALING),
    "pruned50-int8": _resnet("pruned, int8 after training", parent="pruned50", before="int8"),
    "pipeline": _quantized("pruned, then int8 in training", "pruned50", QUANTIZE),
    "sparse": _healed("87% of weights zero", "baseline", "sparsify{ratio=0.87,scope=global}", HEALING, keep_zeros=True),
    "sparse-shared": _healed(
        "of these 16 values per layer, then int8",
        "sparse",
        "share-weights{bits=4}",
        SHARED,
        after=f"{QUANTIZE},{FREEZE}",
    ),
    **_deep_compression("lenet-300-100", "lenet-300-100", "fashion-mnist", "LeNet-300-100", 0.91, augment=False),
    **_deep_compression("lenet-5", "lenet-5", "fashion-mnist", "LeNet-5", 0.88),
    **_deep_compression("lenet-300-100-digits", "lenet-300-100", "digits", "LeNet-300-100", 0.91),
    **_deep_compression("lenet-5-digits", "lenet-5", "digits", "LeNet-5", 0.92),
}
