"""Threads get no less work than they are worth."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from octavo.backends.bundle.program import Work
from octavo.backends.plan.grain import MACS, MOVING, grain

WORKS = st.one_of(
    st.builds(
        Work,
        kernel=st.just("conv"),
        instruction=st.sampled_from(sorted(MACS)),
        macs=st.integers(1, 10**9),
        constants=st.integers(0, 10**8),
        rescaled=st.integers(0, 10**7),
    ),
    st.builds(Work, kernel=st.sampled_from(sorted(MOVING)), read=st.integers(0, 10**8), written=st.integers(0, 10**8)),
)


@given(WORKS, st.integers(1, 2000), st.sampled_from([4, 8, 16]))
def test_more_work_is_shared_no_later(work: Work, tasks: int, lanes: int) -> None:
    more = replace(work, macs=2 * work.macs, read=2 * work.read, written=2 * work.written, rescaled=2 * work.rescaled)
    assert 1 <= grain(more, tasks, lanes) <= grain(work, tasks, lanes)


@given(WORKS, st.integers(1, 200), st.integers(1, 10))
def test_what_tasks_a_step_has_does_not_change_how_many_threads_it_gets(work: Work, tasks: int, parts: int) -> None:
    threads = tasks // grain(work, tasks, 16)
    assert tasks * parts // grain(work, tasks * parts, 16) >= threads


@pytest.mark.parametrize(
    ("work", "threads"),
    [
        (Work("conv", "vnni", macs=100_000, rescaled=2_000), 1),
        (Work("conv", "vnni", macs=10_000_000, rescaled=100_000), 16),
        (Work("binary", read=16_000, written=8_000), 1),
        (Work("binary", read=1_600_000, written=800_000), 16),
        (Work("copy", read=10_000, written=10_000), 1),
        (Work("softmax", read=50_000, written=50_000), 8),
        (Work("scan", read=100, written=100), 16),
    ],
    ids=lambda value: f"{value.kernel} {value.macs or value.read}" if isinstance(value, Work) else str(value),
)
def test_small_steps_are_left_to_the_caller(work: Work, threads: int) -> None:
    assert max(1, 16 // grain(work, 16, 16)) == threads
