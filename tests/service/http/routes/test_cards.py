"""The card of a model and its plots are sent as the manifest lists them; nothing else of a bundle is."""

import hashlib
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.engine.repository.repository import Repository
from service.errors import BundleError
from service.http.routes.cards import MODEL_CARD, PLOT, match_prefix
from service.manifest import CARD
from tests.service.bundles import NAMES, bundle_files, write_bundle
from tests.service.conftest import CARD_FILES
from tests.service.engine.versions import loader

FAMILY = "text-classifier"
FILES = {CARD: b"# tiny\n\n![A plot](plot.png)\n", "plot.png": b"\x89PNG plot", "notes.txt": b"no plot"}


def write(root: Path) -> Path:
    return write_bundle(root, FAMILY, files=bundle_files(FAMILY) | FILES)


def test_paths() -> None:
    assert match_prefix("/models/a/card") is MODEL_CARD
    assert match_prefix("/models/a/card/plot.png") is PLOT
    for path in ("/models/card", "/models/a", "/models/a/cards", "/models/a/card/b/c.png", "/v2/models/a/card"):
        assert match_prefix(path) is None


def test_a_file_is_sent_as_it_was_exported(tmp_path: Path) -> None:
    folder = write(tmp_path)
    repository = Repository(tmp_path, loader())
    repository.refresh()
    assert repository.read_document(NAMES[FAMILY], CARD) == (FILES[CARD], hashlib.sha256(FILES[CARD]).hexdigest())
    assert repository.read_document(NAMES[FAMILY], "other.png") is None
    assert repository.read_document(NAMES[FAMILY], "../current") is None
    (folder / "plot.png").write_bytes(b"\x89PNG plop")
    with pytest.raises(BundleError, match=r"plot\.png has sha256"):
        repository.read_document(NAMES[FAMILY], "plot.png")


def test_a_bundle_without_a_card_has_none(client: TestClient) -> None:
    for path in ("card", "card/curves.png", "card/model.onnx", "card/manifest.json"):
        found = client.get(f"/models/tiny-texts/{path}")
        assert (found.status_code, found.json()["code"]) == (404, "unknown-route")
    assert client.get("/models/nothing/card").json()["code"] == "unknown-model"


def test_a_card_and_its_plot_are_sent_once(client: TestClient) -> None:
    for path, name, content_type in (
        ("card", CARD, "text/markdown; charset=utf-8"),
        ("card/curves.png", "curves.png", "image/png"),
    ):
        found = client.get(f"/models/tiny-pictures/{path}")
        assert (found.status_code, found.content) == (200, CARD_FILES[name])
        assert found.headers["content-type"] == content_type
        assert found.headers["content-security-policy"] == "default-src 'none'; sandbox"
        again = client.get(f"/models/tiny-pictures/{path}", headers={"if-none-match": found.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
