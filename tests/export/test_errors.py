"""The message of an export error names its gate."""

import pytest
from pydantic import ValidationError

from export.errors import ExportError, one_sentence
from service.manifest import AxisRange


def test_the_message_names_the_gate() -> None:
    error = ExportError("parity", "output 'logits' differs")
    assert error.gate == "parity"
    assert str(error) == "parity: output 'logits' differs"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("a\n  b"), "a b"),
        (OSError(2, "No such file"), "[Errno 2] No such file"),
        (ValueError(), "ValueError: no message"),
        (KeyError(0), "KeyError: 0"),
        (SystemExit(3), "SystemExit: 3"),
        (MemoryError(), "MemoryError: no message"),
    ],
)
def test_any_error_is_one_line(error: BaseException, sentence: str) -> None:
    assert one_sentence(error) == sentence


def test_an_invalid_value_is_its_first_field() -> None:
    with pytest.raises(ValidationError) as caught:
        AxisRange(min=1, max=1 << 30)
    assert one_sentence(caught.value) == "field 'max': Input should be less than or equal to 1048576"
