"""The tests' tiny bundles with request cases that hold, for proofs that need no trained model."""

from pathlib import Path

from service.bundle import RequestCase, open_bundle
from service.engine.sessions.model import Model, read_tokenizer
from service.engine.sessions.session import Session
from service.tasks.replay import answer_request_sync
from tests.service.bundles import FAMILIES, bundle_files, write_bundle
from tests.service.requests import request_body


def write_served_bundles(root: Path) -> None:
    """One bundle of each family under `root`."""
    for family in FAMILIES:
        draft = open_bundle(write_bundle(root.parent / "drafts", family))
        session = Session(draft.model, manifest=draft.manifest, device="cpu")
        model = Model(manifest=draft.manifest, session=session, tokenizer=read_tokenizer(draft))
        case = RequestCase(request=request_body(family), answer=answer_request_sync(model, request_body(family)))
        write_bundle(root, family, files=bundle_files(family, requests=[case]))
