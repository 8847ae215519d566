"""The training loop: epochs over batches, a loss, checkpoints that resume to the same bits, early stop, a log."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed
from torch import nn

from ...ir.errors import UsageError
from ...ir.graph import Graph
from ..base import ignore_progress, ignore_text
from .integer import shipped
from .losses import Loss, Step, right_classes, squared_errors
from .module import TrainableGraph
from .sparsity import GradualSparsity

Batch = tuple[tuple[torch.Tensor, ...], torch.Tensor | None]
"""The network's inputs and the labels, if there are any."""

Augment = Callable[[tuple[torch.Tensor, ...], torch.Generator], tuple[torch.Tensor, ...]]
"""Changes the inputs of a training batch, by random numbers of the generator alone."""


@dataclass(frozen=True)
class Samples:
    """Data in memory: inputs and labels that share their first dimension.

    ``weights`` are chances, one for each sample: an epoch then draws as many samples as there are, with replacement.
    """

    inputs: tuple[torch.Tensor, ...]
    labels: torch.Tensor | None = None
    weights: torch.Tensor | None = None

    def __post_init__(self) -> None:
        counts = {len(x) for x in (*self.inputs, self.labels, self.weights) if x is not None}
        if len(counts) != 1:
            raise UsageError(f"inputs, labels and weights of {sorted(counts)} samples", expected="as many of each")

    def __len__(self) -> int:
        return len(self.inputs[0])

    def at(self, index: torch.Tensor) -> Batch:
        """The samples at integer positions."""
        return tuple(x[index] for x in self.inputs), None if self.labels is None else self.labels[index]


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("epochs", 1, math.inf),
    ("batch_size", 1, math.inf),
    ("lr", 0, math.inf),
    ("scale_lr", 0, math.inf),
    ("momentum", 0, 1),
    ("weight_decay", 0, math.inf),
    ("warmup", 0, math.inf),
    ("clip_norm", 0, math.inf),
    ("patience", 0, math.inf),
    ("freeze_norms", 0, math.inf),
    ("seed", 0, 2**32),
)
"""Settings that are numbers: at least the first, and below the second."""


@dataclass(frozen=True)
class Settings:
    """How to train.

    ``lr`` rises over ``warmup`` epochs and falls to zero by ``schedule``. ``patience`` counts epochs without a better
    validation result (0: never stop early). ``freeze_norms`` is the epoch from which batch normalization keeps its
    statistics.

    ``scale_lr`` is a factor on ``lr`` for learned scales. A step of Adam is as long as ``lr`` says, however small the
    gradient and the number that moves. So by default a scale of a grid up to n moves by 1/n of that, and with it the
    end of its range, n steps away, as far as a weight: n is 127 for 8 bits. For SGD the gradients are in proportion
    already (Esser et al., 2020), and the factor is 1.
    """

    epochs: int = 10
    batch_size: int = 128
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.1
    scale_lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = 0.0
    clip_norm: float | None = None
    patience: int = 0
    freeze_norms: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least, below in _RANGES:
            value = getattr(self, name)
            if value is not None and not least <= value < below:
                expected = f"at least {least}" + (f", below {below:g}" if math.isfinite(below) else ", finite")
                raise UsageError(f"{name.replace('_', '-')} is {value}", expected=expected)

    def scale_factor(self, high: int) -> float:
        """What ``lr`` is multiplied with for the scale of a grid whose largest integer is ``high``."""
        if self.scale_lr is not None:
            return self.scale_lr
        return 1.0 if self.optimizer == "sgd" else 1.0 / high


@dataclass
class Progress:
    """What a checkpoint holds beside tensors."""

    epoch: int = 0
    best: float = -math.inf
    best_epoch: int = -1
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Trainer:
    """Trains a graph on samples in memory.

    ``folder`` receives ``checkpoint.pt`` after every epoch and ``log.jsonl``; a run that finds a checkpoint there goes
    on behind it, and ends with the same bits as one that was never interrupted (on the same machine and number of
    threads). Under torchrun every process takes its share of each batch, and gradients are those of the whole batch;
    statistics of batch normalization are those of the first process. With ``sparsity``, which needs a module that keeps
    zeros, only epochs after its end compete: before, the network has weights that it is to lose.
    """

    module: TrainableGraph
    loss: Loss
    train: Samples
    validation: Samples
    settings: Settings
    folder: Path
    teacher: TrainableGraph | None = None
    augment: Augment | None = None
    report: Callable[[str], None] = ignore_text
    progress: Callable[[str, int, int | None], None] = ignore_progress
    sparsity: GradualSparsity | None = None

    def __post_init__(self) -> None:
        if self.sparsity and self.sparsity.end >= self.settings.epochs:
            what = f"the last zeros would come at epoch {self.sparsity.end} of {self.settings.epochs}"
            raise UsageError(what, expected="some training after them")
        if self.sparsity:
            self.sparsity.check(self.module)
        if self.teacher is None and any(getattr(term, "needs_teacher", False) for term in self.loss.terms.values()):
            raise UsageError("the loss compares with a teacher, and there is none")
        for name, samples in (("training", self.train), ("validation", self.validation)):
            if not len(samples):
                raise UsageError(f"there are no samples for {name}")

    def run(self) -> Graph:
        """Train to the end; the graph of the epoch that did best in validation.

        Raises:
            UsageError: the folder holds a checkpoint of other settings, a loss or a validation result is not finite, or
                there are fewer samples in a batch than processes.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        rank, world = _join()
        if min(self.settings.batch_size, len(self.train)) < world:
            what = f"{world} processes share batches of {self.settings.batch_size} of {len(self.train)} samples"
            raise UsageError(what, expected="at least one sample for each")
        optimizer = self._optimizer()
        done = self._resume(optimizer)
        _broadcast((*self.module.state_dict().values(), *self.loss.state_dict().values()), world)
        while done.epoch < self.settings.epochs and not self._is_stale(done):
            started = time.monotonic()
            found = self._epoch(done.epoch, optimizer, rank, world)
            # What a process saw last changed its own statistics: all judge, and keep, the network of the first.
            _broadcast(self.module.buffers(), world)
            result = evaluate(self.module, self.validation, max(1, self.settings.batch_size // world))
            found["validation"] = result = _of_the_first(result, world)
            if not math.isfinite(result):
                what = f"the validation result is {result} in epoch {done.epoch + 1}"
                raise UsageError(what, hint="look for NaN among its labels and inputs, or take a smaller lr")
            found |= {"epoch": done.epoch, "seconds": round(time.monotonic() - started, 1)}
            if result > done.best and self._competes(done.epoch):
                done.best, done.best_epoch = result, done.epoch
                self._save(self.folder / "best.pt", {"module": self.module.state_dict()}, rank)
            done.epoch += 1
            done.history.append(found)
            self._save(self.folder / "checkpoint.pt", self._state(optimizer, done), rank)
            self._log(done, rank)
        if world > 1:
            torch.distributed.barrier()  # the first process may still be writing what the others read now
        best = torch.load(self.folder / "best.pt", weights_only=True)
        self.module.load_state_dict(best["module"])
        return self.module.eval().to_graph()

    def _is_stale(self, done: Progress) -> bool:
        first = math.floor(self.sparsity.end) if self.sparsity else 0
        return 0 < self.settings.patience < done.epoch - max(done.best_epoch, first - 1)

    def _competes(self, epoch: int) -> bool:
        """Whether the network after this epoch has all the zeros that it is to have."""
        return self.sparsity is None or self.sparsity.is_complete(epoch + 1)

    def _epoch(self, epoch: int, optimizer: torch.optim.Optimizer, rank: int, world: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + epoch)
        torch.manual_seed(self.settings.seed * 1_000_003 + epoch)
        self._set_modes(epoch)
        order = self._order(generator, world)
        batches = len(order)
        sums: dict[str, float] = {}
        for number, index in enumerate(order):
            for group in optimizer.param_groups:
                group["lr"] = self._rate(epoch + number / batches) * group["factor"]
            if self.sparsity:
                self.sparsity.apply(self.module, epoch * batches + number, batches)
            inputs, labels = self.train.at(own := index[rank::world])
            share = len(own) / len(index)
            if self.augment:
                inputs = self.augment(inputs, generator)
            total, parts = self.loss(self._step(inputs, labels))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(total)
            _share_gradients(self._parameters(), share, world)
            if self.settings.clip_norm:
                nn.utils.clip_grad_norm_(self._parameters(), self.settings.clip_norm)
            optimizer.step()
            for name, value in {"loss": float(total.detach()), **parts}.items():
                sums[name] = sums.get(name, 0.0) + value * share / batches
            self.progress(f"epoch {epoch + 1}", number + 1, batches)
        sums = _total(sums, world)
        if not math.isfinite(sums["loss"]):
            raise UsageError(f"the loss is {sums['loss']} in epoch {epoch + 1}", hint="a smaller lr, or clip-norm")
        return {"train": {name: round(value, 6) for name, value in sums.items()}, "lr": self._rate(epoch + 1)}

    def _order(self, generator: torch.Generator, world: int) -> list[torch.Tensor]:
        """The batches of an epoch, without a last one so small that a process had nothing to take statistics of."""
        size, count = self.settings.batch_size, len(self.train)
        if self.train.weights is None:
            order = torch.randperm(count, generator=generator)
        else:
            order = torch.multinomial(self.train.weights, count, replacement=True, generator=generator)
        batches = list(torch.split(order, size))
        return [batch for batch in batches if len(batch) >= min(2 * world, size)] or batches

    def _set_modes(self, epoch: int) -> None:
        frozen = self.settings.freeze_norms is not None and epoch >= self.settings.freeze_norms
        self.module.train(not frozen)
        self.loss.train()

    def _step(self, inputs: tuple[torch.Tensor, ...], labels: torch.Tensor | None) -> Step:
        pairs = [pair for term in self.loss.terms.values() for pair in getattr(term, "features", ())]
        more = [name for term in self.loss.terms.values() for name in getattr(term, "inside", ())]
        (logits, *_), own = self.module(*inputs, names=(*(a for a, _ in pairs), *more))
        if self.teacher is None:
            return Step(logits, labels, features=own)
        with torch.no_grad():
            (theirs, *_), inside = self.teacher.eval()(*inputs, names=tuple(b for _, b in pairs))
        return Step(logits, labels, theirs, own, inside)

    def _rate(self, epoch: float) -> float:
        settings = self.settings
        if epoch < settings.warmup:
            return settings.lr * epoch / settings.warmup
        if settings.schedule == "constant":
            return settings.lr
        share = (epoch - settings.warmup) / max(settings.epochs - settings.warmup, 1e-9)
        return settings.lr * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))

    def _parameters(self) -> list[nn.Parameter]:
        return [*self.module.parameters(), *self.loss.parameters()]

    def _optimizer(self) -> torch.optim.Optimizer:
        """Weight decay is for matrices and kernels, not for biases, scales and norms."""
        settings, scales = self.settings, self.module.learned_scales()
        members: dict[tuple[float, float], list[nn.Parameter]] = {}
        for parameter in self._parameters():
            factor = settings.scale_factor(scales[parameter]) if parameter in scales else 1.0
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            members.setdefault((factor, decay), []).append(parameter)
        groups = [{"params": p, "factor": f, "weight_decay": d} for (f, d), p in members.items()]
        if settings.optimizer == "sgd":
            return torch.optim.SGD(groups, settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)
        return (torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW)(groups, settings.lr)

    # Checkpoints ---------------------------------------------------------------------------------------------------

    def _state(self, optimizer: torch.optim.Optimizer, done: Progress) -> dict[str, Any]:
        return {
            "module": self.module.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": optimizer.state_dict(),
            "progress": asdict(done),
            "settings": asdict(self.settings),
            "sparsity": asdict(self.sparsity) if self.sparsity else None,
        }

    def _resume(self, optimizer: torch.optim.Optimizer) -> Progress:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return Progress()
        state = torch.load(path, weights_only=True)
        sparsity = asdict(self.sparsity) if self.sparsity else None
        if (state["settings"], state["sparsity"]) != (asdict(self.settings), sparsity):
            raise UsageError(
                "the checkpoint was made with other settings", where=str(path), hint="remove it, or use another folder"
            )
        self.module.load_state_dict(state["module"])
        self.loss.load_state_dict(state["loss"])
        optimizer.load_state_dict(state["optimizer"])
        done = Progress(**state["progress"])
        is_over = done.epoch >= self.settings.epochs or self._is_stale(done)
        what = "nothing is left to train" if is_over else "goes on"
        self.report(f"{what} after epoch {done.epoch} of {self.settings.epochs}")
        return done

    def _save(self, path: Path, state: Mapping[str, Any], rank: int) -> None:
        """All or nothing: a run that is killed leaves the checkpoint before."""
        if rank == 0:
            partial = path.with_name(f".{path.name}.partial")
            torch.save(state, partial)
            partial.replace(path)

    def _log(self, done: Progress, rank: int) -> None:
        if rank:
            return
        found = done.history[-1]
        text = "".join(json.dumps(entry) + "\n" for entry in done.history)
        (self.folder / "log.jsonl").write_text(text)
        self.report(
            f"epoch {done.epoch} of {self.settings.epochs}: loss {found['train']['loss']:.4f}, "
            f"validation {found['validation']:.4f}, {found['seconds']} s"
        )


def evaluate(module: TrainableGraph, samples: Samples, batch_size: int) -> float:
    """The share of right classes for integer labels, else minus the mean squared error, of the network that ships."""
    answer = shipped(module)
    right = error = 0.0
    for index in torch.split(torch.arange(len(samples)), batch_size):
        inputs, labels = samples.at(index)
        answers, *_ = answer(inputs)
        if labels is None:
            raise UsageError("validation data needs labels")
        if labels.is_floating_point():
            error += float(squared_errors(answers, labels).mean()) * len(index)
        else:
            found = right_classes(answers, labels)
            right += float(found.sum()) * len(index) / found.numel()
    return right / len(samples) if not error else -error / len(samples)


def _broadcast(tensors: Iterable[torch.Tensor], world: int) -> None:
    """Every process takes the tensors of the first."""
    if world > 1:
        for tensor in tensors:
            torch.distributed.broadcast(tensor, 0)


def _share_gradients(parameters: Iterable[nn.Parameter], share: float, world: int) -> None:
    """Gradients of the whole batch, of which this process had a share, perhaps a larger one than others.

    Those that the loss does not depend on have none anywhere, and stay as they are.
    """
    if world == 1:
        return
    reached = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
    whole = torch.cat([gradient.reshape(-1) for _, gradient in reached]) * share
    torch.distributed.all_reduce(whole)
    sizes = [gradient.numel() for _, gradient in reached]
    for (parameter, gradient), summed in zip(reached, torch.split(whole, sizes), strict=True):
        parameter.grad = summed.view_as(gradient)


def _total(sums: Mapping[str, float], world: int) -> dict[str, float]:
    """The sum over processes; what one of them finds not finite, all do."""
    held = torch.tensor(list(sums.values()), dtype=torch.float64)
    if world > 1:
        torch.distributed.all_reduce(held)
    return dict(zip(sums, held.tolist(), strict=True))


def _of_the_first(number: float, world: int) -> float:
    held = torch.tensor(number, dtype=torch.float64)
    _broadcast([held], world)
    return float(held)


def _join() -> tuple[int, int]:
    """The number of this process and how many there are: torchrun says so in the environment."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    return int(os.environ.get("RANK", "0")), world
