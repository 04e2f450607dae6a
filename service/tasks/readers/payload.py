"""What a reader makes of the payload of a request: input tensors, in groups of items of one shape.

Invariant: each item of the request is one row of exactly one group, and the rows of a group are in the order of their
items.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from service.bundle import Tensors
from service.tasks.codecs.texts import TokenizedText

# The fields of a request body by name.
Fields = Mapping[str, Any]


class Group(NamedTuple):
    """Rows that one run computes; `items` are the positions of their items in the request, `texts` those of texts."""

    inputs: Tensors
    items: Sequence[int]
    texts: Sequence[TokenizedText] = ()


class Payload(NamedTuple):
    """`pointer` is the JSON pointer of the list of items; where `is_list` is false, items have no pointer of theirs."""

    pointer: str
    groups: Sequence[Group]
    is_list: bool = True
