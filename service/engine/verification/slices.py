"""Large arrays in slices, so that a comparison in float64 needs memory for one of them and not for all."""

from collections.abc import Iterator
from math import prod

# Of float64 and its temporary arrays: 8 MiB each.
SLICE_ELEMENTS = 1 << 20

Index = tuple[slice, ...]


def slices(shape: tuple[int, ...], max_elements: int = SLICE_ELEMENTS) -> Iterator[Index]:
    """Yield the indices of parts with at most this many elements, in the order of the elements; together they are all.

    A small array, or one without axes or elements, is one part.
    """
    if prod(shape) <= max_elements or not shape:
        yield ()
        return
    row_elements = prod(shape[1:])
    if row_elements > max_elements:
        for row in range(shape[0]):
            for rest in slices(shape[1:], max_elements):
                yield slice(row, row + 1), *rest
        return
    num_rows = max_elements // row_elements
    for start in range(0, shape[0], num_rows):
        yield (slice(start, min(start + num_rows, shape[0])),)
