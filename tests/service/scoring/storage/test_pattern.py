"""Patterns agree with Python's glob on names that are data."""

import glob
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.storage.pattern import Pattern, split_pattern

PARTS = st.sampled_from(["a", "b", "ab", "*", "a*", "?", "[ab]", "[!a]", "**"])
NAMES = st.sampled_from(["a", "b", "ab", "c", "_a", ".b"])


def accepts(pattern: str, path: str) -> bool:
    compiled = Pattern(pattern)
    state = compiled.start
    for name in path.split("/"):
        state = compiled.advance(state, name)
    return compiled.accepts(state)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every path of up to three names; those of three are files."""
    root = tmp_path_factory.mktemp("tree")
    names = ["a", "b", "ab", "c", "_a", ".b"]
    for first in names:
        for second in names:
            (root / first / second).mkdir(parents=True)
            for third in names:
                (root / first / second / third).touch()
    return root


@given(st.lists(PARTS, min_size=1, max_size=4), st.lists(NAMES, min_size=3, max_size=3))
def test_a_pattern_names_what_glob_finds_and_what_lies_below(folder: Path, parts: list[str], names: list[str]) -> None:
    found = {Path(path) for path in glob.glob("/".join(parts), root_dir=folder, recursive=True)}  # noqa: PTH207 - the reference
    path = Path(*names)
    is_data = not any(name.startswith((".", "_")) for name in names)
    expected = is_data and bool(found & {path, *path.parents} - ({Path()} if parts[0] != "**" else set()))
    assert accepts("/".join(parts), path.as_posix()) == expected


def test_the_empty_pattern_names_everything_that_is_data() -> None:
    assert accepts("", "a/b")
    assert not accepts("", "_a/b")
    assert not accepts("**", "a/.b/c")


def test_walking_stops_where_nothing_can_match() -> None:
    pattern = Pattern("a/*.csv")
    assert pattern.advance(pattern.start, "b") == frozenset()
    assert not pattern.is_deep(pattern.advance(pattern.start, "a"))
    assert Pattern("a/**").is_deep(Pattern("a/**").advance(frozenset({0}), "a"))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/data/x", ("/data/x", "")),
        ("/data/*/x", ("/data", "*/x")),
        ("/*.csv", ("/", "*.csv")),
        ("in/a?/**", ("in", "a?/**")),
        ("*", ("", "*")),
    ],
)
def test_the_fixed_folder_ends_at_the_first_wildcard(path: str, expected: tuple[str, str]) -> None:
    assert split_pattern(path) == expected
