"""``octavo bench --per-kernel``: a bundle's kernels as a table, JSON or a picture."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir.errors import UsageError
from .console import format_bytes, format_count, print_json, print_table, print_text, progress_bar

if TYPE_CHECKING:
    from ..backends.bench.profile import KernelProfile, NetworkProfile


def show_kernels(
    bundle: Path, threads: int, runs: int, level: str | None, plan: int, plot: Path | None, json: bool
) -> None:
    """Profile a bundle and show it; ``plot`` gets the roofline.

    Raises:
        UsageError: the bundle does not say what its kernels do, or the picture cannot be drawn or written.
    """
    from ..backends.bench.profile import profile

    with progress_bar() as progress:
        found = profile(bundle, threads=threads, runs=runs, level=level, plan=plan, progress=progress)
    if plot is not None:
        _write_plot(found, bundle, plot)
    if json:
        print_json({"bundle": str(bundle), "threads": threads, "runs": runs, **_document(found)})
    else:
        _print(found, bundle, runs)


def _write_plot(profile: NetworkProfile, bundle: Path, path: Path) -> None:
    from ..backends.bench.svg import roofline

    machine = profile.machine
    title = f"{bundle.name} on {profile.level}, {machine.threads} thread(s), {profile.nanoseconds / 1e6:.2f} ms"
    try:
        path.write_text(roofline(profile, title), encoding="utf-8")
    except ValueError as error:
        raise UsageError(f"there is no roofline to draw: {error}", where=str(bundle)) from error
    except OSError as error:
        raise UsageError(f"the picture cannot be written: {error.strerror}", where=str(path)) from error


def _print(profile: NetworkProfile, bundle: Path, runs: int) -> None:
    machine = profile.machine
    peaks = ", ".join(f"{name} {peak:.0f}" for name, peak in machine.peaks.items())
    sizes = (min(machine.bandwidth), 1 << 20, max(machine.bandwidth))
    rates = ", ".join(f"{machine.bytes_per_nanosecond(size):.0f} from {size >> 10} KB" for size in sizes)
    print_text(f"{bundle}, level {profile.level}, {machine.threads} thread(s), median of {runs} runs", style="bold")
    print_text(f"this machine: GMAC/s of {peaks}; GB/s {rates}; {machine.rescale:.1f} G results/s rescaled\n")
    rows = [_row(profile, kernel) for kernel in sorted(profile.kernels, key=lambda kernel: -kernel.nanoseconds)]
    columns = ("kernel", "kind", "us", "share", "MACs", "moved", "GMAC/s", "of peak", "bound by", "of limit")
    print_table(columns, rows, right=("us", "share", "MACs", "moved", "GMAC/s", "of peak", "of limit"))
    rate = profile.macs / max(1.0, profile.nanoseconds)
    total = f"{profile.nanoseconds / 1e3:.1f} us, {format_count(profile.macs)} MACs, {rate:.0f} GMAC/s"
    print_text(f"\n{total}, {rate / machine.peak:.1%} of the level's peak", style="bold")
    shares: defaultdict[str, float] = defaultdict(float)
    for kernel in profile.kernels:
        shares[kernel.limits.bound] += kernel.nanoseconds / profile.nanoseconds
    print_text("bound by " + ", ".join(f"{bound} {share:.0%}" for bound, share in sorted(shares.items())))


def _row(profile: NetworkProfile, kernel: KernelProfile) -> tuple[str, ...]:
    work = kernel.work
    return (
        kernel.label,
        f"{work.kernel} {work.instruction}".strip(),
        f"{kernel.nanoseconds / 1e3:.1f}",
        f"{kernel.nanoseconds / profile.nanoseconds:.1%}",
        format_count(work.macs) if work.macs else "",
        format_bytes(kernel.bytes_moved),
        f"{kernel.gmacs:.1f}" if work.macs else "",
        f"{profile.peak_share(kernel):.0%}" if work.macs else "",
        kernel.limits.bound,
        f"{kernel.reached:.0%}",
    )


def _document(profile: NetworkProfile) -> dict[str, Any]:
    machine = profile.machine
    return {
        "level": profile.level,
        "machine": {
            "gmacs": dict(machine.peaks),
            "rescaled_per_ns": machine.rescale,
            "bytes_per_ns": {str(size): rate for size, rate in machine.bandwidth.items()},
        },
        "total": {"nanoseconds": profile.nanoseconds, "macs": profile.macs},
        "kernels": [
            {
                "label": kernel.label,
                **dataclasses.asdict(kernel.work),
                "nanoseconds": kernel.nanoseconds,
                "best_nanoseconds": kernel.best,
                "gmacs": kernel.gmacs,
                "peak_share": profile.peak_share(kernel),
                "bound": kernel.limits.bound,
                "limits_ns": {
                    "compute": kernel.limits.compute,
                    "epilogue": kernel.limits.epilogue,
                    "memory": kernel.limits.memory,
                },
                "of_limit": kernel.reached,
            }
            for kernel in profile.kernels
        ],
    }
