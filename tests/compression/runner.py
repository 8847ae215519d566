"""Runs a stage for a seed, after the stages that it needs; a run that was interrupted goes on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from octavo.backends.freeze import is_frozen
from octavo.ir import Graph
from octavo.ir.errors import UsageError
from octavo.passes import PassContext, Pipeline
from octavo.passes.base import ignore_progress, ignore_text
from octavo.passes.training.loop import Samples, Settings, Trainer
from octavo.passes.training.losses import Loss, make_term
from octavo.passes.training.module import TrainableGraph

from . import evaluation, networks
from .data import DATASETS, Dataset, augmentation, training_samples, unseen_samples
from .experiments import STAGES, Stage
from .records import Record, Store, code_digest, surroundings

CALIBRATION, CALIBRATION_BATCH = 512, 128
REFERENCE = "ptq-int8"
"""The stage that speed is compared with."""


class MixedPrecision(TrainableGraph):
    """Computes products in bfloat16 and keeps weights, sums of gradients and outputs in float32."""

    def forward(self, *inputs: torch.Tensor, names: Sequence[str] | None = None) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            outputs, seen = super().forward(*inputs, names=names or ())
        return [x.float() for x in outputs], {name: x.float() for name, x in seen.items()}


@dataclass(frozen=True)
class Runner:
    """Makes networks and keeps them in a store.

    Args:
        limit: use at most this many images for each purpose, and two epochs: a trial.
    """

    store: Store = field(default_factory=Store)
    limit: int | None = None
    stages: Mapping[str, Stage] = field(default_factory=lambda: STAGES)
    datasets: Mapping[str, Dataset] = field(default_factory=lambda: DATASETS)
    report: Callable[[str], None] = ignore_text
    progress: Callable[[str, int, int | None], None] = ignore_progress

    def run(self, name: str, seed: int) -> Record:
        """The record of a stage; made now unless one of the same settings and parents is in the store.

        Raises:
            UsageError: data is missing, or a pipeline names a pass that does not exist.
        """
        stage = self.stages[name]
        for need in stage.needs:
            self.run(need, seed)
        known = self.store.read(name, seed)
        if known and self.why_stale(known) is None:
            return known
        self.report(f"{name}, seed {seed}")
        origin = self.parents(name, seed)
        train, validation = training_samples(self.datasets[stage.dataset], self.limit)
        graph = self._start(stage, seed)
        self._pass(graph, stage.before, train)
        history: list[Any] = []
        if stage.settings:
            graph, history = self._train(name, seed, graph, train, validation, origin)
        self._pass(graph, stage.after, train)
        record = {
            "stage": name,
            "seed": seed,
            "settings": self.settings(name, seed),
            "parents": origin,
            "code": code_digest(),
            "surroundings": surroundings(),
            "history": history,
            # Over all the times that it went on.
            "seconds": round(sum(epoch["seconds"] for epoch in history), 1),
            "cost": evaluation.cost(graph),
            "validation": evaluation.measure(graph, validation),
            "test": None,
            "checkpoint": self.store.save(name, seed, graph),
        }
        self.store.write(record)
        return record

    def evaluate(self, name: str, seed: int, *, again: bool = False) -> Record:
        """Measure a stored network on the test images, once; ``again`` does so to check the compiler of today.

        Raises:
            UsageError: the run has not ended, or what it made is not what the stage says today.
        """
        record = self.store.read(name, seed)
        hint = f"python -m compression run {name} --seeds {seed}"
        if record is None:
            raise UsageError(f"{name} has not been run for seed {seed}", hint=hint)
        if reason := self.why_stale(record):
            raise UsageError(f"{name}, seed {seed}: {reason}", hint=hint)
        if record["test"] is None or again:
            samples = unseen_samples(self.datasets[self.stages[name].dataset], self.limit)
            record["test"] = evaluation.measure(self.store.graph(name, seed), samples)
            self.store.write(record)
        return record

    def time(self, seed: int, batches: Sequence[int], rounds: int) -> None:
        """Time the bundles of all frozen networks of the first network's dataset, beside its plain int8 form.

        Raises:
            UsageError: there is nothing to compare with, or a record is not that of its stage as it stands.
        """
        first, *_ = self.stages.values()
        names = [name for name, records in self.current().items() if any(r["seed"] == seed for r in records)]
        graphs = {n: self.store.graph(n, seed) for n in names if self.stages[n].network == first.network}
        frozen = {name: graph for name, graph in graphs.items() if is_frozen(graph)}
        if REFERENCE not in frozen:
            raise UsageError(
                f"{REFERENCE} has not been run for seed {seed}", hint=f"python -m compression run {REFERENCE}"
            )
        made = {"seed": seed, "surroundings": surroundings()}
        self.store.write_timings([made | evaluation.latency(frozen, REFERENCE, batch, rounds) for batch in batches])

    def current(self) -> dict[str, list[Record]]:
        """The records of every stage, in the order of the stages and seeds.

        Raises:
            UsageError: some are not those of their stages as they stand; all of them are named.
        """
        found = {name: [self.store.read(name, seed) for seed in self.store.seeds(name)] for name in self.stages}
        known = {name: [record for record in records if record] for name, records in found.items()}
        each = [record for records in known.values() for record in records]
        stale = [f"{r['stage']}, seed {r['seed']}: {reason}" for r in each if (reason := self.why_stale(r))]
        if stale:
            raise UsageError("\n".join(stale), hint="python -m compression run")
        return known

    def why_stale(self, record: Record) -> str | None:
        """Why a record is not that of its stage as it stands; None if it is."""
        name, seed = record["stage"], record["seed"]
        if name not in self.stages:
            return "there is no such stage"
        if _with_defaults(record["settings"]) != self.settings(name, seed):
            return "it was made with other settings"
        if record["parents"] != self.parents(name, seed):
            return "it was made from another network than the one that its parent stores"
        if record["checkpoint"] != self.store.digest(name, seed):
            return "its checkpoint is not the one that its record names"
        return None

    def parents(self, name: str, seed: int) -> dict[str, str]:
        """The digests of the networks that a run starts from, as the store has them."""
        return {need: self.store.digest(need, seed) for need in self.stages[name].needs}

    def settings(self, name: str, seed: int) -> Record:
        """What decides the network beside parents and code, as JSON has it."""
        stage = self.stages[name]
        whole = dataclasses.asdict(self._within_limit(stage, seed))
        del whole["title"]
        found: Record = json.loads(json.dumps(whole | {"limit": self.limit}))
        return found

    def _within_limit(self, stage: Stage, seed: int) -> Stage:
        """A stage as it is trained: with the seed, and in two epochs if it is a trial."""
        settings, sparsity = stage.settings, stage.sparsity
        if settings is None:
            return stage
        epochs = settings.epochs if self.limit is None else 2
        if sparsity and self.limit is not None:
            sparsity = dataclasses.replace(sparsity, begin=0.0, end=1.0)
        return dataclasses.replace(
            stage, settings=dataclasses.replace(settings, seed=seed, epochs=epochs), sparsity=sparsity
        )

    def _start(self, stage: Stage, seed: int) -> Graph:
        return self.store.graph(stage.parent, seed) if stage.parent else networks.make(stage.network, seed)

    def _pass(self, graph: Graph, pipeline: str, train: Samples) -> None:
        images = torch.split(train.inputs[0][:CALIBRATION], CALIBRATION_BATCH)
        batches = [{graph.inputs[0].name: batch.numpy()} for batch in images]
        Pipeline.parse(pipeline).run(graph, PassContext(calibration=batches, report=self.report))

    def _train(
        self, name: str, seed: int, graph: Graph, train: Samples, validation: Samples, origin: Mapping[str, str]
    ) -> tuple[Graph, list[Any]]:
        stage = self._within_limit(self.stages[name], seed)
        assert stage.settings is not None
        teacher = self.store.graph(stage.teacher, seed) if stage.teacher else None
        # Another folder for other settings or code: a checkpoint serves only the run that made it.
        key = hashlib.sha256(json.dumps([self.settings(name, seed), origin, code_digest()]).encode()).hexdigest()[:8]
        folder = self.store.work / f"{name}-seed{seed}-{key}"
        made = {term.name: make_term(term.name, term.options, graph, teacher) for term in stage.loss}
        trainer = Trainer(
            _module(stage, graph, learn_scales=stage.learn_scales, keep_zeros=stage.keep_zeros or bool(stage.sparsity)),
            Loss(made, {term.name: term.weight for term in stage.loss}),
            train,
            validation,
            stage.settings,
            folder,
            teacher=_module(stage, teacher) if teacher else None,
            augment=augmentation(self.datasets[stage.dataset]) if stage.augment else None,
            sparsity=stage.sparsity,
            report=self.report,
            progress=self.progress,
        )
        trained = trainer.run()
        log = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
        return trained, [json.loads(line) for line in log]


def _with_defaults(settings: Record) -> Record:
    """What a record says, and of settings that came later what they are if nothing is said."""
    fields = dataclasses.fields(Stage)
    known = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING} | settings
    if known["settings"] is None:
        return known
    return known | {"settings": dataclasses.asdict(Settings()) | known["settings"]}


def _module(stage: Stage, graph: Graph, **options: bool) -> TrainableGraph:
    """Channels last in memory: a fifth faster for small convolutions."""
    kind = MixedPrecision if stage.precision == "bfloat16" else TrainableGraph
    module = kind(graph, **options)
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module
