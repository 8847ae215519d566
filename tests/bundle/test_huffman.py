"""Entropy coded weights: what the encoder writes, the runtime reads; damage is found; a bundle computes the same."""

from __future__ import annotations

import hashlib
import subprocess
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from bundle.test_broken import flip_byte
from bundle.toys import Toy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from octavo.backends import runtime
from octavo.backends.bundle import huffman
from octavo.backends.bundle.errors import BundleCorruptError
from octavo.backends.bundle.huffman import encode
from octavo.backends.bundle.link import find_toolchain, host_architecture
from octavo.backends.bundle.loader import load

Octets = npt.NDArray[np.uint8]
HEADERS = "".join(f"#include <{name}.h>\n" for name in ("stdint", "stdio", "stdlib", "string"))
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decode")
    source = "#define OCTAVO_CODED_WEIGHTS 1\n" + (Path(runtime.__file__).parent / "decode.c").read_text()
    (folder / "unit.c").write_text(HEADERS + source + (Path(__file__).parent / "decode.c").read_text())
    options = ("-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror")
    find_toolchain(host_architecture()).run(*options, *SANITIZE, folder / "unit.c", "-o", folder / "decode")
    return folder / "decode"


def decode(program: Path, block: bytes, size: int) -> tuple[int, bytes, bytes]:
    done = subprocess.run([program, str(size)], input=block, capture_output=True, check=False)
    assert done.returncode in (0, 3), done.stderr.decode()
    return done.returncode, done.stdout, done.stderr


def draws(seed: int, kind: str) -> Octets:
    random = np.random.default_rng(seed)
    size = int(random.integers(0, 70_000))
    values = {
        "uniform": random.integers(0, 256, size),
        "weights": np.rint(random.normal(0, 20, size)),
        "sparse": np.rint(random.normal(0, 20, size)) * (random.random(size) < 0.05),
        "skewed": np.minimum(random.geometric(0.5, size), 255),
        "zeros": np.zeros(size),
        "one value": np.full(size, 7),
    }[kind]
    return values.astype(np.int64).astype(np.uint8)


@pytest.mark.parametrize("kind", ["uniform", "weights", "sparse", "skewed", "zeros", "one value"])
@pytest.mark.parametrize("seed", range(3))
def test_the_runtime_reads_what_was_written(program: Path, kind: str, seed: int) -> None:
    octets = draws(seed, kind)
    status, out, crc = decode(program, encode(octets), octets.size)
    assert (status, out) == (0, octets.tobytes())
    assert int(crc, 16) == zlib.crc32(octets.tobytes())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=st.lists(st.tuples(st.sampled_from([0, 0, 1, 2, 255]), st.integers(1, 40)), max_size=40))
def test_any_runs(program: Path, runs: list[tuple[int, int]]) -> None:
    octets = np.repeat(np.array([value for value, _ in runs], np.uint8), [count for _, count in runs])
    assert decode(program, encode(octets), octets.size)[:2] == (0, octets.tobytes())


def test_long_runs_of_zeros(program: Path) -> None:
    octets = np.zeros(300_001, np.uint8)
    octets[[3, 65_539, 300_000]] = 9
    assert decode(program, encode(octets), octets.size)[:2] == (0, octets.tobytes())


@pytest.mark.parametrize("kind", ["uniform", "sparse", "zeros"])
@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_how_much_is_encoded_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch, kind: str, chunk: int) -> None:
    octets = draws(0, kind)[:5000]
    whole = encode(octets)
    monkeypatch.setattr(huffman, "_CHUNK", chunk)
    assert encode(octets) == whole


@pytest.mark.parametrize(("kind", "digest"), [("weights", "b739223d5437896e"), ("sparse", "0e97bc4d47d8aef8")])
def test_the_format_stays(kind: str, digest: str) -> None:
    """Bundles that are already written must decode."""
    assert hashlib.sha256(encode(draws(0, kind))).hexdigest()[:16] == digest


@pytest.mark.parametrize("share", [0.05, 1.0])
def test_encoding_takes_little_more_memory_than_the_block(share: float) -> None:
    random = np.random.default_rng(0)
    octets = (random.integers(1, 200, 3_000_000) * (random.random(3_000_000) < share)).astype(np.uint8)
    tracemalloc.start()
    size = len(encode(octets))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * size + 10_000_000


@pytest.mark.parametrize("seed", range(40))
def test_damage_never_leaves_the_array(program: Path, seed: int) -> None:
    """The sanitizers watch. Damage may decode to other bytes: the checksum over all of them is what finds it."""
    random = np.random.default_rng(seed)
    octets = draws(seed, "sparse")[:3000]
    block = bytearray(encode(octets))
    for place in random.integers(0, len(block), 3):
        block[place] ^= int(random.integers(1, 256))
    cut = int(random.integers(0, len(block) + 1)) if seed % 2 else len(block)
    status, out, crc = decode(program, bytes(block[:cut]), octets.size)
    assert status == 3 or int(crc, 16) == zlib.crc32(out)


def test_the_size_is_near_the_entropy() -> None:
    """Of a layer in the style of Deep Compression: a tenth of the weights left, in 15 clusters."""
    random = np.random.default_rng(0)
    clusters = np.rint(np.linspace(-120, 120, 16)).astype(np.int64)[np.r_[0:8, 9:16]]
    octets = (random.choice(clusters, 100_000) * (random.random(100_000) < 0.1)).astype(np.uint8)
    shares = np.bincount(octets, minlength=256) / octets.size
    entropy = -(shares[shares > 0] * np.log2(shares[shares > 0])).sum() / 8 * octets.size
    assert len(encode(octets)) < 1.02 * entropy


@pytest.fixture(params=[False, True], ids=["file", "embedded"])
def compressed(toy: Toy, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    toy.write(tmp_path / "toy.octavo", tmp_path, compress_weights=True, embed_weights=request.param)
    return tmp_path / "toy.octavo"


def test_a_compressed_bundle_computes_the_same(toy: Toy, compressed: Path) -> None:
    for _ in range(2):
        with load(compressed) as bundle:
            np.testing.assert_array_equal(bundle(toy.input()), toy.expected(toy.input()))


@pytest.mark.parametrize("place", [64, 70, 80, 150, -1])
def test_altered_weights_are_found_on_loading(toy: Toy, tmp_path: Path, place: int) -> None:
    toy.write(tmp_path / "toy.octavo", tmp_path, compress_weights=True)
    flip_byte(tmp_path / "toy.octavo" / "weights.bin", place)
    with pytest.raises(BundleCorruptError, match="does not decode"):
        load(tmp_path / "toy.octavo")
