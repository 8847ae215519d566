"""The part of ``docs/performance.md`` about ARM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .. import arm, cycles, speed
from ..aims import products
from .tables import Record, table

ARM = """\
Millions of guest instructions of one inference on one thread, counted under QEMU; the level in brackets is the one a
bundle takes there. Beside it stands ONNX Runtime's own aarch64 build, called from Python and counted the same way, with
the file that its quantizer makes of the same float network and calibration inputs: s8 activations, s8 weights per
channel. Ratios are its instructions by octavo's: above 1 octavo needs fewer."""

I8MM = """\
smmla does 32 multiply-accumulates, sdot 16. Of dotprod's instructions in kernels that multiply only those go that do
it, at best half of them: what loads, rescales and stores stays, and depthwise convolutions are the same. *at best* is
the share that would be left of dotprod's instructions then."""

ARM_KERNELS = """\
The {count} layers of {title} with the most instructions on the newest CPU: millions of instructions, and in brackets
multiply-accumulates per instruction."""
ARM_LONGEST = 12

CYCLES = """\
Multiply-accumulates in a cycle of the inner loops, as the scheduling models of llvm-mca predict it for processors that
take the level in brackets: they know neither caches nor branches. A product of Winograd's filtering stands for four of
the convolution. Short sums and depthwise layers have no inner loop: there it is that over pixels, results and all."""


def arm_section(found: Record, peer: Record) -> list[str]:
    """Whole networks beside the other runtime, then the kernels that take the most instructions of each."""
    measured = {speed.MODELS[name]: found[name]["figures"] for name in arm.MODELS if name in found}
    columns = [f"{cpu} ({level})" for cpu, level in arm.CPUS.items()]
    whole = [row for name in arm.MODELS for row in _arm_rows(name, found, peer)]
    parts = [ARM, table(("network", "by", *columns), whole)]
    shares = [_i8mm_row(title, cpus) for title, cpus in measured.items() if {*_I8MM} <= {*cpus}]
    head = ("network", "dotprod, M", "of them multiply", "i8mm, M", "share", "at best")
    parts += [I8MM, table(head, shares)] if shares else []
    for title, cpus in measured.items():
        rows = _arm_kernels({cpu: cpus[cpu]["kernels"] for cpu in arm.CPUS if cpu in cpus})
        parts += [ARM_KERNELS.format(count=len(rows), title=title), table(("layer", "MACs, M", *columns), rows)]
    return parts


def _arm_rows(name: str, found: Record, peer: Record) -> list[tuple[str, ...]]:
    """Octavo's instructions of a network, the other runtime's and their ratio; empty where one was not measured."""
    if name not in found:
        return []
    figures: Record = peer[name]["figures"] if name in peer else {"version": "", "cpus": {}}
    ours, theirs = (_millions(cpus) for cpus in (found[name]["figures"], figures["cpus"]))
    ratios = {cpu: theirs[cpu] / ours[cpu] for cpu in arm.CPUS if cpu in ours and cpu in theirs}
    runtime = " ".join(word for word in ("ONNX Runtime", figures["version"], "int8") if word)
    return [
        (speed.MODELS[name], "octavo", *(f"{ours[cpu]:.1f}" if cpu in ours else "" for cpu in arm.CPUS)),
        ("", runtime, *(f"{theirs[cpu]:.1f}" if cpu in theirs else "" for cpu in arm.CPUS)),
        ("", "ratio", *(f"**{ratios[cpu]:.2f}**" if cpu in ratios else "" for cpu in arm.CPUS)),
    ]


_I8MM = ("neoverse-n1", "max")
"""CPUs with dotprod and with i8mm."""


def _i8mm_row(title: str, cpus: Record) -> tuple[str, ...]:
    """Instructions in kernels that multiply, with sdot and with smmla."""
    before, after = (products(cpus[cpu]) for cpu in _I8MM)
    multiply = sum(kernel["macs"] for kernel in cpus[_I8MM[0]]["kernels"]) / cycles.MULTIPLIED["sdot"]
    best = (before - multiply / 2) / before
    figures = (f"{before / 1e6:.1f}", f"{multiply / before:.0%}", f"{after / 1e6:.1f}")
    return (title, *figures, f"{after / before:.2f}", f"{best:.2f}")


def _millions(cpus: Record) -> dict[str, float]:
    return {cpu: figures["millions"] for cpu, figures in cpus.items()}


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
