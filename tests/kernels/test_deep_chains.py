"""Long functions in a row compile at once: TVM's analyzer once took minutes for four of them."""

from __future__ import annotations

from kernels.harness import pool
from octavo.backends.tvm.kernels.chain import ChainSpec


def test_eight_functions_in_a_row_compile() -> None:
    steps = tuple((("sigmoid", "tanh", "exp", "atan")[number % 4], number) for number in range(8))
    assert pool().compile([("deep", ChainSpec((64,), ((1,),), steps))], "avx2")
