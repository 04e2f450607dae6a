"""A source is a place and a digest; credentials stand in no message."""

import pytest

from service.fetch.source import parse_source, without_credentials

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("place", "is_artifact"),
    [
        ("bundles/m/1", False),
        ("s3://key:secret@bucket/m/1?region=eu-west-1", False),
        ("oci://registry.example:5000/team/bundles", True),
    ],
)
def test_a_source_has_a_place_and_a_digest(place: str, is_artifact: bool) -> None:
    source = parse_source(f"{place}@sha256:{DIGEST}")
    assert (source.place, source.digest, source.is_artifact) == (place, DIGEST, is_artifact)
    assert (source.pointer, parse_source(f"{place}@sha256:{DIGEST}", "candidate").pointer) == ("current", "candidate")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bundles/m/1", r"^bundles/m/1: expected PLACE@sha256:DIGEST; sha256sum of its manifest.json"),
        (f"@sha256:{DIGEST}", "expected PLACE@sha256:DIGEST"),
        ("https://user:secret@h/m@sha256:12", r"^https://h/m: sha256:12 is no digest of 64 hex digits$"),
        (f"m@sha256:{DIGEST.upper()}", "no digest of 64 hex digits"),
    ],
)
def test_anything_else_is_a_mistake(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_source(text)


def test_what_may_be_a_secret_is_left_out() -> None:
    assert without_credentials("https://user:secret@h:1/m/1?token=x#y") == "https://h:1/m/1"
    assert without_credentials("s3://key:secret@bucket/m?secret_access_key=x") == "s3://bucket/m"
    assert without_credentials("abfs://c@a.dfs.core.windows.net/m?account_key=x") == "abfs://c@a.dfs.core.windows.net/m"
    assert without_credentials("/mnt/a@b?c") == "/mnt/a@b?c"
