"""What /models says of a model that serves, of one that follows, and of one that is not known yet."""

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from service.engine.repository.entry import Entry
from service.engine.repository.metadata import describe, describe_in_full
from service.engine.repository.version import Version
from tests.service.engine.repository.test_loader import loader
from tests.service.engine.versions import NAME, publish


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    """One READY version."""
    number = publish(tmp_path, 1)
    *_, ready = loader().stages(Version(name=NAME, version=number), tmp_path / NAME / number)
    return Entry(name=NAME, serving=ready)


def test_what_is_not_known_yet_is_null() -> None:
    described = describe_in_full(Entry(name="m", candidate=Version(name="m", version="0123456789ab")))
    assert {key: value for key, value in described.items() if value} == {
        "name": "m",
        "state": "LOADING",
        "version": "0123456789ab",
    }


def test_what_follows_stands_beside_what_serves(entry: Entry) -> None:
    assert describe(entry)["next"] is None
    broken = Version(name=NAME, version="0123456789ab").to("FAILED", reason="model.onnx has 3 bytes")
    described = describe(replace(entry, candidate=broken))
    assert entry.serving is not None
    assert (described["state"], described["reason"]) == ("READY", None)
    assert described["version"] == entry.serving.version
    assert described["next"] == {"version": "0123456789ab", "state": "FAILED", "reason": "model.onnx has 3 bytes"}


def test_what_drains_is_named(entry: Entry) -> None:
    assert entry.serving is not None
    described = describe(replace(entry.retired(), serving=entry.serving))
    assert described["draining"] == [entry.serving.version]


def test_all_of_it_is_json_and_says_what_was_measured(entry: Entry) -> None:
    full = orjson.loads(orjson.dumps(describe_in_full(entry)))
    assert full.items() >= describe(entry).items()
    assert set(full["parity"]) == {"logits", "probabilities"}
    assert full["memory"]["model_bytes"] > 0
    assert "includes whatever else the process did" in full["memory"]["how"]
    assert full["warmed"]["shapes"] == 4
    assert full["labels"] == ["dog", "cat", "owl"]
