"""The errors of export: a model that must not be served, and a response that differs from PyTorch's.

An `ExportError` reaches the user as one line that names the gate, the tensor, the case and the difference.
"""


class ExportError(ValueError):
    """A gate refused the model. The message names the gate, then the worst tensor, its case and the difference."""

    def __init__(self, gate: str, detail: str) -> None:
        super().__init__(f"{gate}: {detail}")
        self.gate = gate
        self.detail = detail


class MismatchError(Exception):
    """A response of the service code differs from what PyTorch computes for the same request."""
