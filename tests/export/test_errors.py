"""The message of an export error names its gate."""

from export.errors import ExportError


def test_the_message_names_the_gate() -> None:
    error = ExportError("parity", "output 'logits' differs")
    assert error.gate == "parity"
    assert str(error) == "parity: output 'logits' differs"
