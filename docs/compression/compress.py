"""The example: a network for handwritten digits is trained, then made small in two ways, and all are compared.

``make compress`` installs what it needs and runs it. Each step is one call of ``octavo train`` with a configuration
of this folder; a step that has been done is not done again.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import octavo
import torch
from digits import test, training
from octavo.ir.text import load_graph
from rich.console import Console
from rich.table import Table

STEPS = ("1-dense", "2-pruned", "3-int8", "4-sparse", "5-shared")
HERE = Path(__file__).parent
CALLS = 300
console = Console(width=100)


def trained(step: str) -> octavo.Graph:
    """What a step made, after it ran."""
    return load_graph(HERE / f"{step}.run" / "trained.octavo")


def bundles() -> dict[str, Path]:
    """The compiled networks. Of the dense one there is none yet: its ranges come from training images."""
    plain = HERE / "1-dense.run" / "dense.bundle"
    calibration = [{"input": image[None]} for image in training()[0][:200]]
    octavo.compile(trained("1-dense"), output=plain, mcpu="native", calibration=calibration, overwrite=True)
    return {
        "int8 after training": plain,
        "half of the MACs, int8 in training": HERE / "3-int8.run" / "int8.bundle",
        "90 % zeros, shared values, coded": HERE / "5-shared.run" / "shared.bundle",
    }


def right(answer: Callable[[np.ndarray], np.ndarray]) -> float:
    """The share of test images that are recognized, one after the other."""
    images, labels = test()
    return float(np.mean([answer(image[None]).argmax() == label for image, label in zip(images, labels, strict=True)]))


def milliseconds(answer: Callable[[np.ndarray], np.ndarray]) -> float:
    """The median time of a call."""
    image = test()[0][:1]
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        answer(image)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def in_torch(graph: octavo.Graph) -> Callable[[np.ndarray], np.ndarray]:
    """The float network, as it was trained."""
    module = octavo.to_torch(graph).eval()

    def answer(image: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            scores: np.ndarray = module(torch.from_numpy(image)).numpy()
        return scores

    return answer


def main() -> None:
    """Run the steps, then compare what they made on images that nothing has seen."""
    torch.set_num_threads(1)
    for step in STEPS:
        console.rule(f"octavo train {step}.toml")
        command = [sys.executable, "-m", "octavo.cli", "train", f"{step}.toml"]
        if subprocess.run(command, cwd=HERE, check=False).returncode:
            raise SystemExit(1)
    dense = trained("1-dense")
    stored = sum(parameter.numel() * 4 for parameter in octavo.to_torch(dense).state_dict().values())
    table = Table("", "right, %", "weights, kB", "smaller", "ms", title="1,000 test images, one thread")
    answer = in_torch(dense)
    table.add_row(
        "float, in torch", f"{100 * right(answer):.1f}", f"{stored / 1000:.1f}", "", f"{milliseconds(answer):.3f}"
    )
    for name, path in bundles().items():
        size = (path / "weights.bin").stat().st_size
        with octavo.load(path, threads=1) as bundle:
            row = (f"{100 * right(bundle):.1f}", f"{size / 1000:.1f}", f"{stored / size:.1f}x")
            table.add_row(name, *row, f"{milliseconds(bundle):.3f}")
    console.print(table)


if __name__ == "__main__":
    main()
