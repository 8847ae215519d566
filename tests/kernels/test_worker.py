"""The code generation processes: what fails is named, and what follows still works."""

from __future__ import annotations

import pytest
from kernels.faulty import FaultySpec
from octavo.backends.tvm.kernels.table import TableSpec
from octavo.backends.tvm.worker import CodegenError, CodegenPool

ELF = b"\x7fELF"


def test_an_abort_of_the_compiler_names_the_kernel_and_the_pool_lives_on() -> None:
    kernels = [("good", TableSpec((10,))), ("bad", FaultySpec("select")), ("other", TableSpec((20,)))]
    with CodegenPool(1) as pool:
        with pytest.raises(CodegenError, match=r"^bad on avx2: .*LLVM ERROR"):
            pool.compile(kernels, "avx2")
        assert pool.compile(kernels[:1], "avx2").startswith(ELF)


def test_an_exception_of_an_emitter_arrives_with_its_message() -> None:
    with CodegenPool(1) as pool, pytest.raises(CodegenError, match="no such tile"):
        pool.compile([("raising", FaultySpec("raise"))], "neon")


def test_an_unknown_level_lists_the_known_ones() -> None:
    with CodegenPool(1) as pool, pytest.raises(CodegenError, match="known: avx2, avxvnni"):
        pool.compile([("good", TableSpec((10,)))], "sse2")


def test_objects_are_the_same_bytes_every_time() -> None:
    kernels = [("first", TableSpec((100,))), ("second", TableSpec((200,)))]
    with CodegenPool(2) as pool:
        objects = {pool.compile(kernels, "dotprod") for _ in range(3)}
    assert len(objects) == 1
