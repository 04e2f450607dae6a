"""`python -m service.fetch` places all sources or none, and its exit code says which."""

import hashlib
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.bundle import open_bundle
from service.fetch.__main__ import main
from service.manifest import MANIFEST
from tests.e2e.serving import ROOT, environment
from tests.service.bundles import write_bundle
from tests.service.engine.versions import FAMILY, NAME, differing_graph
from tests.service.hosts import GRANIAN, ask, running_server, wait_until
from tests.service.poisoned import write_whole_bundle
from tests.service.scoring.object_server import AZURE_ACCOUNT, ObjectServer

GRAPHS = (None, differing_graph(16))  # of the version that serves, and of the candidate


def source_of(folder: Path) -> str:
    return f"{folder}@sha256:{hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()}"


def test_it_runs_in_the_environment_of_the_service(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "from", "image-classifier")
    command = [sys.executable, "-m", "service.fetch", source_of(folder)]
    env = environment(EKIBEN_BUNDLES=tmp_path / "to")
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{folder.parent.name} {folder.name}: ")
    assert (tmp_path / "to" / folder.parent.name / "current").exists()


def test_object_storage_gives_a_bundle_and_a_changed_file_is_refused(store: ObjectServer, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "from", "image-classifier")
    store.upload(folder, "models/tiny")
    places = [store.uri("models/tiny")]
    if store.scheme == "az":
        places.append(places[0].replace("az://data/", f"abfs://data@{AZURE_ACCOUNT}.dfs.core.windows.net/"))
    digest = source_of(folder).rpartition("@")[2]
    for number, place in enumerate(places):
        root = tmp_path / f"to-{number}"
        command = [sys.executable, "-m", "service.fetch", f"{place}@{digest}", "--bundles", str(root)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith(f" from {place.partition('?')[0]}\n")
        open_bundle(root / folder.parent.name / (root / folder.parent.name / "current").read_text().strip())
    store.put("models/tiny/model.onnx", b"")
    assert main([f"{places[0]}@{digest}", "--bundles", str(tmp_path / "to")]) == 1
    assert list((tmp_path / "to").iterdir()) == []


def test_a_candidate_is_compared_then_serves(tmp_path: Path) -> None:
    """The real command beside a real service: both at once, then the candidate as the version that serves."""
    root = tmp_path / "to"
    serving, candidate = (
        write_whole_bundle(tmp_path / str(number), FAMILY, NAME, model=graph) for number, graph in enumerate(GRAPHS)
    )

    def fetch(*arguments: str) -> None:
        command = [sys.executable, "-m", "service.fetch", *arguments, "--bundles", str(root)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    def models() -> dict[str, dict[str, Any]]:
        rows = json.loads(ask(host.port, "GET", "/models")[2])["models"]
        return {row["name"]: row for row in rows}

    fetch("--candidate", source_of(candidate), source_of(serving))
    with running_server(GRANIAN, root, tmp_path, EKIBEN_POLL_S="0.1") as host:
        wait_until(lambda: models().get(f"{NAME}@candidate", {}).get("state") == "READY")
        wait_until(lambda: models()[NAME]["state"] == "READY")
        assert models()[NAME]["version"] == serving.name
        assert models()[f"{NAME}@candidate"]["version"] == candidate.name
        assert models()[f"{NAME}@candidate"]["comparison"]["with"] == serving.name
        fetch(source_of(candidate))
        wait_until(lambda: [row["version"] for row in models().values()] == [candidate.name])


def test_a_candidate_needs_a_version_that_serves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_bundle(tmp_path / "from", "image-classifier")
    assert main(["--candidate", source_of(folder), "--bundles", str(tmp_path / "to")]) == 1
    assert f"{folder.parent.name}: a candidate needs a version that serves" in capsys.readouterr().err
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize("is_there", [False, True])
def test_a_model_has_one_candidate(is_there: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether the second one has to be fetched, or is among the bundles already."""
    root = tmp_path / "to"
    serving, first, second = (
        write_whole_bundle(tmp_path / str(number), FAMILY, NAME, model=differing_graph(number)) for number in range(3)
    )
    if is_there:
        assert main([source_of(second), "--bundles", str(root)]) == 0
    else:
        (second / "model.onnx").unlink()  # it is refused before its files are fetched
    before = sorted(root.rglob("*"))
    capsys.readouterr()
    candidates = [argument for folder in (first, second) for argument in ("--candidate", source_of(folder))]
    assert main([source_of(serving), *candidates, "--bundles", str(root)]) == 2
    assert capsys.readouterr() == (
        "",
        f"python -m service.fetch: error: {NAME} has two candidates, {first.name} of {first} and "
        f"{second.name} of {second}: name one of them\n",
    )
    assert sorted(root.rglob("*")) == before


def test_a_model_has_one_version_that_serves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (
        write_whole_bundle(tmp_path / str(number), FAMILY, NAME, model=graph) for number, graph in enumerate(GRAPHS)
    )
    assert main([source_of(first), source_of(second), "--bundles", str(tmp_path / "to")]) == 2
    assert f"{NAME} has two versions to serve, {first.name} of {first} and {second.name} of" in capsys.readouterr().err
    assert list((tmp_path / "to").iterdir()) == []


def test_a_candidate_is_verified_as_others_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    serving, candidate = (write_bundle(tmp_path / name, "image-classifier") for name in ("serving", "candidate"))
    source = source_of(candidate)
    (candidate / "model.onnx").write_bytes(b"")
    assert main([source_of(serving), "--candidate", source, "--bundles", str(tmp_path / "to")]) == 1
    assert "model.onnx: expected" in capsys.readouterr().err
    assert list((tmp_path / "to").iterdir()) == []


def test_one_source_that_fails_leaves_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (write_bundle(tmp_path / "from", name) for name in ("image-classifier", "series-classifier"))
    sources = [source_of(first), source_of(second)]
    (second / "model.onnx").write_bytes(b"")
    assert main([*sources, "--bundles", str(tmp_path / "to")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "model.onnx: expected" in captured.err
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_and_leaves_nothing(number: signal.Signals, expected: int, tmp_path: Path) -> None:
    """Its exit code shows that it has a handler, without which process 1 of a container gets no signal."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"http://127.0.0.1:{server.getsockname()[1]}/m@sha256:{'0' * 64}"
        command = [sys.executable, "-m", "service.fetch", place, "--bundles", str(tmp_path)]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
            connection, _ = server.accept()
            with connection:
                process.send_signal(number)
                assert process.wait(10) == expected
            assert process.stderr is not None
            assert process.stderr.read() == b""
    assert list(tmp_path.iterdir()) == []


def test_a_source_without_a_digest_is_a_mistake_of_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path)])
    assert "expected PLACE@sha256:DIGEST" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "expected at least one PLACE@sha256:DIGEST" in capsys.readouterr().err


def test_help_has_an_example_of_each_kind(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    for scheme in ("s3://", "https://", "oci://", "/mnt/"):
        assert f"python -m service.fetch {scheme}" in text
