"""Views are numpy's strided arrays: every operation on a view names the elements that numpy names."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from octavo.backends.bundle.program import Place
from octavo.backends.plan.views import Storage, View, dense_strides

Array = npt.NDArray[Any]
SIZE = 4096
BYTES = np.arange(SIZE, dtype=np.int32)


def elements(view: View) -> Array:
    """What the view names, in memory that counts upwards."""
    base = BYTES[view.offset :]
    return np.lib.stride_tricks.as_strided(base, view.shape, [4 * stride for stride in view.strides], writeable=False)


@st.composite
def views(draw: st.DrawFn) -> View:
    """A dense tensor of one to four axes in any nesting, perhaps cut and permuted."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    order = draw(st.permutations(range(len(shape))))
    view = View(Storage(Place.ARENA, SIZE), "int32", shape, dense_strides(shape, order))
    starts = [draw(st.integers(0, n - 1)) for n in shape]
    extents = [draw(st.integers(1, n - start)) for n, start in zip(shape, starts, strict=True)]
    return view.sliced(starts, extents).permuted(draw(st.permutations(range(len(shape)))))


@given(views(), st.data())
def test_slices_and_permutations_are_numpys(view: View, data: st.DataObject) -> None:
    permutation = data.draw(st.permutations(range(view.rank)))
    np.testing.assert_array_equal(elements(view.permuted(permutation)), elements(view).transpose(permutation))
    steps = [data.draw(st.integers(1, 3)) for _ in view.shape]
    extents = [-(-n // step) for n, step in zip(view.shape, steps, strict=True)]
    cut = view.sliced([0] * view.rank, extents, steps)
    np.testing.assert_array_equal(elements(cut), elements(view)[tuple(slice(None, None, s) for s in steps)])


@given(views(), st.data())
def test_a_reshape_that_moves_nothing_names_the_same_elements(view: View, data: st.DataObject) -> None:
    factors = _prime_factors(view.size)
    shape: list[int] = []
    while factors:
        count = data.draw(st.integers(1, len(factors)))
        shape.append(int(np.prod(factors[:count])))
        factors = factors[count:]
        if data.draw(st.booleans()):
            shape.append(1)
    reshaped = view.reshaped(shape or [1])
    if reshaped is None:
        assert not view.is_dense()
        return
    np.testing.assert_array_equal(elements(reshaped), elements(view).reshape(shape or [1]))


@given(views())
def test_a_dense_view_always_reshapes(view: View) -> None:
    dense = View(view.storage, view.dtype, view.shape, dense_strides(view.shape, range(view.rank)))
    assert dense.is_dense()
    assert dense.reshaped([view.size]) is not None


@given(views(), st.integers(1, 3))
def test_expanding_repeats_elements(view: View, times: int) -> None:
    shape = (times, *view.shape)
    np.testing.assert_array_equal(elements(view.expanded(shape)), np.broadcast_to(elements(view), shape))


@given(views())
def test_order_nests_the_axes(view: View) -> None:
    order = view.order()
    steps = [view.strides[axis] for axis in order if view.shape[axis] != 1]
    assert sorted(order) == list(range(view.rank))
    assert steps == sorted(steps, reverse=True)


@given(views(), st.data())
def test_inserted_axes_hold_one_element(view: View, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, view.rank))
    np.testing.assert_array_equal(elements(view.inserted(axis)), np.expand_dims(elements(view), axis))


def _prime_factors(number: int) -> list[int]:
    found, factor = [], 2
    while number > 1:
        while number % factor == 0:
            found.append(factor)
            number //= factor
        factor += 1
    return found
