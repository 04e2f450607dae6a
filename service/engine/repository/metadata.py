"""What /models says: an entry of the catalog as JSON values.

Invariant: every value comes from the version that it stands beside; what is not known yet is null or left out.
"""

from typing import Any

from service.engine.process.memory import HOW
from service.engine.repository.entry import Entry


def describe(entry: Entry) -> dict[str, Any]:
    """A model in brief, as JSON values."""
    shown, follows = entry.shown, entry.candidate
    manifest = shown.manifest
    return {
        "name": entry.name,
        "state": shown.state,
        "reason": shown.reason,
        "version": manifest.version if manifest else shown.version,
        "task": manifest and manifest.task,
        "family": manifest and manifest.parameters.family,
        "summary": manifest and manifest.summary,
        "provider": shown.provider,
        "next": None
        if follows is None or follows is shown
        else {"version": follows.version, "state": follows.state, "reason": follows.reason},
        "draining": [version.version for version in entry.draining if version.state == "DRAINING"],
    }


def describe_in_full(entry: Entry) -> dict[str, Any]:
    """All that is known of the version in service, as JSON values."""
    shown = entry.shown
    if shown.manifest is None:
        return describe(entry)
    content = shown.manifest.model_dump(mode="json")
    measured = shown.measured or {}
    return {
        **describe(entry),
        "labels": content["parameters"].get("labels"),
        "parameters": {key: value for key, value in content["parameters"].items() if key not in {"family", "labels"}},
        "inputs": content["inputs"],
        "outputs": content["outputs"],
        "limits": content["limits"],
        "parity": {
            output: {
                "atol": tolerance["atol"],
                "rtol": tolerance["rtol"],
                "measured_at_export": tolerance["measured"],
                "measured_here": measured.get(output),
            }
            for output, tolerance in content["tolerance"].items()
        },
        "invariance": content["invariance"],
        "provenance": content["provenance"],
        "load_s": shown.load_s,
        "warmed": shown.warmed and {"shapes": shown.warmed.num_shapes, "seconds": shown.warmed.seconds},
        "memory": shown.memory
        and {"model_bytes": shown.memory.model_bytes, "grown_bytes": shown.memory.grown_bytes, "how": HOW},
    }
