"""How far a quantized classifier is from its float original."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Agreement:
    """``flips`` is the share of pictures whose first class changed; ``sqnr`` compares all logits, in dB."""

    top1: float
    flips: float
    sqnr: float

    def __str__(self) -> str:
        return f"top-1 {self.top1:.3f}, flips {100 * self.flips:.1f} %, SQNR {self.sqnr:.1f} dB"


def agreement(reference: NDArray[np.float32], logits: NDArray[np.float32], labels: list[int]) -> Agreement:
    """Compare logits [N, classes] with the float network's; with ``reference`` itself only ``top1`` says anything."""
    classes = logits.argmax(1)
    signal = float(np.square(reference, dtype=np.float64).sum())
    noise = float(np.square(reference - logits, dtype=np.float64).sum())
    return Agreement(
        top1=float(np.mean(classes == np.asarray(labels))),
        flips=float(np.mean(classes != reference.argmax(1))),
        sqnr=sqnr(signal, noise),
    )


def sqnr(signal: float, noise: float) -> float:
    """The ratio of two energies in dB, infinite without noise."""
    return float("inf") if noise == 0.0 else float(10 * np.log10(signal / noise))
