"""What a user says about the Ray cluster of a job: its address and the runtime environment of its tasks."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.scoring.job import ScoringError


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """`address` is None for the cluster of RAY_ADDRESS, or for one of this machine alone."""

    address: str | None = None
    runtime_env: Mapping[str, Any] = field(default_factory=dict)


def cluster_options(
    engine: str, address: str | None, runtime_env: Mapping[str, Any] | str | Path | None
) -> ClusterOptions:
    """Return the options; `runtime_env` may be JSON or a file of JSON or YAML. Raises ScoringError."""
    if engine != "ray":
        for option, value in (("--ray-address", address), ("--ray-runtime-env", runtime_env)):
            if value is not None:
                raise ScoringError(f"{option}: only --engine ray has a cluster")
    return ClusterOptions(address=address, runtime_env=_read(runtime_env))


def _read(runtime_env: Mapping[str, Any] | str | Path | None) -> Mapping[str, Any]:
    if runtime_env is None or isinstance(runtime_env, Mapping):
        return runtime_env or {}
    text = str(runtime_env)
    try:
        content = json.loads(text) if text.lstrip().startswith("{") else _read_file(Path(text))
    except (OSError, ValueError) as error:
        raise ScoringError(f"--ray-runtime-env: expected JSON or a file of JSON or YAML; {error}") from error
    if not isinstance(content, dict):
        raise ScoringError(f"--ray-runtime-env {text}: expected an object, such as env_vars: {{NAME: VALUE}}")
    return content


def _read_file(path: Path) -> Any:
    import yaml  # type: ignore[import-untyped] # noqa: PLC0415 - no types are installed; it comes with ray

    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {str(error).splitlines()[0]}") from error
