"""Tiles of Winograd's filtering: their transforms, and how tiles of two shapes cover an image. No tvm."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

Matrix = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Transform:
    """Integer transforms along one axis of a tile of `size` results.

    The patch d and the filter g become ``input`` d and ``filter`` g, and ``output`` makes of their products by element
    `total` times the convolution of d and g. Along two axes each does so in turn.
    """

    size: int
    total: int
    input: Matrix
    filter: Matrix
    output: Matrix

    @property
    def patch(self) -> int:
        """Elements of the input that a tile reads, and points at which it is multiplied."""
        return self.size + 2


#: Interpolation at 0 and infinity, 1 and -1; and at 2 and -2. Factors of the filters' rows: 1, 1, 2, 2; and 4, 1, -6,
#: -6, 24, 24. The rows of a pair, and the columns of results, are equal or opposite by element, but for the first one.
#: The points of small tiles are the first ones of large tiles: tiles of both sizes share filters.
TRANSFORMS = {
    2: Transform(
        size=2,
        total=2,
        input=((1, 0, -1, 0), (0, -1, 0, 1), (0, 1, 1, 0), (0, -1, 1, 0)),
        filter=((1, 0, 0), (0, 0, 1), (1, 1, 1), (1, -1, 1)),
        output=((2, 0, 1, 1), (0, 2, 1, -1)),
    ),
    4: Transform(
        size=4,
        total=24,
        input=(
            (4, 0, -5, 0, 1, 0),
            (0, 4, 0, -5, 0, 1),
            (0, -4, -4, 1, 1, 0),
            (0, 4, -4, -1, 1, 0),
            (0, -2, -1, 2, 1, 0),
            (0, 2, -1, -2, 1, 0),
        ),
        filter=((1, 0, 0), (0, 0, 1), (1, 1, 1), (1, -1, 1), (1, 2, 4), (1, -2, 4)),
        output=((6, 0, -4, -4, 1, 1), (0, 0, -4, 4, 2, -2), (0, 0, -4, -4, 4, 4), (0, 24, -4, 4, 8, -8)),
    ),
}

#: Results of the smallest tiles.
SMALL = min(TRANSFORMS)


@dataclass(frozen=True)
class Extent:
    """Tiles along one axis: `count` of them from result `start` on, the last of which may reach behind the image."""

    transform: Transform
    start: int
    count: int


@dataclass(frozen=True)
class Region:
    """`count` tiles of one shape, image by image and row by row; `first` of all is the first one."""

    rows: Extent
    columns: Extent
    first: int
    count: int

    @property
    def end(self) -> int:
        """The number of the tile behind the last one."""
        return self.first + self.count

    @property
    def total(self) -> int:
        """What the transform of results makes of the convolution."""
        return self.rows.transform.total * self.columns.transform.total

    @property
    def points(self) -> int:
        """Products by element of one tile."""
        return self.rows.transform.patch * self.columns.transform.patch


@dataclass(frozen=True)
class Band:
    """The points of some rows and columns, where tiles from `first` to `end` are multiplied."""

    rows: range
    columns: range
    first: int
    end: int

    @property
    def points(self) -> int:
        """How many they are."""
        return len(self.rows) * len(self.columns)


def cover(batch: int, height: int, width: int, size: int) -> tuple[Region, ...]:
    """Tiles of `size` x `size` of `batch` images, in an order in which those that have a point follow each other."""
    high, *low = _extents(height, size)
    wide, *narrow = _extents(width, size)
    order = [(rows, wide) for rows in low] + [(high, wide)] + [(high, columns) for columns in narrow]
    order += [(rows, columns) for rows in low for columns in narrow]
    found: list[Region] = []
    for rows, columns in order:
        first = found[-1].end if found else 0
        found.append(Region(rows, columns, first, batch * rows.count * columns.count))
    return tuple(found)


def _extents(length: int, size: int) -> list[Extent]:
    """The largest tiles that an axis of `length` results has room for, and a smaller one for what they leave."""
    whole, rest = divmod(length, size)
    if not 0 < rest <= SMALL:
        return [Extent(TRANSFORMS[size], 0, whole + (rest > 0))]
    left = Extent(TRANSFORMS[SMALL], whole * size, 1)
    return [Extent(TRANSFORMS[size], 0, whole), left] if whole else [left]


def bands(regions: Sequence[Region], *, rows: int | None = None, whole: bool = False) -> tuple[Band, ...]:
    """All points, by the tiles that have them and, if given, by so many rows of points.

    A point belongs to one band, where all tiles that have it are multiplied; or, of `whole` rows, to one for each width
    of tiles.
    """
    heights = sorted({region.rows.transform.patch for region in regions})
    widths = sorted({region.columns.transform.patch for region in regions})
    found: list[Band] = []
    for top, bottom in itertools.pairwise([0, *heights]):
        step = rows or bottom - top
        for row, (left, right) in itertools.product(range(top, bottom, step), itertools.pairwise([0, *widths])):
            having = [
                region
                for region in regions
                if region.rows.transform.patch >= bottom
                and (region.columns.transform.patch == right or (region.columns.transform.patch > right and not whole))
            ]
            if having:
                columns = range(0 if whole else left, right)
                found.append(Band(range(row, row + step), columns, having[0].first, having[-1].end))
    return tuple(found)


def power_of_two(value: int) -> int:
    """How many times 2 divides `value`."""
    return (value & -value).bit_length() - 1
