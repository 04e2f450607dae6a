"""A payload is the items of a request as groups of rows."""

import numpy as np
import pytest

from service.tasks.readers.payload import Group, Payload


def test_groups_hold_rows_and_the_positions_of_their_items() -> None:
    group = Group({"x": np.zeros((2, 3))}, (0, 2))
    payload = Payload(pointer="/images", groups=(group,))
    assert payload.is_list
    assert (group.items, group.texts) == ((0, 2), ())


def test_a_payload_is_immutable() -> None:
    payload = Payload(pointer="/images", groups=())
    with pytest.raises(AttributeError):
        payload.pointer = "/texts"  # type: ignore[misc]
