"""Tables of data files: Delta and Iceberg are read as their live rows at one version, Hudi and Paimon are refused.

A folder of a table holds data files that are no longer part of it, so its files are never read without its log. The
output of a streaming query of Spark is no table, but has a log as well, which says which of its files are read.
Invariant: the version is fixed when the input is listed, and it is part of the name of every file.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.fs as pafs

from service.scoring.input.delta import open_delta
from service.scoring.input.files import InputFile, current_fingerprint, file_system, list_files
from service.scoring.input.iceberg import METADATA, current_metadata, open_iceberg
from service.scoring.job import Format, ScoringError
from service.scoring.storage.location import Location, exact_location, parse_location
from service.scoring.storage.pattern import WILDCARDS
from service.scoring.storage.sink_log import LOG_FOLDER, SinkLog

VERSION = re.compile(r"[?&]version=(-?\d+)(?=&|$)")
REFUSED = {"hudi": "Hudi", "paimon": "Paimon"}
SINK = "streaming sink"
# What the folder of each kind holds.
MARKERS = {
    "delta": "_delta_log",
    "hudi": ".hoodie",
    "paimon": "snapshot/LATEST",
    "iceberg": "metadata",
    SINK: LOG_FOLDER,
}


def list_inputs(inputs: Sequence[str], *, output: str | Path, input_format: Format | None) -> list[InputFile]:
    """List every file and the live files of every table. Raises ScoringError as `list_files` does."""
    # A table may have a new version, or be another one, since this process listed it.
    open_delta.cache_clear()
    open_iceberg.cache_clear()
    files, others = list[InputFile](), list[str]()
    for text in inputs:
        place, version = split_version(text)
        found = table_files(place, version)
        if found is None and version is not None:
            raise ScoringError(f"--input {text}: ?version= is for Delta and Iceberg tables, and this is none")
        if found is None:
            others.append(place)
        files += found or ()
    if others:
        files += replace_tables(others, list_files(others, output=output, input_format=input_format))
    for file in files:
        if file.format in {"delta", "iceberg"} and not file.table:
            raise ScoringError(f"--input {exact_location(file.uri)}: belongs to no table, so it has another format")
    formats = {file.format: file for file in files}
    if len(formats) > 1:
        examples = ", ".join(f"{name} ({formats[name].name})" for name in sorted(formats))
        raise ScoringError(f"--input holds several formats: {examples}; score them in jobs of their own")
    if not files:
        raise ScoringError(f"--input {inputs[0]}: the table has no rows")
    by_uri = {file.uri: file for file in files}
    names = Counter(file.name for file in by_uri.values())
    places = {uri: str(exact_location(uri)) for uri in by_uri}
    return [
        file if names[file.name] == 1 else replace(file, name=places[uri])
        for uri, file in sorted(by_uri.items(), key=lambda item: (places[item[0]], item[0]))
    ]


def split_version(text: str) -> tuple[str, int | None]:
    """An input without its option `version`, and that version: of a Delta table, or a snapshot of an Iceberg table."""
    match = VERSION.search(text)
    if match is None:
        return text, None
    rest = text[: match.start()] + text[match.end() :].replace("&", "?" if "?" not in text[: match.start()] else "&", 1)
    return rest, int(match[1])


def table_files(text: str, version: int | None) -> list[InputFile] | None:
    """The live data files of the table that an input names; None if it names no table."""
    location = parse_location(text, option="--input")
    if WILDCARDS.search(location.path):
        return None
    if location.options:
        _check_store(location, _kind_of(location.uri))
        return None
    place = str(location)
    if METADATA.fullmatch(PurePosixPath(place).name):
        return _iceberg_files(place, version, PurePosixPath(place).parent.parent.name)
    return _files_of(_absolute(place), version, PurePosixPath(_absolute(place)).name)


def replace_tables(inputs: Sequence[str], files: Iterable[InputFile]) -> Iterator[InputFile]:
    """Files of some inputs, with the live files of each table or streaming sink in place of what its folder holds.

    Raises ScoringError if an input names data files of a table one by one.
    """
    kinds, seen, sinks = dict[str, str | None](), set[str](), dict[str, SinkLog]()
    places = [parse_location(text, option="--input") for text in inputs]
    folders = [_absolute(str(place)) for place in places if not WILDCARDS.search(place.path)]
    for file in files:
        folder = None if file.format == "images" else _owner_of(file.uri, kinds)
        if folder is None:
            yield file
            continue
        root, place = str(folder), exact_location(file.uri)
        if kinds[folder.uri] == SINK:
            if root not in sinks:
                sinks[root] = SinkLog(*file_system(folder.uri))
            if sinks[root].holds(place.path.removeprefix(f"{folder.path}/")):
                yield file
        elif not any(root == one or root.startswith(one.rstrip("/") + "/") for one in folders):
            raise ScoringError(f"--input {place}: belongs to the table {root}, pass that folder as --input")
        elif root not in seen:
            seen.add(root)
            name = PurePosixPath(str(place)).relative_to(root).as_posix()
            prefix = file.name.removesuffix(name).rstrip("/") or PurePosixPath(root).name
            yield from _files_of(root, None, prefix) or ()


def _owner_of(uri: str, kinds: dict[str, str | None]) -> Location | None:
    """The folder of the table or sink that a file belongs to; `kinds` remembers what each folder is, by its URI."""
    location = exact_location(uri)
    for parent in PurePosixPath(location.path).parents:
        folder = location.with_path(str(parent))
        if folder.uri not in kinds:
            # A question to a store takes time, and no table is a partition of another data set.
            is_asked = bool(parent.name) and (location.kind == "file" or "=" not in parent.name)
            kinds[folder.uri] = _kind_of(folder.uri) if is_asked else None
            _check_store(folder, kinds[folder.uri])
        if kinds[folder.uri] is not None:
            return folder
    return None


def _check_store(folder: Location, kind: str | None) -> None:
    """Raise ScoringError for a table in a store with options, which the readers of tables do not get."""
    if folder.options and kind not in {None, SINK}:
        raise ScoringError(
            f"--input {folder}: a table ({kind}) takes the options of its store from the environment, not from the URI"
        )


def _kind_of(folder: str) -> str | None:
    """What table a folder is."""
    try:
        system, path = file_system(folder)
        infos = system.get_file_info([f"{path}/{name}" for name in MARKERS.values()])
        for kind, info in zip(MARKERS, infos, strict=True):
            is_there = info.type == (pafs.FileType.File if kind == "paimon" else pafs.FileType.Directory)
            if is_there and (kind != "iceberg" or _metadata_names(system, info.path)):
                return kind
    except (OSError, pa.ArrowException):
        return None
    return None


def _metadata_names(system: pafs.FileSystem, folder: str) -> list[str]:
    infos = system.get_file_info(pafs.FileSelector(folder))
    return [info.base_name for info in infos if METADATA.fullmatch(info.base_name)]


def _files_of(root: str, version: int | None, name: str) -> list[InputFile] | None:
    kind = _kind_of(root)
    if kind in REFUSED:
        raise ScoringError(
            f"--input {root}: a {REFUSED[kind]} table, which is not supported: write its rows to Parquet first, with "
            f"spark.read.format('{kind}') for instance"
        )
    if kind == "delta":
        return _delta_files(root, version, name)
    if kind == "iceberg":
        system, path = file_system(root)
        hint = None
        if system.get_file_info(f"{path}/metadata/version-hint.text").is_file:
            with system.open_input_stream(f"{path}/metadata/version-hint.text") as file:
                hint = file.read().decode().strip()
        metadata = current_metadata(_metadata_names(system, f"{path}/metadata"), hint, root)
        return _iceberg_files(f"{root}/metadata/{metadata}", version, name)
    return None


def _delta_files(root: str, version: int | None, name: str) -> list[InputFile]:
    root = _absolute(root)
    snapshot = open_delta(root, version)
    table = f"{root}?version={snapshot.version}"
    return [
        _with_fingerprint(
            InputFile(
                uri=file.uri,
                name=f"{name}@{snapshot.version}/{file.path}",
                format="delta",
                size=file.size,
                fingerprint="",
                table=table,
            )
        )
        for file in snapshot.files
    ]


def _iceberg_files(metadata: str, version: int | None, name: str) -> list[InputFile]:
    metadata = _absolute(metadata)
    snapshot = open_iceberg(metadata, version)
    location, root = snapshot.location.removeprefix("file://").rstrip("/"), metadata.rpartition("/metadata/")[0]
    if "://" not in location and _absolute(location) != root:
        raise ScoringError(
            f"--input {root}: the Iceberg table says that it lies in {snapshot.location}; it was copied or moved, so "
            "its paths lead elsewhere: read it there, or write its rows to Parquet first"
        )
    table = f"{metadata}?version={snapshot.snapshot}"
    return [
        _with_fingerprint(
            InputFile(
                uri=uri,
                name=f"{name}@{snapshot.snapshot}/{uri.removeprefix(location).lstrip('/')}",
                format="iceberg",
                size=task.file.file_size_in_bytes,
                fingerprint="",
                table=table,
            )
        )
        for uri, task in snapshot.tasks.items()
    ]


def _absolute(place: str) -> str:
    """A place as files name it: a local path without links, or a URI."""
    is_local = "://" not in place or place.startswith("file://")
    return os.path.realpath(file_system(place)[1]) if is_local else place


def _with_fingerprint(file: InputFile) -> InputFile:
    try:
        return replace(file, fingerprint=current_fingerprint(file))
    except OSError as error:
        place = exact_location(file.uri)
        raise ScoringError(f"--input {place}: a data file of the table is not there: {error.strerror}") from error
