"""Gate, manifest: what the manifest declares is what the source says, except for what the gates measure.

Nothing else compares the limits of requests, the tolerances and the provenance with the source: a tolerance of 0.01
would let every later gate, and the service, accept other answers.
"""

from collections.abc import Iterator
from typing import Any

from export.candidate import Candidate, build_candidate
from export.errors import ExportError
from service.manifest import Manifest

# What the gates and the writer replace.
MEASURED = {"version", "files", "domain", "mutation", "invariance"}
MEASURED_TOLERANCES = {"measured", "rounding"}
MAX_CHARS = 80


def check_manifest(candidate: Candidate) -> None:
    """Raises ExportError that names the first field that differs from the source."""
    # Training has recorded the metrics of a run; those of other models are measured by a gate.
    is_run = candidate.source.run is not None
    expected = dict(
        _fields(
            build_candidate(candidate.source, candidate.model, candidate.data).manifest, has_recorded_metrics=is_run
        )
    )
    actual = dict(_fields(candidate.manifest, has_recorded_metrics=is_run))
    for name in expected | actual:
        if actual.get(name) != expected.get(name):
            raise ExportError(
                "manifest",
                f"{name} is {_abbreviated(actual.get(name))}, the source has {_abbreviated(expected.get(name))}",
            )


def _fields(manifest: Manifest, *, has_recorded_metrics: bool) -> Iterator[tuple[str, Any]]:
    content = manifest.model_dump(mode="json", exclude=MEASURED)
    for tolerance in content["tolerance"].values():
        for name in MEASURED_TOLERANCES:
            del tolerance[name]
    # The packages of the environment that exports.
    del content["provenance"]["versions"]
    if not has_recorded_metrics:
        del content["provenance"]["metrics"]
    for name, value in content.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{part}", one) for part, one in value.items())
        else:
            yield name, value


def _abbreviated(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}..."
