"""``docs/performance.md``: what is to be reached, x86 machine by machine, ARM."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from octavo.backends.targets import X86_INT8

from .. import profiles, results, speed
from ..aims import ARM_AIMS, X86_AIMS, Aim
from .arm import arm_section, cycles_section
from .tables import Record, interval_of, machines, table

X86 = """\
One image, line or frame at a time. In each round every runner has its turn, forwards and backwards; a ratio is the
median over rounds of the other's time by octavo's, with its 95 % interval: above 1 octavo is faster. Absolute times
depend on what else the machine does; ratios of one round do so far less. One thread is timed by the processor time that
it takes, in its second call, two threads by the clock, after 0.1 s of calls: threads of the runner before may spin for
half of that. What the second thread is worth is the ratio of two bundles that are both measured so; the machine with
AMX, and the one with AVX2 alone, have the two ways of measuring in that figure.
Every other runtime works in a process of its own, on the same float network:

- *ORT int8* is ONNX Runtime's QDQ form (u8 activations, s8 weights per channel, after its pre-process step), *ORT
  dynamic* its form with activations quantized in each call, for networks without convolutions, *ORT float* float32;
- *OpenVINO int8* is the faster one of what NNCF makes of the float network and of the same QDQ file, *OpenVINO bf16*
  the float network.

*fastest other* is the one that octavo is the fewest times faster than."""

LEVELS = """\
The same bundles held to a lower level, beside the faster int8 of OpenVINO held to the same instructions by
`ONEDNN_MAX_CPU_ISA`."""

LEVELS_ORT = """\
Beside ONNX Runtime's int8, which cannot be held back and uses the best that this CPU has."""

AIMS_READ = """\
Times as fast unless another unit is named, on one thread unless said: of several networks, peers or runs the least. A
figure in bold falls short; a machine without figures lacks the instructions. A second thread of these machines may be
the other half of the same core. Machines were measured at the commits that "Measured on" lists, some before others."""

SHORT = """\
What bounds what falls short:

- *ResNets on avx512vnni*: on the processors of AMD products run close to the peak of vpdpbusd ("Where the time goes"),
  and what is gained beyond are the multiplications that Winograd's filtering saves. On the Xeon a part is not
  explained, most of it in later layers. Machines other than the Zen 4 (avx2, avx512vnni) were measured before layers
  of more than 128 channels took Winograd's filtering.
- *avx2*: OpenVINO multiplies all bytes by pmaddubsw, and saturates where weights are large; octavo gives the same bytes
  everywhere, so it does where the weights of eight channels prove that nothing saturates, and multiplies words
  elsewhere. Weights of seven bits (`quantize{weight-bits=7}`) always prove it. The machine with AMX was measured before
  octavo did so.
- *2 threads*: tasks are equal shares of each layer, to a few percent. The rest is lost on lines of the cache that the
  other core wrote last, on weights that both read from memory, and on virtual machines to whoever else uses the core.
  How long a line takes from core to core changes by itself on these virtual machines, from one minute to the next, and
  with it what a second thread is worth to small networks. That of the Zen 5 took long while MobileNetV2 was measured.
  Machines other than the Zen 4 (avx2, avx512vnni) were measured when borders of images were steps of their own: 17 of
  MobileNetV2's.
  The machine with AMX, and the one with AVX2 alone, were measured before threads left each other's CPU and helped each
  other, and while ONNX Runtime's threads still spun on one of the two CPUs when octavo's turn came.
- *i8mm*: what is neither sdot nor smmla is the same on both levels; a table under "ARM" has the least that is left."""

ARM_AIMS_READ = """\
On ARM, of any machine:"""

PROFILE = """\
The time of each network's kernels on one thread, in GMAC/s and as a share of what the level's own instruction reaches
here in a bare loop, then the shares of the time that each limit bounds. *explained* is how much of the time the limits
leave: multiplying, rescaling results to bytes (beside the products on amx alone), and moving bytes from where they lie.
Winograd's filtering counts the multiplications of the convolution, so it may exceed the peak. What is not explained is
the gap: loads beside the products, ends of lines that fill no tile, and weights that arrive late. Rescaling is that by
the fewest instructions; when the machine with AMX, and the one with AVX2 alone, were measured, a bias, a clamp and a
zero point were in it.

- *avx2*: the limit is pmaddwd's, which multiplies words, for pmaddubsw saturates on full-range bytes. Where weights
  prove that it does not, layers pass that limit.
- *avxvnni*, *avx512vnni*: late layers wait for weights, first and wide layers for the rescaling of their results.
- *amx* multiplies so fast that small layers are bound by rescaling, and late ones with few pixels by weights."""

LONGEST_KERNELS = """\
The {count} kernels of {title} that take longest on {level}."""
KERNELS_SHOWN = 10

COMPILING = """\
`octavo compile` of the ONNX file with 100 calibration inputs, a chain with 8; memory of all its processes together. The
two chains of small layers call the same kernels: they show the cost of everything that is done for each node."""


def page(folder: Path = results.FOLDER) -> str:
    """The performance document."""
    places = results.machines(folder)
    measured = [{part: results.read(part, place) for part in results.OF_A_MACHINE} for place in places]
    small, peer, ticks = (results.read(part, folder) for part in ("arm", "arm_peer", "cycles"))
    titles = [_title(results.described(place)) for place in places]
    sections = [_x86_section(title, found) for title, found in zip(titles, measured, strict=True)]
    parts = [
        "# Performance",
        "Measured by `make bench` and written by it.",
        "## What is to be reached",
        AIMS_READ,
        _aims_table(X86_AIMS, dict(zip(titles, measured, strict=True))),
        ARM_AIMS_READ,
        _aims_table(ARM_AIMS, {"measured": {"arm": small}}),
        SHORT,
        "## How x86 is measured",
        X86,
        *(part for section in sections for part in section),
        "## ARM",
        *arm_section(small, peer),
        *cycles_section(ticks),
        "## Measured on",
        machines(_labelled(measured, {"arm": small, "arm_peer": peer, "cycles": ticks})),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _title(machine: Record) -> str:
    return f"{machine['cpu']}: {', '.join(machine['levels'])}" if machine else "a machine"


def _x86_section(title: str, found: Mapping[str, Record]) -> list[str]:
    """All that was measured on one kind of machine."""
    return [
        f"## {title}",
        *(_speed_section(found["speed"], threads) for threads in (1, 2)),
        *_levels_section(found["speed"]),
        *_profile_section(found["profile"]),
        *_compiling_section(found["compiling"]),
    ]


def _labelled(measured: Sequence[Mapping[str, Record]], of_any: Mapping[str, Record]) -> Iterable[tuple[str, Record]]:
    """All records with what they are, for the list of machines."""
    parts = [*(pair for found in measured for pair in found.items()), *of_any.items()]
    return ((f"{part} {name}", record) for part, found in parts for name, record in found.items())


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
        rows.append((title, *times, kind, interval_of(record["ratios"][f"{runner}/{best}"]), *medians))
    head = ("network", "octavo ms", "fastest other ms", "which is", "its time / octavo's", *kinds)
    return f"**{threads} thread{'s' if threads > 1 else ''}**\n\n" + table(head, rows)


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
    shown = [text for introduction, rows in tables.items() if rows for text in (introduction, rows)]
    return ["### Older instruction sets", *shown] if shown else []


def _levels_table(found: Record, peers: Callable[[str], Sequence[str]]) -> str:
    """The ratio of the fastest of the peers that stand beside each level; empty when none was measured."""
    records = [(title, record) for name, title in speed.MODELS.items() for record in _records(found, name)]
    cells = [(title, record, _level_cells(record, peers)) for title, record in records]
    levels = [level.name for level in X86_INT8.levels if any(level.name in shown for _, _, shown in cells)]
    rows = [
        (title, str(record["threads"]), *(shown.get(level, "") for level in levels)) for title, record, shown in cells
    ]
    return table(("network", "threads", *levels), rows) if levels else ""


def _level_cells(record: Record, peers: Callable[[str], Sequence[str]]) -> dict[str, str]:
    shown: dict[str, str] = {}
    for level in X86_INT8.levels:
        ratios = [record["ratios"].get(f"{peer}/{level.name}") for peer in peers(level.name)]
        measured = [ratio for ratio in ratios if ratio]
        if measured:
            shown[level.name] = interval_of(min(measured))
    return shown


def _records(found: Record, name: str) -> Sequence[Record]:
    records: Sequence[Record] = found[name]["figures"] if name in found else ()
    return records


def _aims_table(aims: Sequence[Aim], measured: Mapping[str, Mapping[str, Record]]) -> str:
    """The figure of each machine by its title, in bold where it is not enough."""
    rows: list[tuple[str, ...]] = []
    for aim in aims:
        wanted = f"at least {aim.least:g}" if aim.least is not None else f"at most {aim.most:g}"
        rows.append((aim.what, aim.against, wanted, *(_reached(aim, found) for found in measured.values())))
    return table(("what", "beside", "wanted", *measured), rows)


def _reached(aim: Aim, found: Mapping[str, Record]) -> str:
    value = aim.figure(found)
    if value is None:
        return ""
    return _shown(value) if aim.reached(value) else f"**{_shown(value)}**"


def _shown(value: float) -> str:
    """With digits enough to see on which side of an aim it is."""
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


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
    parts = ["### Where the time goes", PROFILE, table(head, rows)]
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
    return table(("kernel", "kind", "us", "MACs, M", "kB", "GMAC/s", "of peak", "bound by", "explained"), rows)


def _compiling_section(found: Record) -> list[str]:
    rows: list[tuple[str, ...]] = []
    for name in found:
        for target, cost in found[name]["figures"].items():
            figures = (f"{cost['seconds']:.0f}", f"{cost['memory_mb']:.0f}", f"{cost['bundle_mb']:.1f}")
            rows.append((speed.MODELS.get(name, name), target, *figures))
    head = ("network", "for", "seconds", "memory MB", "bundle MB")
    return ["### Compiling", COMPILING, table(head, rows)] if rows else []
