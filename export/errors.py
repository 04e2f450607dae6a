"""The errors of export: a model that must not be served, and a response that differs from the reference's.

An `ExportError` reaches the user as one line that names the gate and what is wrong, with tensor and case if known.
"""


class ExportError(ValueError):
    """A gate refused the model. The message names the gate and what is wrong, with tensor and case if known."""

    def __init__(self, gate: str, detail: str) -> None:
        super().__init__(f"{gate}: {detail}")
        self.gate = gate
        self.detail = detail


class MismatchError(Exception):
    """A response of the service code differs from what the reference computes for the same request."""
