"""List targets, levels and CPUs."""

from __future__ import annotations

from ..console import print_json, print_table
from ..options import JsonFlag


def command(json: JsonFlag = False) -> None:
    """List the targets, their levels and the CPUs that --mcpu knows."""
    from ...backends.targets import TARGETS, cpus_of, host_levels

    here = host_levels()
    if json:
        print_json(
            {
                "targets": [
                    {
                        "name": target.name,
                        "architecture": target.architecture,
                        "levels": [
                            {"name": level.name, "features": list(level.features), "cpus": list(cpus_of(level.name))}
                            for level in target.levels
                        ],
                    }
                    for target in TARGETS.values()
                ],
                "native": here[-1] if here else None,
                "host_levels": list(here),
            }
        )
        return
    best = here[-1] if here else ""
    rows = [
        (
            target.name if position == 0 else "",
            level.name,
            "native" if level.name == best else "yes" if level.name in here else "",
            " ".join(cpus_of(level.name)),
        )
        for target in TARGETS.values()
        for position, level in enumerate(target.levels)
    ]
    print_table(("target", "level", "here", "CPUs (--mcpu)"), rows)
