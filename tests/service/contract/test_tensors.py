"""Specs of tensors are strict values."""

import pytest
from pydantic import ValidationError

from service.contract.tensors import TensorSpec, float32, int64, uint8


def test_short_forms_make_the_same_specs() -> None:
    assert float32("x", "batch", 3) == TensorSpec(name="x", dtype="float32", shape=("batch", 3))
    assert (int64("x").dtype, uint8("x").shape) == ("int64", ())


@pytest.mark.parametrize("fields", [{"dtype": "bfloat16"}, {"dtype": "float32", "note": 1}, {}])
def test_unknown_dtypes_and_fields_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TensorSpec(name="x", shape=(1,), **fields)  # type: ignore[arg-type]
