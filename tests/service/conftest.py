"""The real application over tiny bundles whose request cases were answered by the task code; one a process."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest
from starlette.testclient import TestClient
from tokenizers import Tokenizer

from service.bundle import Bundle, RequestCase, open_bundle
from service.engine.sessions.model import Model
from service.engine.sessions.session import Session
from service.manifest import CARD
from service.tasks.replay import answer_request_sync
from tests.service.bundles import FAMILIES, bundle_files, write_bundle
from tests.service.chat_bundle import answered_case, write_chat_bundle
from tests.service.distributions import distribution_files
from tests.service.engine.versions import wait_until
from tests.service.requests import request_body
from tests.service.scoring.object_server import AZURITE, Kind, ObjectServer, object_server

CARD_FILES = {CARD: b"# tiny-pictures\n\n![Curves](curves.png)\n", "curves.png": b"\x89PNG\r\n\x1a\n"}


@pytest.fixture(scope="session")
def served_bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one whole bundle of each family, and of a chat model."""
    staging, root = tmp_path_factory.mktemp("drafts"), tmp_path_factory.mktemp("bundles")
    for family in FAMILIES:
        bundle = open_bundle(write_bundle(staging, family))
        case = RequestCase(
            request=request_body(family), answer=answer_request_sync(_model(bundle), request_body(family))
        )
        files = bundle_files(family, requests=[case]) | distribution_files(family)
        write_bundle(root, family, files=files | (CARD_FILES if family == "image-generator" else {}))
    write_chat_bundle(root, [answered_case(_model(open_bundle(write_chat_bundle(staging))))])
    return root


def _model(bundle: Bundle) -> Model:
    return Model(
        manifest=bundle.manifest,
        session=Session(bundle.model, manifest=bundle.manifest, device="cpu"),
        tokenizer=Tokenizer.from_str(bundle.tokenizer) if bundle.tokenizer else None,
    )


@pytest.fixture(scope="session")
def client(served_bundles: Path) -> Iterator[TestClient]:
    """A client of the ready application, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EKIBEN_BUNDLES", str(served_bundles))
        patch.setenv("EKIBEN_MAX_BODY_BYTES", "65536")
        patch.setenv("BENTOML_DO_NOT_TRACK", "True")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # BentoML uses what its dependencies call deprecated
            from service.app import Ekiben

            app = Ekiben.to_asgi()
        with TestClient(app, raise_server_exceptions=False) as client:
            wait_until(lambda: client.get("/readyz").status_code == 200)
            yield client


@pytest.fixture(scope="session")
def object_servers() -> Iterator[Callable[[Kind], ObjectServer]]:
    """Start the server of a kind of store when it is first asked for."""
    with contextlib.ExitStack() as started:

        @functools.cache
        def start(kind: Kind) -> ObjectServer:
            if kind == "az" and not AZURITE.exists():
                pytest.skip("Azurite is not installed: make prove-object-stores")
            return started.enter_context(object_server(kind))

        yield start


@pytest.fixture
def server(object_servers: Callable[[Kind], ObjectServer]) -> Iterator[ObjectServer]:
    """An S3 server whose bucket `data` is empty and that has no faults."""
    with emptied(object_servers("s3")) as server:
        yield server


@pytest.fixture(params=get_args(Kind))
def store(request: pytest.FixtureRequest, object_servers: Callable[[Kind], ObjectServer]) -> Iterator[ObjectServer]:
    """As `server`, of each kind of store in turn."""
    with emptied(object_servers(request.param)) as store:
        yield store


@contextlib.contextmanager
def emptied(server: ObjectServer) -> Iterator[ObjectServer]:
    server.faults()
    server.empty()
    yield server
    server.faults()
