"""The metadata of a model as JSON values, for the /models endpoints.

Invariant: every value belongs to the version named beside it; a value that is not known yet is null or left out.
"""

from typing import Any

from service.engine.repository.entry import ModelEntry


def model_summary(entry: ModelEntry) -> dict[str, Any]:
    """Return the state of a model, and the versions that follow and drain."""
    version, candidate = entry.display_version, entry.candidate if entry.serving else None
    manifest = version.manifest
    return {
        "name": entry.name,
        "state": version.state,
        "reason": version.reason,
        "version": manifest.version if manifest else version.version,
        "task": manifest and manifest.task,
        "pair": manifest and manifest.pair,
        "summary": manifest and manifest.summary,
        "provider": version.provider,
        "next": candidate and {"version": candidate.version, "state": candidate.state, "reason": candidate.reason},
        "draining": [draining.version for draining in entry.draining if draining.state == "DRAINING"],
    }


def model_details(entry: ModelEntry) -> dict[str, Any]:
    """Return the summary, the content of the manifest, and the measurements made when the version was loaded."""
    version = entry.display_version
    if version.manifest is None:
        return model_summary(entry)
    manifest = version.manifest.model_dump(mode="json")
    here = version.measured or {}
    return {
        **model_summary(entry),
        "labels": manifest["head"].get("labels"),
        "reader": manifest["reader"],
        "head": {key: value for key, value in manifest["head"].items() if key != "labels"},
        **{
            field: manifest[field]
            for field in ("inputs", "outputs", "limits", "domain", "mutation", "invariance", "provenance")
        },
        "parity": {
            name: {"atol": t.atol, "rtol": t.rtol, "measured_at_export": t.measured, "measured_here": here.get(name)}
            for name, t in version.manifest.tolerance.items()
        },
        "load_s": version.load_s,
        "warmed": version.warmup,
        "memory": version.memory,
    }
