"""Storages that live at the same time never share a byte of the arena."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from octavo.backends.bundle.program import Place
from octavo.backends.plan.memory import ALIGNMENT, assign_offsets, most_alive
from octavo.backends.plan.views import Storage


@st.composite
def storages(draw: st.DrawFn) -> list[Storage]:
    made: list[Storage] = []
    for _ in range(draw(st.integers(0, 20))):
        storage = Storage(Place.ARENA, draw(st.integers(1, 1000)))
        first = draw(st.integers(0, 12))
        storage.touch(first)
        storage.touch(first + draw(st.integers(0, 6)))
        made.append(storage)
    return made


@given(storages())
def test_lives_that_overlap_have_bytes_that_do_not(made: list[Storage]) -> None:
    total = assign_offsets(made)
    for index, one in enumerate(made):
        assert one.offset % ALIGNMENT == 0
        assert one.offset + one.bytes <= total
        for other in made[index + 1 :]:
            assert one.first is not None
            assert other.first is not None
            apart = one.last < other.first or other.last < one.first
            assert apart or one.offset + one.bytes <= other.offset or other.offset + other.bytes <= one.offset


@given(storages())
def test_the_arena_is_no_larger_than_all_storages_together(made: list[Storage]) -> None:
    assert assign_offsets(made) <= sum(-(-s.bytes // ALIGNMENT) * ALIGNMENT for s in made)


@given(storages())
def test_no_arena_is_smaller_than_what_is_alive_at_once(made: list[Storage]) -> None:
    assert assign_offsets(made) >= most_alive(made)


def test_a_chain_needs_two_buffers() -> None:
    chain = []
    for step in range(50):
        storage = Storage(Place.ARENA, 640)
        storage.touch(step)
        storage.touch(step + 1)
        chain.append(storage)
    assert assign_offsets(chain) == most_alive(chain) == 2 * 640


def test_an_untouched_storage_takes_no_room() -> None:
    assert assign_offsets([Storage(Place.ARENA, 100)]) == 0
