"""What happens when the folder of bundles changes under a repository that serves."""

import logging
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from service.bundle import RequestCase
from service.engine.repository import reconciler
from service.engine.repository.reconciler import Keeper
from service.engine.repository.registry import Catalog
from service.engine.sessions.model import Model
from service.errors import EkibenError
from tests.service.bundles import write_bundle
from tests.service.engine.repository.test_loader import loader
from tests.service.engine.versions import NAME, point, publish, publish_broken, wrong_golden


class Watched:
    """A keeper over one READY version, polled by hand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.first = publish(root, 1)
        self.catalog = Catalog("")
        self.keeper = Keeper(root, self.catalog, loader())
        self.keeper.scan(first=True)
        self.poll()

    def poll(self) -> None:
        self.keeper.scan()
        self.keeper.follow_all(threading.Event())
        self.keeper.sweep()

    @property
    def serves(self) -> str | None:
        model = self.catalog[NAME].model
        return model.manifest.version if model is not None else None

    @property
    def failed(self) -> str | None:
        """Why the version that should follow does not."""
        candidate = self.catalog[NAME].candidate
        return f"{candidate.version} {candidate.state}: {candidate.reason}" if candidate is not None else None


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    watched = Watched(tmp_path)
    assert watched.serves == watched.first
    return watched


def test_a_new_version_takes_over_and_the_old_one_is_freed(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        second = publish(watched.root, 2)
        watched.poll()
    assert (watched.serves, watched.failed) == (second, None)
    assert watched.catalog[NAME].draining == ()
    assert f"{NAME} {second} READY" in caplog.text
    assert f"; {watched.first} drains" in caplog.text
    assert f"{NAME} {watched.first} UNLOADED" in caplog.text


def test_the_old_version_drains_while_a_request_holds_it(watched: Watched) -> None:
    held = watched.catalog[NAME].model
    publish(watched.root, 2)
    watched.poll()
    assert [(v.version, v.state) for v in watched.catalog[NAME].draining] == [(watched.first, "DRAINING")]
    assert held is not None
    assert held.session.run is not None
    del held
    watched.keeper.sweep()
    assert watched.catalog[NAME].draining == ()


@pytest.mark.parametrize("fault", ["byte", "golden", "tolerance", "current", "missing"])
def test_a_broken_version_changes_nothing_but_what_is_said(
    fault: str, watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    words = {
        "byte": "model.onnx has sha256",
        "golden": "golden case",
        "tolerance": "field 'tolerance.logits.atol'",
        "current": "`current` says 'latest'",
        "missing": "cannot read manifest.json",
    }
    match fault:
        case "byte":
            publish_broken(watched.root, 2)
        case "golden":
            publish(watched.root, 2, files=wrong_golden(2))
        case "tolerance":
            version = publish(watched.root, 2)
            manifest = watched.root / NAME / version / "manifest.json"
            manifest.write_text(manifest.read_text().replace('"atol": 1e-05', '"atol": 0.5', 1))
        case "current":
            point(watched.root, "latest")
        case _:
            point(watched.root, "0123456789ab")
    watched.poll()
    assert watched.serves == watched.first
    assert "FAILED: " in (watched.failed or "")
    assert words[fault] in (watched.failed or "")
    assert words[fault] in caplog.text
    assert f"{watched.first} goes on serving" in caplog.text
    assert watched.catalog.not_ready_because() is None


def test_a_failed_version_is_not_tried_again_until_it_changes(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    version = publish_broken(watched.root, 2)
    for _ in range(3):
        watched.poll()
    assert caplog.text.count(" FAILED: ") == 1
    shutil.rmtree(watched.root / NAME / version)
    assert publish(watched.root, 2) == version
    watched.poll()
    assert (watched.serves, watched.failed) == (version, None)


def test_pointing_back_forgets_the_failure(watched: Watched) -> None:
    publish_broken(watched.root, 2)
    watched.poll()
    assert watched.failed
    point(watched.root, watched.first)
    watched.poll()
    assert (watched.serves, watched.failed) == (watched.first, None)


def test_pointing_back_to_an_older_version_loads_it_again(watched: Watched) -> None:
    publish(watched.root, 2)
    watched.poll()
    point(watched.root, watched.first)
    watched.poll()
    assert watched.serves == watched.first


def test_a_new_model_is_found_when_it_is_whole(watched: Watched) -> None:
    (watched.root / "tiny-series").mkdir()
    watched.poll()
    assert "tiny-series" not in watched.catalog
    assert watched.catalog.not_ready_because() is None
    write_bundle(watched.root, "series-classifier")
    watched.poll()
    assert watched.catalog["tiny-series"].model is not None


def test_a_new_model_that_fails_says_so_and_leaves_the_service_ready(watched: Watched) -> None:
    folder = write_bundle(watched.root, "series-classifier")
    (folder / "model.onnx").write_bytes(b"")
    watched.poll()
    assert "model.onnx has 0 bytes" in (watched.catalog["tiny-series"].shown.reason or "")
    assert watched.catalog.not_ready_because() is None


def test_a_model_whose_folder_was_removed_leaves(watched: Watched) -> None:
    write_bundle(watched.root, "series-classifier")
    watched.poll()
    held = watched.catalog["tiny-series"].model
    shutil.rmtree(watched.root / "tiny-series")
    watched.poll()
    assert watched.catalog["tiny-series"].model is None
    assert watched.catalog["tiny-series"].shown.state == "DRAINING"
    with pytest.raises(EkibenError, match="its folder was removed") as caught:
        watched.keeper.load("tiny-series", None)
    assert caught.value.slug == "unknown-model"
    assert watched.catalog.not_ready_because() is None
    del held
    watched.poll()
    assert "tiny-series" not in watched.catalog
    write_bundle(watched.root, "series-classifier")
    watched.poll()
    assert watched.catalog["tiny-series"].model is not None


def test_a_folder_that_cannot_be_read_ends_nothing(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watched.root.rename(watched.root.with_name("away"))
    for _ in range(3):
        watched.poll()
    assert (watched.serves, watched.failed) == (watched.first, None)
    assert watched.catalog.not_ready_because() is None
    assert caplog.text.count("cannot read the folder of bundles") == 1
    watched.root.with_name("away").rename(watched.root)
    second = publish(watched.root, 2)
    watched.poll()
    assert watched.serves == second


def test_the_last_model_gone_is_not_ready(watched: Watched) -> None:
    shutil.rmtree(watched.root / NAME)
    watched.poll()
    assert "is empty: export a model first" in (watched.catalog.not_ready_because() or "")


def test_a_served_version_whose_folder_is_removed_serves_on_and_is_told(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    folder = watched.root / NAME / watched.first
    folder.rename(watched.root / ".away")
    for _ in range(3):
        watched.poll()
    assert watched.serves == watched.first
    assert watched.failed is not None
    assert "cannot read manifest.json: No such file" in watched.failed
    assert caplog.text.count(f"{watched.first} goes on serving") == 1
    (watched.root / ".away").rename(folder)
    watched.poll()
    assert (watched.serves, watched.failed) == (watched.first, None)


def test_a_folder_that_no_model_may_be_called_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "lost+found").mkdir()
    watched = Watched(tmp_path)
    watched.poll()
    assert watched.catalog.names() == [NAME]
    assert watched.catalog.not_ready_because() is None
    assert caplog.text.count("'lost+found'") == 1


def test_unload_and_load(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        watched.keeper.unload(NAME, None)
    assert watched.catalog[NAME].shown.state == "DRAINING"
    watched.poll()
    assert watched.catalog[NAME].shown.state == "UNLOADED"
    assert watched.catalog.not_ready_because() == f"{NAME} was unloaded by request"
    assert f"{NAME}: unloaded by request" in caplog.text
    second = publish(watched.root, 2)
    watched.poll()
    assert watched.serves is None, "what was unloaded by request waits for a request"
    watched.keeper.load(NAME, None)
    assert watched.serves == second
    watched.keeper.load(NAME, None)
    assert watched.serves == second


def test_load_finds_a_new_model_and_says_why_it_fails(watched: Watched) -> None:
    folder = write_bundle(watched.root, "series-classifier")
    (folder / "model.onnx").write_bytes(b"")
    with pytest.raises(EkibenError, match=r"model\.onnx has 0 bytes") as caught:
        watched.keeper.load("tiny-series", None)
    assert caught.value.slug == "not-ready"
    write_bundle(watched.root, "series-classifier")
    watched.keeper.load("tiny-series", None)
    assert watched.catalog["tiny-series"].model is not None


def test_load_says_why_a_new_version_fails_although_the_old_one_serves(watched: Watched) -> None:
    publish_broken(watched.root, 2)
    with pytest.raises(EkibenError, match=r"model\.onnx has sha256"):
        watched.keeper.load(NAME, None)
    assert watched.serves == watched.first


def test_load_and_unload_know_their_models(watched: Watched) -> None:
    for act in (watched.keeper.load, watched.keeper.unload):
        with pytest.raises(EkibenError, match="no model 'nobody'") as caught:
            act("nobody", None)
        assert caught.value.slug == "unknown-model"


def test_load_waits_for_its_turn_only_so_long(watched: Watched) -> None:
    with watched.keeper._turn_of(NAME), pytest.raises(EkibenError, match=f"{NAME} is being loaded for") as caught:
        watched.keeper.load(NAME, 0.01)
    assert caught.value.slug == "timeout"


def test_several_models_are_loaded_at_once(tmp_path: Path) -> None:
    """Each of two waits in its loading for the other one."""
    both = threading.Barrier(2)

    def meet(model: Model, cases: Sequence[RequestCase]) -> None:
        both.wait(30)

    for family in ("image-classifier", "series-classifier", "series-tagger", "image-generator"):
        write_bundle(tmp_path, family)
    catalog = Catalog("")
    keeper = Keeper(tmp_path, catalog, replace(loader(), replay_requests=meet), at_once=2)
    keeper.scan(first=True)
    keeper.follow_all(threading.Event())
    assert catalog.not_ready_because() is None


def test_what_the_heartbeat_found_wrong_is_loaded_anew_after_a_while(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.keeper.fail(NAME, "another", "not this one")
    assert watched.serves == watched.first
    watched.keeper.fail(NAME, watched.first, "heartbeat: golden case 0 is wrong")
    watched.keeper.fail(NAME, watched.first, "heartbeat: once more")
    assert watched.serves is None
    assert watched.catalog.not_ready_because() == "heartbeat: golden case 0 is wrong"
    assert f"{NAME} {watched.first} FAILED: heartbeat: golden case 0 is wrong" in caplog.text
    watched.poll()
    assert watched.serves is None, "not at once"
    watched.catalog.update(NAME, lambda entry: replace(entry, retry_at=time.monotonic()))
    watched.poll()
    assert watched.serves == watched.first
    assert watched.catalog.not_ready_because() is None
    assert watched.catalog[NAME].retry_at is None


def test_a_version_held_for_long_is_looked_for_in_garbage_and_spoken_of_once(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reconciler, "SLOW_DRAIN_S", -1.0)
    held = watched.catalog[NAME].model
    cycle: list[object] = [watched.catalog[NAME].model]
    cycle.append(cycle)
    publish(watched.root, 2)
    watched.poll()
    watched.poll()
    assert caplog.text.count(f"{watched.first} is still held by a request") == 1
    del held
    watched.poll()
    assert watched.catalog[NAME].draining, "the cycle holds it"
    del cycle
    watched.keeper._slow.clear()
    watched.poll()
    watched.poll()
    assert watched.catalog[NAME].draining == ()
