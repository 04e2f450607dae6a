"""What is special about local files."""

import os
from pathlib import Path

import pytest

from service.scoring.job import ScoringError
from service.scoring.storage.local_tree import LocalTree
from service.scoring.storage.location import parse_location
from service.scoring.storage.pattern import Pattern


def walk(folder: Path, pattern: str = "", excluded: Path | None = None) -> list[str]:
    location = parse_location(str(excluded), option="--output") if excluded else None
    return [name for name, _ in LocalTree().walk(str(folder), Pattern(pattern), excluded=location)]


def test_links_to_folders_are_not_followed_and_lost_ones_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").symlink_to(tmp_path / "real" / "a")
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    assert walk(tmp_path) == ["file", "real/a"]
    assert walk(tmp_path, "*/a") == ["real/a"]
    assert walk(tmp_path / "link") == ["a"]


def test_the_excluded_folder_is_known_by_any_path(tmp_path: Path) -> None:
    (tmp_path / "in" / "out").mkdir(parents=True)
    (tmp_path / "in" / "out" / "a").touch()
    (tmp_path / "link").symlink_to(tmp_path / "in" / "out")
    assert walk(tmp_path / "in") == ["out/a"]
    assert walk(tmp_path / "in", excluded=tmp_path / "link") == []


def test_only_folders_that_can_match_are_read(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.csv").touch()
    read: list[str] = []
    scandir = os.scandir
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", lambda path: read.append(Path(path).name) or scandir(path))  # type: ignore[func-returns-value]
        assert walk(tmp_path, "*.csv") == ["a.csv"]
    assert read == [tmp_path.name]


def test_special_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ScoringError, match="not a regular file"):
        LocalTree().status(str(tmp_path / "pipe"))
    assert walk(tmp_path) == []
