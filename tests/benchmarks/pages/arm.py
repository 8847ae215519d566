"""The part of ``docs/performance.md`` about ARM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .. import arm, cycles, speed
from .tables import Record, table

ARM = """\
Millions of guest instructions of one inference on one thread, counted under QEMU; the level in brackets is the one a
bundle takes there.

For scale: ONNX Runtime 1.23.2's aarch64 build, int8 with s8 activations and weights, one thread, needed 61
(neoverse-n1) and 113 million instructions (cortex-a53) for MobileNetV2, and 179 and 525 million for ResNet-18. That was
counted by the same method on another machine and is not part of this command."""

ARM_KERNELS = """\
The {count} layers of {title} with the most instructions on the newest CPU: millions of instructions, and in brackets
multiply-accumulates per instruction."""
ARM_LONGEST = 12

CYCLES = """\
Multiply-accumulates in a cycle of the inner loops, as the scheduling models of llvm-mca predict it for processors that
take the level in brackets: they know neither caches nor branches. A product of Winograd's filtering stands for four of
the convolution. Short sums and depthwise layers have no inner loop: there it is that over pixels, results and all."""


def arm_section(found: Record) -> list[str]:
    """Whole networks, then the kernels that take the most instructions of each."""
    measured = {speed.MODELS[name]: found[name]["figures"] for name in arm.MODELS if name in found}
    columns = [f"{cpu} ({level})" for cpu, level in arm.CPUS.items()]
    whole = [
        (title, *(f"{cpus[cpu]['millions']:.1f}" if cpu in cpus else "" for cpu in arm.CPUS))
        for title, cpus in measured.items()
    ]
    parts = [ARM, table(("network", *columns), whole)]
    for title, cpus in measured.items():
        rows = _arm_kernels({cpu: cpus[cpu]["kernels"] for cpu in arm.CPUS if cpu in cpus})
        parts += [ARM_KERNELS.format(count=len(rows), title=title), table(("layer", "MACs, M", *columns), rows)]
    return parts


def _arm_kernels(cpus: Mapping[str, Sequence[Record]]) -> list[tuple[str, ...]]:
    """Instructions and multiply-accumulates per instruction by layer, most instructions on the newest CPU first."""
    by_layer = {cpu: _by_layer(kernels) for cpu, kernels in cpus.items()}
    newest = by_layer[list(cpus)[-1]]
    rows: list[tuple[str, ...]] = []
    for layer in sorted(newest, key=lambda layer: -newest[layer]["instructions"])[:ARM_LONGEST]:
        cells = [_arm_cell(by_layer[cpu].get(layer)) for cpu in cpus]
        rows.append((f"`{layer}`", f"{newest[layer]['macs'] / 1e6:.1f}", *cells))
    return rows


def _by_layer(kernels: Sequence[Record]) -> dict[str, Record]:
    """The sums of the kernels that compute a layer together."""
    found: dict[str, Record] = {}
    for kernel in kernels:
        total = found.setdefault(kernel["layer"], {"instructions": 0, "macs": 0})
        for unit in total:
            total[unit] += kernel[unit]
    return found


def _arm_cell(kernel: Record | None) -> str:
    if kernel is None:
        return ""
    return f"{kernel['instructions'] / 1e6:.2f} ({kernel['macs'] / kernel['instructions']:.1f})"


def cycles_section(found: Record) -> list[str]:
    cpus = {cpu: found[cpu]["figures"] for cpu in cycles.CPUS if cpu in found}
    if not cpus:
        return []
    rows = [
        (title, *(_per_cycle(figures[title]) if title in figures else "" for figures in cpus.values()))
        for title in cycles.KERNELS
    ]
    return ["### Cycles", CYCLES, table(("kernel", *(f"{cpu} ({cycles.CPUS[cpu]})" for cpu in cpus)), rows)]


def _per_cycle(loop: Record) -> str:
    return f"{loop['macs'] / loop['cycles']:.1f}"
