"""`ekiben inspect` finds bundles by name and folder, and fails for what is not whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ekiben.cli import inspection
from ekiben.cli.inspection import main
from service.manifest import MODEL
from tests.service.bundles import NAMES, write_bundle

ROOT = Path(__file__).parents[3]
NAME = NAMES["image-classifier"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundles", "image-classifier")


def test_a_bundle_is_found_by_name_model_and_version(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundles = folder.parents[1]
    monkeypatch.chdir(folder)
    printed = set()
    for words in ([NAME, "--bundles", str(bundles)], [str(folder.parent)], [str(folder)], ["."]):
        assert main(words) == 0
        printed.add(capsys.readouterr().out)
    [text] = printed
    assert text.startswith(f"{NAME} {folder.name}\n")


def test_a_folder_that_is_no_bundle_does_not_hide_the_bundle_of_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder.parents[2] / NAME).mkdir()
    monkeypatch.delenv("EKIBEN_BUNDLES", raising=False)
    monkeypatch.chdir(folder.parents[2])
    assert main([NAME]) == 0
    assert capsys.readouterr().out.startswith(f"{NAME} {folder.name}\n")


def test_a_reader_that_leaves_early_is_no_error(folder: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "ekiben", "inspect", str(folder)]
    done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_json_has_the_manifest_and_the_state_of_the_signature(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["signature"] == "none"
    assert document["manifest"] == json.loads((folder / "manifest.json").read_text())


def test_a_damaged_bundle_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes()[:-1] + b"x")
    assert main([str(folder)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"ekiben inspect: {NAME}/{folder.name}: {MODEL} has sha256 " in captured.err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tiny-image", f"tiny-image is neither a bundle nor a file; did you mean {NAME}?"),
        ("zzz", f"has {NAME}"),
        (NAME, "no file `current`"),
    ],
)
def test_what_is_not_there_is_named(name: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if name == NAME:
        (folder.parent / "current").unlink()
    assert main([name, "--bundles", str(folder.parents[1])]) == 1
    assert said in capsys.readouterr().err


def test_a_model_file_is_described_by_export(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([str(folder / MODEL)]) == 0
    captured = capsys.readouterr()
    assert "[reader]" in captured.out
    assert "images" in captured.err


def test_names_are_looked_up_where_the_service_looks(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EKIBEN_BUNDLES", str(folder.parents[1]))
    assert inspection.main([NAME]) == 0
    assert folder.name in capsys.readouterr().out
