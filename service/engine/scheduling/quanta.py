"""Work without end of its own, such as a decode loop, that a device thread does in quanta between other work."""

from typing import Protocol

from service.errors import EkibenError


class QuantumLoop(Protocol):
    """Never run on two threads at the same time."""

    due: float  # on the clock of `time.monotonic`: until then, all other work goes first

    def run(self) -> bool:
        """Do one quantum; returns whether more work is left. Never raises."""

    def fail(self, error: EkibenError) -> None:
        """Give up all work with this error."""
