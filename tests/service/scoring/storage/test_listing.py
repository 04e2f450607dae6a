"""Every form of an input names the same files, under the same names, locally and in an object store."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.scoring.input.files import list_files
from service.scoring.job import ScoringError
from tests.service.scoring.object_server import ObjectServer

NAMES = st.sampled_from(
    ["a", "b c", "_temporary", ".hidden", "day=1", "day=2", "p#q", "50%", "%41", "é", "x?y", "[z]", "_SUCCESS", "k=v w"]
)
PATHS = st.lists(
    st.tuples(st.lists(NAMES, max_size=3), st.sampled_from(["1.csv", "2.csv", "_3.csv", ".4.csv", "n.md"]))
)


def names(text: str) -> list[tuple[str, dict[str, str], int]]:
    """Name, partitions and size of each file; nothing if there is none."""
    try:
        files = list_files([text], output=Path("/nowhere"), input_format=None)
    except ScoringError:
        return []
    return sorted((file.name, file.partitions, file.size) for file in files)


def local_forms(folder: Path) -> Iterator[str]:
    for base in (str(folder), folder.as_uri()):
        yield from (base, f"{base}/", f"{base}/**", f"{base}/**/", f"{base}/*", f"{base}/*/", f"{base}/**/*.csv")


def remote_forms(server: ObjectServer, prefix: str) -> Iterator[str]:
    """With the options in the query, and with them in the environment."""
    options = f"?region=us-east-1&endpoint={server.endpoint}"
    forms = ("", "/", "/**", "/**/", "/*", "/*/", "/**/*.csv")
    for scheme, form, query in product(("s3", "s3a"), forms, (options, "")):
        yield f"{scheme}://data/{prefix}{form}{query}"
    yield f"s3://data/{quote(prefix)}{options}"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PATHS)
def test_every_form_names_the_same_files(
    server: ObjectServer, monkeypatch: pytest.MonkeyPatch, paths: list[tuple[list[str], str]]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    prefix = f"{uuid4().hex}/in put"
    with TemporaryDirectory() as name:
        root = Path(name) / "in put"
        expected = set()
        for folders, file in paths:
            path = root.joinpath(*folders, file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x" * len(folders))
            relative = "/".join([*folders, file])
            server.put(f"{prefix}/{relative}", path.read_bytes())
            if file.endswith(".csv") and not any(part.startswith((".", "_")) for part in [*folders, file]):
                expected.add(relative)
        for form in [*local_forms(root), *remote_forms(server, prefix)]:
            found = names(form)
            assert {file for file, _, _ in found} == expected, form
            assert len(found) == len(expected), form
            for file, partitions, size in found:
                folders = file.split("/")[:-1]
                assert set(partitions) == {folder.split("=")[0] for folder in folders if "=" in folder}
                assert size == len(folders)


def test_partition_folders_at_the_end_of_the_input_belong_to_the_name(store: ObjectServer, tmp_path: Path) -> None:
    for path in ("t/day=1/a.csv", "t/day=1/hour=2/b.csv"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    store.upload(tmp_path / "t", "t")
    expected = [("day=1/a.csv", {"day": "1"}, 1), ("day=1/hour=2/b.csv", {"day": "1", "hour": "2"}, 1)]
    for form in ("t", "t/day=1", "t/day=*", "t/day=1/**", "t/**/*.csv", "t/*"):
        assert names(f"{tmp_path}/{form}") == expected, form
        assert names(store.uri(form)) == expected, form
    assert names(f"{tmp_path}/t/day=1/a.csv") == expected[:1]
    assert names(store.uri("t/day=1/a.csv")) == expected[:1]


def test_outputs_of_scoring_jobs_are_never_input(store: ObjectServer, tmp_path: Path) -> None:
    for path in (
        "in/a.csv",
        "in/out/_ledger/job.json",
        "in/out/predictions/p.csv",
        "in/x/out/_ledger/job.json",
        "in/x/out/p.csv",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    store.upload(tmp_path / "in", "in")
    for form in ("in", "in/**", "in/*", "in/*/*/*", "in/**/*.csv"):
        expected = [] if form == "in/*/*/*" else [("a.csv", {}, 1)]
        assert names(f"{tmp_path}/{form}") == expected, form
        assert names(store.uri(form)) == expected, form


def test_output_inside_remote_input_is_left_out_and_the_reverse_is_refused(store: ObjectServer) -> None:
    store.put("in/a.csv", b"x")
    store.put("in/out/p.csv", b"x")
    files = list_files([store.uri("in")], output=store.uri("in/out"), input_format=None)
    assert [file.name for file in files] == ["a.csv"]
    with pytest.raises(ScoringError, match=r"://data/in/out lies in the output folder [a-z0-9]+://data/in"):
        list_files([store.uri("in/out")], output=store.uri("in"), input_format=None)


def test_keys_are_taken_as_they_are_written_before_escapes_are_decoded(store: ObjectServer) -> None:
    store.put("in/a b.csv", b"1")
    store.put("in/a%20b.csv", b"22")
    assert names(store.uri("in/a%20b.csv")) == [("a%20b.csv", {}, 2)]
    store.delete("in/a%20b.csv")
    assert names(store.uri("in/a%20b.csv")) == [("a b.csv", {}, 1)]


def test_objects_that_mark_folders_are_no_files(server: ObjectServer) -> None:
    for key in ("in/", "in/sub/", "in/sub/a.csv", "in/empty.csv"):
        server.put(key, b"x" if key.endswith("a.csv") else b"")
    assert names(server.uri("in")) == [("empty.csv", {}, 0), ("sub/a.csv", {}, 1)]


@pytest.mark.parametrize(
    ("path", "message"),
    [("nothing", "nothing there to score"), ("*.csv", "nothing there to score"), ("notes.md", "say --input-format")],
)
def test_a_remote_input_without_files_is_an_error(path: str, message: str, store: ObjectServer) -> None:
    store.put("notes.md", b"x")
    with pytest.raises(ScoringError, match=message):
        list_files([store.uri(path)], output=Path("/nowhere"), input_format=None)


def test_a_bucket_that_is_not_there_is_reported(store: ObjectServer) -> None:
    reason = r"[^:\n]* does not exist\.? \((NoSuchBucket|ContainerNotFound)\)"
    with pytest.raises(ScoringError, match=rf"^--input {store.scheme}://nosuch/x: {reason}$"):
        list_files([store.uri("x", bucket="nosuch")], output=Path("/nowhere"), input_format=None)


def test_a_key_with_an_empty_name_is_reported(server: ObjectServer) -> None:
    server.put("in/x//y.csv", b"x")
    with pytest.raises(ScoringError, match="empty path segment"):
        list_files([server.uri("in")], output=Path("/nowhere"), input_format=None)
