"""``docs/accuracy.md``, ``performance.md`` and ``sparsity.md``, rendered from the measured JSON alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from octavo.backends.targets import X86_INT8
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels.sparse import BREAK_EVEN, break_even

from . import arm, calibrators, cycles, profiles, results, sparsity, speed
from .aims import AIMS
from .building import ROOT
from .subjects import SUBJECTS

DOCS = ROOT / "docs"
Record = results.Record

INTRODUCTION = """\
What eight bits do to trained networks, measured by `make bench` and written by it. *octavo* is the compiled bundle with
the default pipeline; *ONNX Runtime* is its own static int8 quantization of the same network (u8 activations, s8 weights
per channel, after its pre-process step) with the same calibration inputs. Both are compared with the float network in
ONNX Runtime, on inputs that calibration has not seen.

*Flips* are predictions whose first class changed, *SQNR* compares whole outputs, in dB: more is better."""

LABELS = """\
The share whose first class is right. The pictures are likely ones the networks were trained on, so only the difference
from float says something."""

CALIBRATORS = """\
SQNR in dB and flips by the method of `observe`, in the interpreter's fake quantization, on every n-th of the evaluation
inputs."""

X86 = """\
One image, line or frame at a time. In each round every runner has its turn, forwards and backwards; a ratio is the
median over rounds of the other's time by octavo's, with its 95 % interval: above 1 octavo is faster. Absolute times
depend on what else the machine does; ratios of one round do so far less. One thread is timed by the processor time that
it takes, two threads by the clock, after they have worked for a moment. Every other runtime works in a process of its
own, on the same float network:

- *ORT int8* is ONNX Runtime's QDQ form (u8 activations, s8 weights per channel, after its pre-process step), *ORT
  dynamic* its form with activations quantized in each call, for networks without convolutions, *ORT float* float32;
- *OpenVINO int8* is the faster one of what NNCF makes of the float network and of the same QDQ file, *OpenVINO bf16*
  the float network.

*fastest other* is the one that octavo is the fewest times faster than."""

WITHOUT_OPENVINO = """\
Not yet measured again since OpenVINO takes part, and with ONNX Runtime in octavo's process: {}."""

LEVELS = """\
The same bundles held to a lower level, beside the faster int8 of OpenVINO held to the same instructions by
`ONEDNN_MAX_CPU_ISA`."""

LEVELS_ORT = """\
Beside ONNX Runtime's int8, which cannot be held back and uses the best that this CPU has."""

AIMS_READ = """\
Times as fast unless another unit is named, on one thread unless said: of several networks, peers or runs the least. A
second thread of this machine may be the other half of the same core."""

PROFILE = """\
The time of each network's kernels on one thread, in GMAC/s and as a share of what the level's own instruction reaches
here in a bare loop, then the shares of the time that each limit bounds. *explained* is how much of the time the limits
leave: multiplying, rescaling results to bytes (beside the products on amx alone), and moving bytes from where they lie.
Winograd's filtering counts the multiplications of the convolution, so it may exceed the peak. What is not explained is
the gap: loads beside the products, ends of lines that fill no tile, and weights that arrive late.

- *avx2* multiplies words, since pmaddubsw saturates on full-range bytes: the limit is pmaddwd's, and most convolutions
  are near it. OpenVINO multiplies bytes there.
- *avxvnni*, *avx512vnni*: late layers wait for weights, first and wide layers for the rescaling of their results.
- *amx* multiplies so fast that small layers are bound by rescaling, and late ones with few pixels by weights."""

LONGEST_KERNELS = """\
The {count} kernels of {title} that take longest on {level}."""
KERNELS_SHOWN = 10

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

COMPILING = """\
`octavo compile` of the ONNX file with 100 calibration inputs, a chain with 8; memory of all its processes together. The
two chains of small layers call the same kernels: they show the cost of everything that is done for each node."""


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


def write(docs: Path = DOCS, folder: Path = results.FOLDER) -> None:
    """Write the documents."""
    (docs / "accuracy.md").write_text(accuracy_page(folder), encoding="utf-8")
    (docs / "performance.md").write_text(performance_page(folder), encoding="utf-8")
    (docs / "sparsity.md").write_text(sparsity_page(folder), encoding="utf-8")


def accuracy_page(folder: Path = results.FOLDER) -> str:
    """The accuracy document."""
    found = results.read("accuracy", folder)
    parts = [
        "# Accuracy",
        INTRODUCTION,
        _accuracy_table(found),
        "## Photographs with labels",
        LABELS,
        _labelled_table(found),
        "## What stays in float",
        "Ops that compute in float32 in the compiled network; `octavo inspect` gives the reason for each.",
        _float_table(found),
    ]
    parts += _calibrators(results.read("calibrators", folder))
    parts += ["## Measured on", _machines(found)]
    return "\n\n".join(parts) + "\n"


def performance_page(folder: Path = results.FOLDER) -> str:
    """The performance document."""
    names = ("speed", "profile", "arm", "cycles", "compiling")
    fast, time, small, ticks, cost = (results.read(part, folder) for part in names)
    others = {"profile": time, "arm": small, "cycles": ticks, "compile": cost}
    parts = [
        "# Performance",
        "Measured by `make bench` and written by it.",
        "## What is to be reached",
        AIMS_READ,
        _aims_table({"speed": fast, "arm": small, "compiling": cost}),
        "## x86",
        X86,
        _measured_before(fast),
        *(_speed_section(fast, threads) for threads in (1, 2)),
        "## Older instruction sets",
        *_levels_section(fast),
        *_profile_section(time),
        "## ARM",
        *_arm_section(small),
        *_cycles_section(ticks),
        "## Compiling",
        COMPILING,
        _compiling_table(cost),
        "## Measured on",
        _machines(fast | {f"{part} {name}": each for part, found in others.items() for name, each in found.items()}),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def sparsity_page(folder: Path = results.FOLDER) -> str:
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
        _machines({**kernels, **networks}),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


# Sparsity ----------------------------------------------------------------------------------------------------------


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
    return _table(("layer", *levels), rows if levels else [])


def _kernel_table(found: Record) -> str:
    rows: list[tuple[str, ...]] = []
    for density in sparsity.DENSITIES:
        columns = [
            [layer["ratios"][str(density)] for layer in found[level]["figures"].values()]
            for level in _measured_levels(found)
        ]
        if columns:
            rows.append((f"{100 * density:.0f} %", *(f"{1 / float(np.median(ratios)):.2f}" for ratios in columns)))
    return _table(("blocks left", *_measured_levels(found)), rows)


def _network_table(found: Record) -> str:
    levels = [level.name for level in X86_INT8.levels]
    rows: list[tuple[str, ...]] = []
    for name, record in found.items():
        for zeros, figures in record["figures"].items():
            ratios = [figures["ratios"].get(level) for level in levels]
            cells = ["1" if not float(zeros) else _ratio(ratio) if ratio else "" for ratio in ratios]
            rows.append((speed.MODELS[name], f"{100 * float(zeros):.0f} %", *cells, f"{figures['weights_mb']:.1f}"))
    return _table(("network", "zeros", *levels, "weights MB"), rows)


# Accuracy ----------------------------------------------------------------------------------------------------------


def _accuracy_table(found: Record) -> str:
    rows: list[tuple[str, ...]] = []
    for name, subject in SUBJECTS.items():
        if name not in found:
            continue
        figures = found[name]["figures"]
        used = f"{figures['evaluation']} {figures['data']}"
        for runner in ("octavo", "onnxruntime", "onnxruntime dynamic"):
            if runner not in figures:
                continue
            own = figures[runner]
            extra = ", ".join(f"{key} {own[key]:.3f}" for key in subject.extras or {})
            first = runner == "octavo"
            title = f"**{subject.title}**" if first else ""
            rows.append((title, used if first else "", _runner(runner), _percent(own), f"{own['sqnr']:.1f}", extra))
    return _table(("network", "evaluated on", "", "flips", "SQNR", ""), rows)


def _labelled_table(found: Record) -> str:
    rows: list[tuple[str, ...]] = []
    for name, subject in SUBJECTS.items():
        if subject.labels and name in found:
            figures = found[name]["figures"]
            rows.append((subject.title, *(f"{figures[r]['top1']:.3f}" for r in ("float", "octavo", "onnxruntime"))))
    return _table(("network", "float", "octavo", "ONNX Runtime int8"), rows)


def _float_table(found: Record) -> str:
    rows: list[tuple[str, ...]] = []
    for name, subject in SUBJECTS.items():
        if name in found:
            kept = found[name]["figures"]["stays_float"]
            rows.append((subject.title, ", ".join(f"{op} x {count}" for op, count in kept.items()) or "nothing"))
    return _table(("network", "in float"), rows)


def _calibrators(found: Record) -> list[str]:
    if not found:
        return []
    titles = [name for name in calibrators.MODELS if name in found]
    options = list(dict.fromkeys(option for name in titles for option in found[name]["figures"]))
    rows = [(option, *(_sqnr_and_flips(found[name]["figures"].get(option)) for name in titles)) for option in options]
    return [
        "## Ways to calibrate",
        CALIBRATORS,
        _table(("method", *(SUBJECTS[name].title for name in titles)), rows),
    ]


def _sqnr_and_flips(figures: Mapping[str, float] | None) -> str:
    return f"{figures['sqnr']:.1f} ({100 * figures['flips']:.1f} %)" if figures else ""


def _runner(name: str) -> str:
    return name.replace("onnxruntime", "ONNX Runtime")


def _percent(figures: Mapping[str, float]) -> str:
    return f"{100 * figures['flips']:.1f} %" if "flips" in figures else ""


# Performance -------------------------------------------------------------------------------------------------------


_KINDS: Mapping[str, Sequence[str]] = {
    "ORT int8": ("onnxruntime int8",),
    "ORT dynamic": ("onnxruntime int8 (dynamic)",),
    "ORT float": ("onnxruntime float32",),
    "OpenVINO int8": ("openvino int8 (NNCF)", "openvino int8 (QDQ)"),
    "OpenVINO bf16": ("openvino bf16",),
}
"""The columns of other runtimes, and the runners that each stands for."""


def _speed_section(found: Record, threads: int) -> str:
    records = [
        (title, record)
        for name, title in speed.MODELS.items()
        for record in _records(found, name)
        if record["threads"] == threads
    ]
    if not records:
        return ""
    kinds = [kind for kind, names in _KINDS.items() if any(_fastest(record, names) for _, record in records)]
    rows: list[tuple[str, ...]] = []
    for title, record in records:
        best = record["level"]
        runner = _fastest(record, [name for names in _KINDS.values() for name in names])
        assert runner is not None
        times = (f"{record['runners'][name]['median_ms']:.2f}" for name in (best, runner))
        shown = (_fastest(record, _KINDS[kind]) for kind in kinds)
        medians = (f"{record['ratios'][f'{name}/{best}'][0]:.2f}" if name else "" for name in shown)
        kind = next(kind for kind, names in _KINDS.items() if runner in names)
        rows.append((title, *times, kind, _ratio(record["ratios"][f"{runner}/{best}"]), *medians))
    head = ("network", "octavo ms", "fastest other ms", "which is", "its time / octavo's", *kinds)
    return f"**{threads} thread{'s' if threads > 1 else ''}**\n\n" + _table(head, rows)


def _measured_before(found: Record) -> str:
    """Which networks' figures are of the time before OpenVINO took part."""
    names = [title for name, title in speed.MODELS.items() for record in _records(found, name)[:1] if _is_old(record)]
    return WITHOUT_OPENVINO.format(", ".join(names)) if names else ""


def _is_old(record: Record) -> bool:
    return "failures" not in record


def _fastest(record: Record, names: Iterable[str]) -> str | None:
    """The runner that the best level is the fewest times faster than."""
    ratios = {name: record["ratios"].get(f"{name}/{record['level']}") for name in names}
    measured = {name: ratio[0] for name, ratio in ratios.items() if ratio}
    return min(measured, key=lambda name: measured[name], default=None)


def _levels_section(found: Record) -> list[str]:
    tables = {
        LEVELS: _levels_table(found, lambda level: [speed.held(name, level) for name in _KINDS["OpenVINO int8"]]),
        LEVELS_ORT: _levels_table(found, lambda level: _KINDS["ORT int8"]),
    }
    return [text for introduction, table in tables.items() if table for text in (introduction, table)]


def _levels_table(found: Record, peers: Callable[[str], Sequence[str]]) -> str:
    """The ratio of the fastest of the peers that stand beside each level; empty when none was measured."""
    records = [(title, record) for name, title in speed.MODELS.items() for record in _records(found, name)]
    cells = [(title, record, _level_cells(record, peers)) for title, record in records]
    levels = [level.name for level in X86_INT8.levels if any(level.name in shown for _, _, shown in cells)]
    rows = [
        (title, str(record["threads"]), *(shown.get(level, "") for level in levels)) for title, record, shown in cells
    ]
    return _table(("network", "threads", *levels), rows) if levels else ""


def _level_cells(record: Record, peers: Callable[[str], Sequence[str]]) -> dict[str, str]:
    shown: dict[str, str] = {}
    for level in X86_INT8.levels:
        ratios = [record["ratios"].get(f"{peer}/{level.name}") for peer in peers(level.name)]
        measured = [ratio for ratio in ratios if ratio]
        if measured:
            shown[level.name] = _ratio(min(measured))
    return shown


def _records(found: Record, name: str) -> Sequence[Record]:
    records: Sequence[Record] = found[name]["figures"] if name in found else ()
    return records


def _aims_table(found: Mapping[str, Record]) -> str:
    rows: list[tuple[str, ...]] = []
    for aim in AIMS:
        value = aim.figure(found)
        wanted = f"at least {aim.least:g}" if aim.least is not None else f"at most {aim.most:g}"
        shown = ("", "") if value is None else (_three_digits(value), "yes" if aim.reached(value) else "**no**")
        rows.append((aim.what, aim.against, wanted, *shown))
    return _table(("what", "beside", "wanted", "measured", "reached"), rows)


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _profile_section(found: Record) -> list[str]:
    """A row for every network and level, then the longest kernels on the strongest level."""
    if not found:
        return []
    networks = {speed.MODELS[name]: found[name]["figures"] for name in profiles.MODELS if name in found}
    bounds = ("compute", "epilogue", "memory")
    head = ("network", "level", "ms", "GMAC/s", "of peak", *(f"{bound}" for bound in bounds), "explained")
    rows = [
        (title, level, *_profile_cells(figures, bounds))
        for title, levels in networks.items()
        for level, figures in levels.items()
    ]
    parts = ["## Where the time goes", PROFILE, _table(head, rows)]
    for title, levels in networks.items():
        level, figures = list(levels.items())[-1]
        longest = sorted(figures["kernels"], key=lambda kernel: -kernel["us"])[:KERNELS_SHOWN]
        parts += [LONGEST_KERNELS.format(count=len(longest), title=title, level=level), _kernels_table(longest)]
    return parts


def _profile_cells(figures: Record, bounds: Sequence[str]) -> Iterable[str]:
    kernels = figures["kernels"]
    total = sum(kernel["us"] for kernel in kernels)
    rate = sum(kernel["macs"] for kernel in kernels) / total / 1e3
    shares = (sum(kernel["us"] for kernel in kernels if kernel["bound"] == bound) / total for bound in bounds)
    explained = sum(kernel["us"] * min(1, kernel["reached"]) for kernel in kernels) / total
    percent = (f"{100 * share:.0f} %" for share in (rate / figures["peak"], *shares, explained))
    return (f"{total / 1e3:.2f}", f"{rate:.0f}", *percent)


def _kernels_table(kernels: Sequence[Record]) -> str:
    rows = [
        (
            f"`{kernel['layer']}`",
            kernel["kind"],
            f"{kernel['us']:.1f}",
            f"{kernel['macs'] / 1e6:.1f}",
            f"{kernel['bytes'] / 1e3:.0f}",
            f"{kernel['macs'] / kernel['us'] / 1e3:.0f}",
            f"{100 * kernel['peak_share']:.0f} %",
            kernel["bound"],
            f"{100 * kernel['reached']:.0f} %",
        )
        for kernel in kernels
    ]
    return _table(("kernel", "kind", "us", "MACs, M", "kB", "GMAC/s", "of peak", "bound by", "explained"), rows)


def _arm_section(found: Record) -> list[str]:
    """Whole networks, then the kernels that take the most instructions of each."""
    measured = {speed.MODELS[name]: found[name]["figures"] for name in arm.MODELS if name in found}
    columns = [f"{cpu} ({level})" for cpu, level in arm.CPUS.items()]
    whole = [
        (title, *(f"{cpus[cpu]['millions']:.1f}" if cpu in cpus else "" for cpu in arm.CPUS))
        for title, cpus in measured.items()
    ]
    parts = [ARM, _table(("network", *columns), whole)]
    for title, cpus in measured.items():
        rows = _arm_kernels({cpu: cpus[cpu]["kernels"] for cpu in arm.CPUS if cpu in cpus})
        parts += [ARM_KERNELS.format(count=len(rows), title=title), _table(("layer", "MACs, M", *columns), rows)]
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


def _cycles_section(found: Record) -> list[str]:
    cpus = {cpu: found[cpu]["figures"] for cpu in cycles.CPUS if cpu in found}
    if not cpus:
        return []
    rows = [
        (title, *(_per_cycle(figures[title]) if title in figures else "" for figures in cpus.values()))
        for title in cycles.KERNELS
    ]
    return ["### Cycles", CYCLES, _table(("kernel", *(f"{cpu} ({cycles.CPUS[cpu]})" for cpu in cpus)), rows)]


def _per_cycle(loop: Record) -> str:
    return f"{loop['macs'] / loop['cycles']:.1f}"


def _compiling_table(found: Record) -> str:
    rows: list[tuple[str, ...]] = []
    for name in found:
        for target, cost in found[name]["figures"].items():
            figures = (f"{cost['seconds']:.0f}", f"{cost['memory_mb']:.0f}", f"{cost['bundle_mb']:.1f}")
            rows.append((speed.MODELS.get(name, name), target, *figures))
    return _table(("network", "for", "seconds", "memory MB", "bundle MB"), rows)


# Both --------------------------------------------------------------------------------------------------------------


def _ratio(ratio: Sequence[float]) -> str:
    median, low, high = ratio
    return f"**{median:.2f}** [{low:.2f}, {high:.2f}]"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _machines(found: Record) -> str:
    """Each distinct machine and what was measured on it. The load says how busy others kept the machine."""
    groups: dict[str, list[str]] = {}
    for name, record in found.items():
        m = record["machine"]
        packages = ", ".join(f"{package} {version}" for package, version in m["packages"].items())
        text = f"{m['cpus']} CPUs of {m['cpu']} ({', '.join(m['levels'])}); {packages}"
        groups.setdefault(text, []).append(f"{name} at {m['commit']}, load {m['load']}")
    return "\n\n".join(f"{text}.\n\n{'; '.join(names)}." for text, names in groups.items())
