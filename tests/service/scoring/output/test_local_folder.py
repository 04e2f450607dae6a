"""What is special about a local output folder."""

import hashlib
from pathlib import Path

import pytest

from service.scoring.job import ScoringError
from service.scoring.output.local_folder import LocalFolder, sha256_of


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ScoringError, match="is not a folder"):
        LocalFolder(tmp_path / "file").prepare()
    with pytest.raises(ScoringError, match="is not a folder"):
        LocalFolder(tmp_path / "file" / "below").prepare()


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path / "out")
    folder.prepare()
    (tmp_path / "out" / "taken").mkdir()
    with pytest.raises(OSError, match="directory"):
        folder.write("taken", b"x")
    assert (tmp_path / "out" / "taken").is_dir()


def test_a_folder_that_disappears_is_not_made_again(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path / "out")
    folder.prepare()
    (tmp_path / "out").rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError):
        folder.work_path("00000-000000.csv")
    assert not (tmp_path / "out").exists()


def test_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"row\n")
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"row\n").hexdigest()
