"""Repeated requests, their bounds, and errors of one line."""

import time
from datetime import timedelta

import pytest

from service.scoring.job import ScoringError
from service.scoring.storage import object_store
from service.scoring.storage.location import parse_location
from service.scoring.storage.object_store import open_store, store_errors
from tests.service.scoring.object_server import ObjectServer


def test_requests_that_fail_for_a_moment_are_repeated(store: ObjectServer) -> None:
    opened = open_store(parse_location(store.uri(""), option="--input"))
    store.faults("every=5")
    for number in range(20):
        opened.put(f"{number}", b"x")
    assert sum(len(page) for page in opened.list()) == 20


def test_a_store_that_never_answers_is_given_up(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "RETRY_TIMEOUT", timedelta(seconds=1))
    store = open_store(parse_location(f"{server.uri('x')}&virtual_hosted_style_request=false", option="--input"))
    server.faults("every=1")
    started = time.monotonic()
    with pytest.raises(OSError, match=r"^s3://data/x: .*503") as error, store_errors("s3://data/x"):
        store.head("x")
    assert "\n" not in str(error.value)
    assert time.monotonic() - started < 30


def test_a_missing_object_is_a_missing_file(store: ObjectServer) -> None:
    opened = open_store(parse_location(store.uri(""), option="--input"))
    with pytest.raises(FileNotFoundError, match="s3://data/x: there is no such object"), store_errors("s3://data/x"):
        opened.head("x")


def test_the_environment_may_change(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.put("x", b"1")
    location = parse_location("s3://data/x", option="--input")
    before = open_store(location)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    assert open_store(location) is not before
    assert open_store(location).head("x")["size"] == 1


def test_what_the_store_answered_is_the_message() -> None:
    from obstore.exceptions import GenericError

    with pytest.raises(OSError, match=r"^p: It is late \(Late\)$"), store_errors("p"):
        raise GenericError("Generic error\n<Code>Late</Code><Message>It is late\nRequestId:1</Message>\n")
    with pytest.raises(OSError, match=r"^p: GET http://h/x\?sig=\*\*\*&a=1$"), store_errors("p"):
        raise GenericError("GET http://h/x?sig=secret&a=1\nDebug: secret")


def test_missing_credentials_are_named() -> None:
    reason = r"^p: no credentials: set them in the environment, or, to read what is public, give the option anonymous="
    with pytest.raises(OSError, match=reason), store_errors("p"):
        raise ValueError("Error performing PUT http://169.254.169.254/latest")


def test_options_of_each_kind_open_a_store() -> None:
    def config(text: str) -> dict[str, str]:
        return dict(open_store(parse_location(text, option="--input")).config)

    azure = config("abfs://c@acc.dfs.core.windows.net/p?sas_token=sv%3D1")
    assert (azure["container_name"], azure["account_name"]) == ("c", "acc")
    assert config("gs://b/p?anon=true")["skip_signature"] == "true"
    assert config("s3://b/p?endpoint_override=h:1&scheme=http")["endpoint"] == "http://h:1"
    with pytest.raises(ScoringError, match=r"az://c: .*[Aa]ccount"):
        open_store(parse_location("az://c/p", option="--input"))
