"""Options that several commands have, and how their texts are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    import numpy as np

ModelText: TypeAlias = Annotated[
    str, typer.Argument(metavar="MODEL", help="An .onnx, .pt2 or .octavo file, or package.module:factory.")
]
BundlePath: TypeAlias = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder of a compiled network.")]
JsonFlag: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
VerboseFlag: TypeAlias = Annotated[bool, typer.Option("--verbose", "-v", help="Say what happens, on stderr.")]
ShapeTexts: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--shape", metavar="NAME=SHAPE", help="Shape of an input, e.g. x=1x3x224x224 or x=1x3x48x{160,320}; repeatable."
    ),
]
CalibOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--calib", metavar="DATA", help="Calibration data: an .npz or .npy file, a folder of them or of images, a list."
    ),
]
LimitOption: TypeAlias = Annotated[
    int | None, typer.Option("--limit", metavar="N", help="Use at most N samples of the data.")
]
PreprocessOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--preprocess",
        metavar="STEPS",
        help="How images become inputs: imagenet, or options such as resize=256,crop=224,mean=0.5,std=0.5; "
        "also interpolation, scale, layout, color, dtype.",
    ),
]
RangesOption: TypeAlias = Annotated[
    Path | None, typer.Option("--ranges", metavar="FILE", help="Activation ranges, as --save-ranges writes them.")
]
ActRangeTexts: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--act-range", metavar="NAME=MIN:MAX", help="The range of one activation; repeatable."),
]
ConstantTexts: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--constant", metavar="NAME=VALUE", help="The value of an ONNX input: 16000, [1,2] or FILE.npy; repeatable."
    ),
]
NonFiniteFlag: TypeAlias = Annotated[
    bool, typer.Option("--allow-non-finite", help="Accept NaN and infinite ONNX weights.")
]
LoadOption: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option("--load", metavar="FILE.py", help="Run this Python file, which registers passes; repeatable."),
]


def load_files(paths: list[Path] | None) -> None:
    """Run the files that register passes."""
    if paths:
        from ..passes.registry import load_passes

        for path in paths:
            load_passes(path)


def read_constants(texts: list[str] | None) -> dict[str, np.ndarray]:
    """The constants given one by one."""
    from ..backends.models import parse_constant

    return dict(map(parse_constant, texts or ()))


def read_act_ranges(texts: list[str] | None) -> dict[str, tuple[float, float]]:
    """The ranges given one by one."""
    from ..passes.calibration.ranges import parse_range

    return dict(map(parse_range, texts or ()))
