"""``docs/sparsity.md``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from octavo.backends.targets import X86_INT8
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels.sparse import BREAK_EVEN, break_even

from .. import results, sparsity, speed
from .tables import Record, interval_of, machines, table

SPARSE = """\
`sparsify{pattern=block:16x4,ratio=0.9}` makes blocks of weights zero: 16 output channels by 4 input channels at one
place of the kernel. Where few enough blocks of a convolution or linear layer are left, the bundle stores only these,
and a kernel of its own walks over them. It gives the interpreter's bytes, as every kernel does. Each level decides for
each layer; `octavo inspect BUNDLE --nodes` shows what and why. Other zeros (`single`, `N:M`, of grouped and transposed
convolutions) are multiplied as any weight, and `--compress` makes their bundles small."""

BREAK_EVENS = """\
The share of blocks at which both kernels are equally fast. Below it the sparse one is faster; 100 % means at any share.
Measured by processor time on x86, each kernel in turn with the dense one, and by guest instructions under QEMU on ARM.
*limit* is what the compiler goes by: the least that was measured, rounded down. On amx it is for each layer (in
brackets) what the choice between tdpbusd and vpdpbusd estimates of both."""

KERNEL_SPEED = """\
How many times faster than the dense kernel the sparse one is when so many blocks are left, as the median of the layers
above. Below 1 the dense kernel is the one that is used."""

NETWORKS = """\
How many times faster a whole network becomes on one thread, with its 95 % interval, where magnitudes choose the blocks
and each level its kernels. The weights are those of one bundle with all x86 levels. Nothing was trained: what zeros
cost in accuracy, and what training brings back, is another question."""


def page(folder: Path = results.FOLDER) -> str:
    """The document about zero weights."""
    kernels, networks = (results.read(part, folder) for part in ("sparsity", "sparse_networks"))
    parts = [
        "# Sparsity",
        "Measured by `make bench` and written by it.",
        SPARSE,
        "## Break-even",
        BREAK_EVENS,
        _break_even_table(kernels),
        "## Kernels",
        KERNEL_SPEED,
        _kernel_table(kernels),
        "## Networks",
        NETWORKS,
        _network_table(networks),
        "## Measured on",
        machines({**kernels, **networks}.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _measured_levels(found: Record) -> list[str]:
    return [level for level in ISAS if level in found]


def _break_even_table(found: Record) -> str:
    levels = _measured_levels(found)
    rows = [("*limit*", *("" if level == "amx" else f"{100 * BREAK_EVEN[level]:.0f} %" for level in levels))]
    for layer, spec in sparsity.LAYERS.items():
        cells = [f"{100 * found[level]['figures'][layer]['break_even']:.0f} %" for level in levels]
        if "amx" in levels:
            cells[levels.index("amx")] += f" ({100 * break_even(spec, ISAS['amx']):.0f})"
        rows.append((layer, *cells))
    return table(("layer", *levels), rows if levels else [])


def _kernel_table(found: Record) -> str:
    rows: list[tuple[str, ...]] = []
    for density in sparsity.DENSITIES:
        columns = [
            [layer["ratios"][str(density)] for layer in found[level]["figures"].values()]
            for level in _measured_levels(found)
        ]
        if columns:
            rows.append((f"{100 * density:.0f} %", *(f"{1 / float(np.median(ratios)):.2f}" for ratios in columns)))
    return table(("blocks left", *_measured_levels(found)), rows)


def _network_table(found: Record) -> str:
    levels = [level.name for level in X86_INT8.levels]
    rows: list[tuple[str, ...]] = []
    for name, record in found.items():
        for zeros, figures in record["figures"].items():
            ratios = [figures["ratios"].get(level) for level in levels]
            cells = ["1" if not float(zeros) else interval_of(ratio) if ratio else "" for ratio in ratios]
            rows.append((speed.MODELS[name], f"{100 * float(zeros):.0f} %", *cells, f"{figures['weights_mb']:.1f}"))
    return table(("network", "zeros", *levels, "weights MB"), rows)
