"""Writes the tests' tiny bundles with valid request cases, for checks that need no trained model."""

from pathlib import Path

from service.bundle import RequestCase, open_bundle
from service.engine.sessions.model import Model
from service.engine.sessions.session import Session
from service.engine.sessions.tokenizer import read_tokenizer
from service.tasks.replay import answer_request_sync
from tests.service.bundles import FAMILIES, bundle_files, write_bundle
from tests.service.distributions import distribution_files
from tests.service.requests import request_body


def write_tiny_bundles(root: Path) -> None:
    """Write one bundle of each family below `root`."""
    for family in FAMILIES:
        candidate = open_bundle(write_bundle(root.parent / "candidates", family))
        session = Session(candidate.model, manifest=candidate.manifest, device="cpu")
        model = Model(manifest=candidate.manifest, session=session, tokenizer=read_tokenizer(candidate))
        case = RequestCase(request=request_body(family), answer=answer_request_sync(model, request_body(family)))
        write_bundle(root, family, files=bundle_files(family, requests=[case]) | distribution_files(family))
