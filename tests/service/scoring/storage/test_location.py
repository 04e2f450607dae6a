"""Names of places: schemes, options, escapes, and what must not show."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.job import ScoringError
from service.scoring.storage.location import Location, exact_location, parse_location


def parse(text: str) -> Location:
    return parse_location(text, option="--input")


@pytest.mark.parametrize(
    ("text", "kind", "root", "path", "options"),
    [
        ("s3://bucket/a b/c#1/%41.csv/", "s3", "bucket", "a b/c#1/%41.csv", {}),
        ("s3a://bucket", "s3", "bucket", "", {}),
        ("S3N://bucket/x", "s3", "bucket", "x", {}),
        (
            "s3://b/p/?endpoint=http://127.0.0.1:9000&region=eu-west-1&allow_http=true",
            "s3",
            "b",
            "p",
            {"endpoint": "http://127.0.0.1:9000", "region": "eu-west-1", "allow_http": "true"},
        ),
        ("s3://b/*.csv?endpoint_override=h:1&scheme=http", "s3", "b", "*.csv", {"endpoint": "h:1", "scheme": "http"}),
        ("s3://b/part-?.csv", "s3", "b", "part-?.csv", {}),
        ("s3://b/part-?", "s3", "b", "part-?", {}),
        ("s3://k:s%2Fx@b/p", "s3", "b", "p", {"access_key_id": "k", "secret_access_key": "s/x"}),
        ("gs://b/p?anon=true", "gs", "b", "p", {"skip_signature": "true"}),
        ("gcs://b/p", "gs", "b", "p", {}),
        ("abfs://c@acc.dfs.core.windows.net/p", "az", "c@acc.dfs.core.windows.net", "p", {}),
        ("az://c/p?account=acc", "az", "c", "p", {"account_name": "acc"}),
        ("hdfs://host:8020/p", "hdfs", "host:8020", "p", {}),
        ("https://host/p%20q.csv", "http", "host", "p%20q.csv", {}),
        ("file:///data/a%20b/", "file", "", "/data/a b", {}),
        ("file:/data", "file", "", "/data", {}),
        ("file://localhost/data", "file", "", "/data", {}),
        ("/data/s3:x/a?b=c.csv", "file", "", "/data/s3:x/a?b=c.csv", {}),
    ],
)
def test_places_are_parsed(text: str, kind: str, root: str, path: str, options: dict[str, str]) -> None:
    location = parse(text)
    assert (location.kind, location.root, location.path, dict(location.options)) == (kind, root, path, options)


def test_local_paths_become_absolute_and_may_hold_colons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse("a:b/c").path == f"{tmp_path}/a:b/c"
    assert parse("./s3:/x").path == f"{tmp_path}/s3:/x"
    assert parse("sub/../x").path == f"{tmp_path.resolve()}/x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dbfs://x/y", "unknown scheme 'dbfs', expected one of file, local, s3,"),
        ("simplecache::s3://b/p", "unknown scheme 'simplecache::s3'"),
        ("s3:/bucket/x", r"expected s3://, got s3:/ \(a local folder is ./s3:\)"),
        ("s3:///x", "expected s3://BUCKET/PATH"),
        ("s3://b/p?regoin=x", "s3://b/p: unknown option 'regoin', expected one of endpoint,"),
        ("file:///p?region=x", "unknown option 'region', expected one of none"),
        ("file://host/p", "got the host 'host'"),
        ("https://host/p?sig=abc", "a URL with a query is not supported"),
    ],
)
def test_what_cannot_be_a_place_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(ScoringError, match=rf"^--output .*{message}"):
        parse_location(text, option="--output")


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIA1:hunter2@b/p",
        "s3://b/p?secret=hunter2&key=AKIA1",
        "nosuch://AKIA1:hunter2@b/p?secret=hunter2",
        "https://b/p?sig=hunter2",
        "s3://AKIA1:hunter2@/p",
        "s3://AKIA1:hunter2@b/p?secret=hunter2&nosuch=1",
    ],
)
def test_credentials_show_nowhere(text: str) -> None:
    try:
        message = str(parse(text))
    except ScoringError as error:
        message = str(error)
    assert "hunter2" not in message
    assert "AKIA1" not in message


@given(
    st.text(alphabet="ab /?#%&=*+é\u20ac:@", min_size=1),
    st.dictionaries(st.sampled_from(["endpoint", "region"]), st.text()),
)
def test_a_uri_is_exact(path: str, options: dict[str, str]) -> None:
    location = Location(kind="s3", scheme="s3", root="b", path=path, options=tuple(sorted(options.items())))
    assert exact_location(location.uri) == location


@pytest.mark.parametrize("text", ["/data/a b", "file:///data/a%20b", "s3://b/a b"])
def test_a_text_without_options_is_exact_too(text: str) -> None:
    assert exact_location(text) == parse(text)


def test_a_place_that_is_not_utf8_is_refused() -> None:
    for text in ("/data/caf\udce9", "s3://b/caf\udce9?secret=hunter2"):
        with pytest.raises(ScoringError, match=r"--input .*caf\\xe9: the name is not UTF-8: rename") as caught:
            parse(text)
        assert "hunter2" not in str(caught.value)


def test_a_place_holds_what_lies_in_it() -> None:
    assert parse("s3://b/out").holds(parse("s3://b/out/x"))
    assert parse("s3://b/out").holds(parse("s3://b/out"))
    assert parse("s3://b").holds(parse("s3://b/x"))
    assert not parse("s3://b/out").holds(parse("s3://b/out2"))
    assert not parse("s3://b/out").holds(parse("s3://other/out/x"))
    assert not parse("s3://b/out").holds(parse("/out/x"))
    assert parse("/data").holds(parse("/data/x/../y"))
