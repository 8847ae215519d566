"""What is measured: stages, each of which starts from what another one made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from octavo.passes.training.loop import Settings

QUANTIZE = "prepare,observe{method=mse},calibrate,quantize"
FREEZE = "lower-integer,finish"


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
LENET = Settings(epochs=40, batch_size=64, optimizer="adam", lr=1e-3, weight_decay=0.0)
LENET_QAT = Settings(epochs=10, batch_size=64, optimizer="adam", lr=1e-4, weight_decay=0.0)


def _resnet(title: str, **options: Any) -> Stage:
    return Stage(title, "fashion-mnist", "resnet20", **options)


def _quantized(parent: str) -> dict[str, Any]:
    """Options of quantization-aware training against the baseline."""
    learned = {"settings": QAT, "loss": DISTILLED, "teacher": "baseline", "learn_scales": True}
    return {"parent": parent, "before": QUANTIZE, "after": FREEZE, **learned}


def _lenet(network: str, title: str) -> dict[str, Stage]:
    def stage(title: str, **options: Any) -> Stage:
        return Stage(title, "digits", network, **options)

    return {
        network: stage(title, settings=LENET),
        f"{network}-int8": stage(
            f"{title}, int8",
            parent=network,
            before=QUANTIZE,
            settings=LENET_QAT,
            learn_scales=True,
            after=FREEZE,
        ),
    }


STAGES: Mapping[str, Stage] = {
    "baseline": _resnet("ResNet-20", settings=SCRATCH, precision="bfloat16"),
    "ptq-int8": _resnet("int8 after training", parent="baseline", before="int8"),
    "qat-int8": _resnet("int8 in training", **_quantized("baseline")),
    "pruned50": _resnet(
        "half of the MACs pruned, fine-tuned with the teacher",
        parent="baseline",
        before="prune-channels{ratio=0.5,of=macs}",
        settings=HEALING,
        loss=DISTILLED,
        teacher="baseline",
        precision="bfloat16",
    ),
    "pipeline": _resnet("pruned, then int8 in training", **_quantized("pruned50")),
    **_lenet("lenet-300-100", "LeNet-300-100"),
    **_lenet("lenet-5", "LeNet-5"),
}
