"""What the kernels are to reach, beside what was measured: the least of several networks, peers and runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from . import results
from .compiling import CHAINS, NATIVE
from .speed import held

Record = results.Record
Measured = Mapping[str, Record]
"""The measured parts by name."""

INT8 = ("openvino int8 (NNCF)", "openvino int8 (QDQ)")
RESNETS, SMALL = ("resnet18", "resnet50"), ("mobilenet_v2", "efficientnet_lite0")


@dataclass(frozen=True)
class Aim:
    """`least` times as fast, or `most` of something, and where the figure comes from: None if not measured."""

    what: str
    against: str
    figure: Callable[[Measured], float | None]
    least: float | None = None
    most: float | None = None

    def reached(self, value: float) -> bool:
        """Whether `value` is enough."""
        return value >= self.least if self.least is not None else self.most is None or value <= self.most


def _record(found: Measured, name: str, threads: int) -> Record | None:
    records: Sequence[Record] = found["speed"].get(name, {}).get("figures", ())
    return next((record for record in records if record["threads"] == threads), None)


def _times_as_fast(
    names: Sequence[str], level: str | None, peers: Sequence[str], threads: int = 1
) -> Callable[[Measured], float | None]:
    """The least ratio of any of the peers on any of the networks, on the machine's best level by default."""

    def figure(found: Measured) -> float | None:
        records = [record for name in names if (record := _record(found, name, threads))]
        ratios = [record["ratios"].get(f"{peer}/{level or record['level']}") for record in records for peer in peers]
        return min((ratio[0] for ratio in ratios if ratio), default=None)

    return figure


def _second_thread(names: Sequence[str]) -> Callable[[Measured], float | None]:
    """The least ratio of the time on one thread by that on two.

    Records that do not have it are from when the two were not measured alike: one thread by its second call, two
    threads by one after many.
    """

    def ratio(one: Record, two: Record) -> float:
        own = two.get("second_thread")
        return float(own[0]) if own else _median(one, one["level"]) / _median(two, two["level"])

    def figure(found: Measured) -> float | None:
        pairs = [(_record(found, name, 1), _record(found, name, 2)) for name in names]
        return min((ratio(one, two) for one, two in pairs if one and two), default=None)

    return figure


def _median(record: Record, runner: str) -> float:
    return float(record["runners"][runner]["median_ms"])


def _instructions(name: str, cpu: str) -> Callable[[Measured], float | None]:
    def figure(found: Measured) -> float | None:
        count: float | None = found["arm"].get(name, {}).get("figures", {}).get(cpu, {}).get("millions")
        return count

    return figure


def _in_convolutions(name: str, cpu: str, other: str) -> Callable[[Measured], float | None]:
    """The share of the other CPU's instructions in kernels that multiply."""

    def figure(found: Measured) -> float | None:
        cpus = found["arm"].get(name, {}).get("figures")
        return products(cpus[cpu]) / products(cpus[other]) if cpus else None

    return figure


def products(count: Record) -> int:
    """Instructions of the kernels that multiply."""
    return sum(kernel["instructions"] for kernel in count["kernels"] if kernel["macs"])


def _compiling(field: str) -> Callable[[Measured], float | None]:
    def figure(found: Measured) -> float | None:
        return _cost(found, "mobilenet_v2", field)

    return figure


def _longer_chain(found: Measured) -> float | None:
    """How many times the seconds of a short chain a long one takes, by how many times the nodes it has."""
    short, long = CHAINS
    fewer, more = (_cost(found, name, "seconds") for name in (short, long))
    if fewer is None or more is None:
        return None
    return more / fewer / (CHAINS[long] / CHAINS[short])


def _cost(found: Measured, name: str, field: str) -> float | None:
    cost: float | None = found["compiling"].get(name, {}).get("figures", {}).get(NATIVE, {}).get(field)
    return cost


def _limited(level: str) -> Sequence[str]:
    return [held(peer, level) for peer in INT8]


_ALL = ("onnxruntime int8", *INT8, "openvino bf16")


def _x86_aims() -> Iterable[Aim]:
    fastest, same = "fastest of ONNX Runtime int8, OpenVINO int8 and bf16", "OpenVINO int8 held to the same"
    yield Aim("ResNet-18, ResNet-50 on amx", fastest, _times_as_fast(RESNETS, "amx", _ALL), 1.3)
    yield Aim("MobileNetV2, EfficientNet-Lite0 on amx", fastest, _times_as_fast(SMALL, "amx", _ALL), 2.0)
    both = (*_limited("avx512vnni"), "onnxruntime int8")
    for names, title in ((RESNETS, "ResNets"), (SMALL, "MobileNetV2, Lite0")):
        what = f"{title} on avx512vnni"
        yield Aim(what, f"{same}, ONNX Runtime int8", _times_as_fast(names, "avx512vnni", both), 1.2)
    for level, least in (("avxvnni", 1.0), ("avx2", 0.85)):
        yield Aim(f"MobileNetV2, Lite0 on {level}", same, _times_as_fast(SMALL, level, _limited(level)), 1.2)
        yield Aim(f"ResNets on {level}", same, _times_as_fast(RESNETS, level, _limited(level)), least)
    yield Aim("all four, 2 threads", "own time on 1 thread", _second_thread((*RESNETS, *SMALL)), 1.7)
    yield Aim("all four, 2 threads", "every peer at 2", _times_as_fast((*RESNETS, *SMALL), None, _ALL, 2), 1.0)
    yield Aim("compiling MobileNetV2 for this machine", "seconds", _compiling("seconds"), most=20)
    yield Aim("compiling MobileNetV2 for this machine", "peak memory, MB", _compiling("memory_mb"), most=2000)
    yield Aim("compiling a chain of 5,000 nodes", "seconds per node of one of 500", _longer_chain, most=1.0)


def _arm_aims() -> Iterable[Aim]:
    for cpu, small, resnet in (("neoverse-n1", 45.0, 145.0), ("cortex-a53", 85.0, 430.0)):
        for name, title, most in (("mobilenet_v2", "MobileNetV2", small), ("resnet18", "ResNet-18", resnet)):
            yield Aim(f"{title} on {cpu}", "millions of instructions", _instructions(name, cpu), most=most)
    for name, title in (("mobilenet_v2", "MobileNetV2"), ("resnet18", "ResNet-18")):
        share = _in_convolutions(name, "max", "neoverse-n1")
        yield Aim(f"{title} with i8mm", "share of dotprod's instructions in products", share, most=0.6)


X86_AIMS, ARM_AIMS = tuple(_x86_aims()), tuple(_arm_aims())
