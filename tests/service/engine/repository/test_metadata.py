"""The metadata of a serving model, of its candidate, and of a model that is still loading."""

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from service.engine.repository.entry import ModelEntry
from service.engine.repository.metadata import model_details, model_summary
from service.engine.repository.version import Version
from tests.service.engine.versions import NAME, loader, publish


@pytest.fixture
def entry(tmp_path: Path) -> ModelEntry:
    """One READY version."""
    number = publish(tmp_path, 1)
    *_, ready = loader().stages(Version(name=NAME, version=number), tmp_path / NAME / number)
    return ModelEntry(name=NAME, serving=ready)


def test_unknown_values_are_null() -> None:
    details = model_details(ModelEntry(name="m", candidate=Version(name="m", version="0123456789ab")))
    assert {key: value for key, value in details.items() if value} == {
        "name": "m",
        "state": "LOADING",
        "version": "0123456789ab",
    }


def test_the_candidate_is_shown_beside_the_serving_version(entry: ModelEntry) -> None:
    assert model_summary(entry)["next"] is None
    broken = Version(name=NAME, version="0123456789ab").to("FAILED", reason="model.onnx has 3 bytes")
    summary = model_summary(replace(entry, candidate=broken))
    assert entry.serving is not None
    assert (summary["state"], summary["reason"]) == ("READY", None)
    assert summary["version"] == entry.serving.version
    assert summary["next"] == {"version": "0123456789ab", "state": "FAILED", "reason": "model.onnx has 3 bytes"}


def test_draining_versions_are_named(entry: ModelEntry) -> None:
    assert entry.serving is not None
    summary = model_summary(replace(entry.start_draining(), serving=entry.serving))
    assert summary["draining"] == [entry.serving.version]


def test_details_are_json_with_measurements(entry: ModelEntry) -> None:
    full = orjson.loads(orjson.dumps(model_details(entry)))
    assert full.items() >= model_summary(entry).items()
    assert set(full["parity"]) == {"logits", "probabilities"}
    assert full["memory"]["model_bytes"] > 0
    assert "includes whatever else the process did" in full["memory"]["how"]
    assert full["warmed"]["shapes"] == 4
    assert full["labels"] == ["dog", "cat", "owl"]
    assert full["domain"] == {}


def test_the_summary_shows_the_manifest(entry: ModelEntry) -> None:
    assert entry.serving is not None
    assert entry.serving.manifest is not None
    summary = model_summary(entry)
    assert (summary["name"], summary["version"]) == (NAME, entry.serving.manifest.version)
    assert (summary["task"], summary["pair"]) == ("classify", "image -> labels")
    assert summary["summary"] == entry.serving.manifest.summary
    assert summary["provider"] == "CPUExecutionProvider"
