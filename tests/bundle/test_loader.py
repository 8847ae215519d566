"""Bundles in Python: running, choosing plans and levels, threads, forks, wrong inputs."""

from __future__ import annotations

import operator
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
from bundle.toys import LEVELS, Toy
from octavo.backends.bundle.errors import BundleMachineError, BundleRunError, InputError
from octavo.backends.bundle.library import Body
from octavo.backends.bundle.loader import Bundle, load


@pytest.fixture
def bundle(toy_folder: Path) -> Bundle:
    return load(toy_folder, threads=2)


def test_runs_by_name_and_by_call(bundle: Bundle, toy: Toy) -> None:
    values = toy.input()
    np.testing.assert_array_equal(bundle.run({"x": values})["y"], toy.expected(values))
    np.testing.assert_array_equal(bundle(values), toy.expected(values))


def test_every_plan_and_level_gives_the_same_bytes(toy_folder: Path, toy: Toy) -> None:
    for level, _ in LEVELS[toy.architecture]:
        for threads in (1, 2, 5):
            with load(toy_folder, level=level, threads=threads) as bundle:
                assert (bundle.level, bundle.threads) == (level, threads)
                for plan in range(len(toy.rows)):
                    values = toy.input(plan)
                    np.testing.assert_array_equal(bundle(values), toy.expected(values))


def test_describes_itself(bundle: Bundle, toy: Toy) -> None:
    assert [(spec.name, spec.dtype, spec.shape) for spec in bundle.inputs] == [("x", "float32", (24, 16))]
    assert [spec.name for spec in bundle.outputs] == ["y"]
    assert bundle.manifest.name == "toy network"
    assert bundle.manifest.exactness == "bit-exact"
    assert [level.name for level in bundle.manifest.levels] == [name for name, _ in LEVELS[toy.architecture]]
    assert "toy network" in repr(bundle)
    bundle.verify()


def test_any_strides_and_alignment(bundle: Bundle, toy: Toy) -> None:
    values = toy.input()
    octets = np.zeros(values.nbytes + 1, np.uint8)
    misaligned = octets[1:].view(np.float32).reshape(values.shape)
    misaligned[...] = values
    for odd in (np.asfortranarray(values), np.repeat(values, 2, axis=1)[:, ::2], values[::-1].copy()[::-1], misaligned):
        np.testing.assert_array_equal(bundle(odd), toy.expected(values))
    readonly = values.copy()
    readonly.flags.writeable = False
    np.testing.assert_array_equal(bundle(readonly), toy.expected(values))


def test_a_binding_reads_and_writes_the_same_arrays(bundle: Bundle, toy: Toy) -> None:
    for plan in range(len(toy.rows)):
        values = toy.input(plan)
        binding = bundle.bind({"x": values[::-1].copy()[::-1]})
        result = binding.outputs["y"]
        binding.run()
        np.testing.assert_array_equal(result, toy.expected(values))
        binding.inputs["x"][...] = -values
        binding.run()
        np.testing.assert_array_equal(result, toy.expected(-values))


def test_arrays_of_a_binding_cannot_be_replaced(bundle: Bundle, toy: Toy) -> None:
    """A run has their addresses: what it reads and writes must stay."""
    binding = bundle.bind(toy.input())
    for name, arrays in (("x", binding.inputs), ("y", binding.outputs)):
        with pytest.raises(TypeError, match="item assignment"):
            operator.setitem(cast("dict[str, object]", arrays), name, arrays[name].copy())


def test_a_binding_ends_with_its_bundle(bundle: Bundle, toy: Toy) -> None:
    binding = bundle.bind(toy.input())
    bundle.close()
    with pytest.raises(BundleRunError, match="closed"):
        binding.run()


def test_profile_names_the_layers(bundle: Bundle, toy: Toy) -> None:
    times = bundle.profile(toy.input())
    assert [time.label for time in times] == ["quantize x", "classifier.fc", 'output "y"']
    assert all(time.nanoseconds > 0 for time in times)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((24, 16)), "dtype float64"),
        (np.zeros((24, 16), ">f4"), "dtype >f4"),
        (np.zeros((24, 17), np.float32), r"\(24, 17\)"),
        (np.zeros((24 * 16,), np.float32), r"\(384,\)"),
        ({"X": np.zeros((24, 16), np.float32)}, "inputs given: X"),
        ({}, "inputs given: nothing"),
        ({"x": [[1.0]]}, "is a list"),
        ([1.0], "is a list"),
    ],
)
def test_refuses_wrong_inputs(bundle: Bundle, inputs: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bundle(inputs)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_refuses_an_impossible_level(toy_folder: Path) -> None:
    with pytest.raises(BundleMachineError, match="no level"):
        load(toy_folder, level="quantum")
    with pytest.raises(InputError, match="0 threads"):
        load(toy_folder, threads=0)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="this process may use a single CPU")
def test_a_worker_leaves_the_cpu_of_its_launcher(toy_folder: Path, toy: Toy) -> None:
    allowed = os.sched_getaffinity(0)
    before = _threads()
    with load(toy_folder, threads=2) as bundle:
        (worker,) = _threads() - before
        try:
            cpu = min(allowed)
            for thread in (0, worker):
                os.sched_setaffinity(thread, {cpu})
            bundle({"x": toy.input()})
            os.sched_setaffinity(worker, allowed)
            end, moved = time.monotonic() + 10, False
            while not moved and time.monotonic() < end:
                bundle({"x": toy.input()})
                moved = _cpu_of(worker) != cpu and os.sched_getaffinity(worker) == allowed
            assert moved
        finally:
            os.sched_setaffinity(0, allowed)


def _threads() -> set[int]:
    return {int(task.name) for task in Path("/proc/self/task").iterdir()}


def _cpu_of(thread: int) -> int:
    """Where a thread ran last (proc(5), stat's field 39)."""
    fields = Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()
    return int(fields[39 - 3])


def test_threads_share_one_bundle(bundle: Bundle, toy: Toy) -> None:
    inputs = [np.roll(toy.input(), i, axis=1) for i in range(8)]
    with ThreadPoolExecutor(4) as executor:
        results = list(executor.map(bundle, inputs * 20))
    for values, result in zip(inputs * 20, results, strict=True):
        np.testing.assert_array_equal(result, toy.expected(values))


def test_caller_s_parallel_for(toy_folder: Path, toy: Toy) -> None:
    pieces_seen: list[int] = []
    with ThreadPoolExecutor(3) as executor:

        def parallel_for(pieces: int, body: Body) -> None:
            pieces_seen.append(pieces)
            list(executor.map(lambda piece: body(piece, piece + 1), range(pieces)))

        with load(toy_folder, threads=3, parallel_for=parallel_for) as bundle:
            np.testing.assert_array_equal(bundle(toy.input()), toy.expected(toy.input()))
    assert pieces_seen == [3, 3, 3]


def test_failing_parallel_for(toy_folder: Path, toy: Toy) -> None:
    def refuse(pieces: int, body: Body) -> None:
        raise KeyboardInterrupt

    def forget(pieces: int, body: Body) -> None:
        body(0, 1)

    with load(toy_folder, threads=3, parallel_for=refuse) as bundle, pytest.raises(KeyboardInterrupt):
        bundle(toy.input())
    with (
        load(toy_folder, threads=3, parallel_for=forget) as bundle,
        pytest.raises(BundleRunError, match="1 pieces of 3"),
    ):
        bundle(toy.input())


def test_a_failing_parallel_for_fails_its_own_run(toy_folder: Path, toy: Toy) -> None:
    """Many runs, since what goes wrong does so between two of them that end at once."""
    fates, values = threading.local(), toy.input()

    def parallel_for(pieces: int, body: Body) -> None:
        if fates.fails:
            raise ZeroDivisionError
        body(0, pieces)

    def has_failed(fails: bool) -> bool:
        fates.fails = fails
        try:
            bundle(values)
        except ZeroDivisionError:
            return True
        return False

    wanted = [bool(number % 2) for number in range(4000)]
    with load(toy_folder, threads=3, parallel_for=parallel_for) as bundle, ThreadPoolExecutor(4) as executor:
        assert list(executor.map(has_failed, wanted)) == wanted


@pytest.mark.parametrize("use", [Bundle.run, Bundle.profile])
def test_closed(toy_folder: Path, toy: Toy, use: Callable[[Bundle, npt.NDArray[np.float32]], object]) -> None:
    bundle = load(toy_folder)
    bundle.close()
    bundle.close()
    with pytest.raises(BundleRunError, match="closed"):
        use(bundle, toy.input())


def test_not_closed_while_running(toy_folder: Path, toy: Toy) -> None:
    inside, leave = threading.Event(), threading.Event()

    def slowly(pieces: int, body: Body) -> None:
        inside.set()
        assert leave.wait(30)
        body(0, pieces)

    bundle = load(toy_folder, threads=2, parallel_for=slowly)
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(bundle, toy.input())
        assert inside.wait(30)
        with pytest.raises(BundleRunError, match="running"):
            bundle.close()
        leave.set()
        np.testing.assert_array_equal(running.result(), toy.expected(toy.input()))
    bundle.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_fork(toy_folder: Path, toy: Toy) -> None:
    bundle = load(toy_folder, threads=2)
    for _ in range(2):  # before and after the first run
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = int(not np.array_equal(bundle(toy.input()), toy.expected(toy.input())))
                bundle.close()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        np.testing.assert_array_equal(bundle(toy.input()), toy.expected(toy.input()))


def test_two_bundles_in_one_process(bundle: Bundle, toy: Toy, tmp_path: Path) -> None:
    other = Toy(prefix="other", rows=(7,), seed=5)
    other.write(tmp_path / "other.octavo", tmp_path)
    with load(tmp_path / "other.octavo") as second:
        for _ in range(3):
            np.testing.assert_array_equal(bundle(toy.input()), toy.expected(toy.input()))
            np.testing.assert_array_equal(second(other.input()), other.expected(other.input()))


def test_a_rewritten_bundle_is_seen_anew(tmp_path: Path) -> None:
    """The dynamic linker would answer the same path with the library it loaded before."""
    first, second = Toy(seed=1), Toy(seed=2)
    path = tmp_path / "same.octavo"
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first.write(path, tmp_path / "a")
    old = load(path)
    second.write(path, tmp_path / "b", overwrite=True)
    new = load(path)
    for bundle, toy in ((old, first), (new, second), (old, first)):
        np.testing.assert_array_equal(bundle(toy.input()), toy.expected(toy.input()))


def test_loading_needs_numpy_alone(toy_folder: Path) -> None:
    script = (
        "import sys, numpy as np, octavo\n"
        f"bundle = octavo.load({str(toy_folder)!r})\n"
        "bundle(np.zeros((24, 16), np.float32)); bundle.verify()\n"
        "heavy = {'torch', 'onnx', 'tvm', 'tvm_ffi', 'onnx_graphsurgeon', 'typer', 'PIL', 'safetensors', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
