"""The bundle that a job scores with: found by name and version, proven on this device before the first row."""

from pathlib import Path

from service.bundle import current_version, open_bundle
from service.engine.sessions.device import Device
from service.engine.sessions.model import Model, read_tokenizer
from service.engine.sessions.session import Session
from service.engine.verification.parity import replay
from service.errors import BundleError
from service.manifest import Manifest
from service.scoring.job import Job, ScoringError
from service.tasks.replay import replay_requests


def resolve(reference: str, bundles: Path) -> tuple[str, str]:
    """NAME or NAME@VERSION (any number of its first digits) -> name and version."""
    name, _, wanted = reference.partition("@")
    folder = bundles / name
    if not folder.is_dir() or not name:
        known = sorted(path.parent.name for path in bundles.glob("*/current"))
        raise ScoringError(f"--model {name}: no such bundle in {bundles}; there are: {', '.join(known) or 'none'}")
    if not wanted:
        try:
            return name, current_version(folder)
        except BundleError as error:
            raise ScoringError(f"--model {error}") from error
    versions = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name.startswith(wanted))
    if len(versions) != 1:
        raise ScoringError(f"--model {reference}: expected one version, found {', '.join(versions) or 'none'}")
    return name, versions[0]


def read_manifest(bundles: Path, name: str, version: str) -> Manifest:
    """The manifest of a bundle that passed every check of its files."""
    try:
        return open_bundle(bundles / name / version).manifest
    except BundleError as error:
        raise ScoringError(str(error)) from error


def load(job: Job) -> Model:
    """The model of a job."""
    return load_bundle(job.bundle, job.device)


def load_bundle(folder: Path, device: Device) -> Model:
    """A model, verified: its goldens and request cases replayed on this device. Raises BundleError."""
    bundle = open_bundle(folder)
    session = Session(bundle.model, manifest=bundle.manifest, device=device)
    replay(session, bundle)
    model = Model(manifest=bundle.manifest, session=session, tokenizer=read_tokenizer(bundle))
    replay_requests(model, bundle.requests)
    return model
