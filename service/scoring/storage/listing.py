"""Finds the files that a path, folder, pattern or URI names, with the same meaning in every kind of store."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from glob import escape
from itertools import chain
from urllib.parse import unquote

from service.scoring.job import ScoringError
from service.scoring.storage.local_tree import LocalTree
from service.scoring.storage.location import Location, parse_location
from service.scoring.storage.object_tree import HadoopTree, ObjectTree
from service.scoring.storage.pattern import Pattern, split_pattern
from service.scoring.storage.tree import FileStatus, Tree


@dataclass(frozen=True, kw_only=True)
class Listing:
    """`folder`: what names are relative to. `pattern`: which files below it are listed, all if it is empty.

    `is_file`: the input names this one file by its full path.
    """

    folder: Location
    files: Iterator[tuple[str, FileStatus]]
    pattern: str = ""
    is_file: bool = False


def open_tree(location: Location) -> Tree:
    match location.kind:
        case "file":
            return LocalTree()
        case "hdfs":
            return _open_hadoop(location)
        case _:
            return ObjectTree(location)


# A connection to a cluster takes seconds.
_open_hadoop = functools.lru_cache(maxsize=8)(HadoopTree)


def list_input(text: str, *, excluded: Location | None) -> Listing:
    """The files of one input. A name is taken as it is written; if nothing is there, its %-escapes are decoded.

    Raises ScoringError if the place cannot be read or lies in the place `excluded`.
    """
    location = parse_location(text, option="--input")
    try:
        listing = _list(location, excluded)
        if listing is None and location.kind != "file" and unquote(location.path) != location.path:
            listing = _list(location.with_path(unquote(location.path)), excluded)
    except OSError as error:
        raise input_error(location, error) from error
    if listing is None and location.kind == "http":
        raise ScoringError(f"--input {location}: there is no such file, and HTTP has no folders")
    return listing or Listing(folder=location, files=iter(()))


def input_error(location: Location, error: OSError) -> ScoringError:
    """An error of reading a place, which the error of a store names already."""
    return ScoringError(f"--input {location}: {error.strerror}" if error.strerror else f"--input {error}")


def _list(location: Location, excluded: Location | None) -> Listing | None:
    """None if nothing is there."""
    tree = open_tree(location)
    is_excluded = excluded is not None and excluded.holds(location)
    if status := tree.status(location.path):
        _check_outside(location, excluded if is_excluded else None)
        folder, slash, name = location.path.rpartition("/")
        root = "/" if slash and not folder else folder
        return Listing(
            folder=location.with_path(root), files=iter([(name, status)]), pattern=escape(name), is_file=True
        )
    files = _first(tree.walk(location.path, Pattern(""), excluded=excluded))
    if files is not None or is_excluded:
        _check_outside(location, excluded if is_excluded else None)
        return Listing(folder=location, files=files or iter(()))
    path, pattern = split_pattern(location.path)
    files = _first(tree.walk(path, Pattern(pattern), excluded=excluded)) if pattern else None
    return Listing(folder=location.with_path(path), files=files, pattern=pattern) if files is not None else None


def _check_outside(location: Location, excluded: Location | None) -> None:
    if excluded is not None:
        raise ScoringError(f"--input {location} lies in the output folder {excluded}")


def _first(files: Iterator[tuple[str, FileStatus]]) -> Iterator[tuple[str, FileStatus]] | None:
    """The files again; None if there are none."""
    first = next(files, None)
    return None if first is None else chain([first], files)
