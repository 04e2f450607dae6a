"""A mutant: one change of a candidate, of the kind that an error of an export or a damaged bundle would make."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from export.candidate import Candidate

# The only kind of which export may miss a few; every other kind is structured.
SINGLE_WEIGHT = "single weight"


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """`size` is the largest change of a stored value, None if the change is not one of values."""

    kind: str
    location: str
    size: float | None = None
    apply: Callable[[Candidate], Candidate]

    @property
    def is_structured(self) -> bool:
        return self.kind != SINGLE_WEIGHT

    def __str__(self) -> str:
        size = "" if self.size is None else f" by {self.size:.3g}"
        return f"{self.kind}: {self.location}{size}"


def graph_mutant(kind: str, location: str, change: Callable[[bytes], bytes], size: float | None = None) -> Mutant:
    """A mutant that changes only the bytes of the graph."""
    return Mutant(
        kind=kind,
        location=location,
        size=size,
        apply=lambda candidate: replace(candidate, model=change(candidate.model)),
    )
