"""The bundle of a job: found by name and version, verified on the job's device before the first row is scored."""

import difflib
from pathlib import Path

from service.bundle import current_version, open_bundle
from service.engine.repository.loader import Loader, replay_golden
from service.engine.sessions.device import Device
from service.engine.sessions.model import Model
from service.errors import BundleError
from service.manifest import Manifest
from service.scoring.job import ScoringError
from service.tasks.replay import replay_requests


def resolve_version(reference: str, bundles: Path) -> tuple[str, str]:
    """Resolve NAME or NAME@VERSION (or a unique prefix of VERSION). Raises ScoringError that lists what exists."""
    name, _, prefix = reference.partition("@")
    folder = bundles / name
    if not folder.is_dir() or not name:
        known = sorted(path.parent.name for path in bundles.glob("*/current"))
        similar = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {similar[0]}? " if similar else ""
        raise ScoringError(
            f"--model {name}: no such bundle in {bundles}; {hint}available: {', '.join(known) or 'none'}"
        )
    if not prefix:
        try:
            return name, current_version(folder)
        except BundleError as error:
            raise ScoringError(f"--model {error}") from error
    versions = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name.startswith(prefix))
    if len(versions) != 1:
        raise ScoringError(f"--model {reference}: expected one version, found {', '.join(versions) or 'none'}")
    return name, versions[0]


def read_manifest(bundles: Path, name: str, version: str) -> Manifest:
    """Check every file of a bundle and return its manifest. Raises ScoringError."""
    try:
        return open_bundle(bundles / name / version).manifest
    except BundleError as error:
        raise ScoringError(str(error)) from error


def load_bundle(folder: Path, device: Device) -> Model:
    """Load a model and verify it by every check of the service on this device. Raises BundleError.

    On a GPU the session has no bound: it takes the memory that the batches of the job need.
    """
    bundle = open_bundle(folder)
    loader = Loader(device=device, replay_requests=replay_requests)
    model = loader.create_model(bundle)
    replay_golden(model, bundle)
    for check in loader.checks().values():
        check(model, bundle)
    return model
