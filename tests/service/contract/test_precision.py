"""The precision of a variant names its parent by name and version."""

import pytest
from pydantic import ValidationError

from service.contract.precision import Precision

FIELDS = {"kind": "int8", "parent": "digits/0123456789ab", "items": 10, "agreement": 0.99}


def test_a_variant_without_targets_has_no_metric() -> None:
    assert Precision.model_validate(FIELDS).metric == ""


@pytest.mark.parametrize(
    "changes",
    [{"kind": "int2"}, {"parent": "digits"}, {"parent": "../digits/0123456789ab"}, {"agreement": 1.1}],
    ids=str,
)
def test_another_kind_parent_or_share_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Precision.model_validate(FIELDS | changes)
