"""What `--input` names: the files of a job, in an order that does not depend on who lists them.

Paths, globs, folders and URIs (s3://, gs://, hdfs://, file://: whatever pyarrow has a file system for) become a sorted
list of input files of one format. The output folder is never input, hidden files and names that begin with "_" are not
data, and a folder that is a symbolic link is not entered.
"""

import glob
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs

from service.scoring.job import Format, ScoringError

SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "text",
    ".npy": "npy",
    ".safetensors": "safetensors",
    ".tar": "tar",
    ".tgz": "tar",
}
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff"})  # what is refused is said so
COMPRESSIONS = {".gz": "gzip", ".tgz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2"}


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """One file (for images: one folder). `stamp` changes whenever the file is written to."""

    uri: str
    name: str  # how rows and rejects call it: relative to what `--input` named
    format: Format
    size: int
    stamp: str
    partitions: tuple[tuple[str, str], ...] = ()

    @property
    def compression(self) -> str | None:
        return (
            None if self.format in {"images", "parquet"} else COMPRESSIONS.get(PurePosixPath(self.uri).suffix.lower())
        )


def find_files(inputs: Sequence[str], *, output: Path, wanted: Format | None) -> list[InputFile]:
    """Every file of the job. Raises ScoringError if there is none, or formats are mixed, or output is among input."""
    files: dict[str, InputFile] = {}
    for pattern in inputs:
        found = list(_remote(pattern, wanted) if "://" in pattern else _local(pattern, output.resolve(), wanted))
        if not found:
            raise ScoringError(f"--input {pattern}: nothing there to score")
        files.update({file.uri: file for file in found})
    formats = {file.format: file for file in files.values()}
    if len(formats) > 1:
        examples = ", ".join(f"{name} ({formats[name].name})" for name in sorted(formats))
        raise ScoringError(f"--input holds several formats: {examples}; choose one with --input-format")
    names = Counter(file.name for file in files.values())
    return [
        file if names[file.name] == 1 else replace(file, name=file.uri)
        for file in (files[uri] for uri in sorted(files))
    ]


def file_system(uri: str) -> tuple[pafs.FileSystem, str]:
    try:
        return pafs.FileSystem.from_uri(uri) if "://" in uri else (pafs.LocalFileSystem(), uri)
    except (pa.ArrowInvalid, OSError) as error:
        raise ScoringError(f"--input {uri}: {error}") from error


def current_stamp(file: InputFile) -> str:
    """The stamp of the file as it is now."""
    if "://" not in file.uri:
        return file.stamp if file.format == "images" else _stamp(Path(file.uri).stat())
    system, path = file_system(file.uri)
    return _remote_stamp(system.get_file_info(path))


def is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in PICTURES


def walk(folder: Path, *, excluded: Path | None = None) -> Iterator[Path]:
    """Every file below, folders and names in order; one folder's names are in memory at a time."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith((".", "_")):
            continue
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            if path.resolve() != excluded:
                yield from walk(path, excluded=excluded)
        elif entry.is_file():
            yield path


def _local(pattern: str, output: Path, wanted: Format | None) -> Iterator[InputFile]:
    paths = [Path(pattern)] if os.path.lexists(pattern) else [Path(path) for path in glob.glob(pattern, recursive=True)]  # noqa: PTH207 - takes any path
    for path in sorted(paths):
        resolved = path.resolve()
        if resolved == output or output in resolved.parents:
            if str(path) == pattern:
                raise ScoringError(f"--input {path} lies in the output folder {output}")
            continue
        try:
            if path.is_dir():
                yield from _folder(path, output, wanted)
            elif path.name[0] not in "._" or str(path) == pattern:
                yield _file(path, path.name, wanted, root=path.parent)
        except OSError as error:
            raise ScoringError(f"--input {path}: {error.strerror}") from error


def _folder(folder: Path, output: Path, wanted: Format | None) -> Iterator[InputFile]:
    pictures = hashlib.sha256()
    found = False
    for path in walk(folder, excluded=output):
        if is_picture(path.name):
            found = True
            pictures.update(f"{path}\0{_stamp(path.stat())}\0".encode("utf-8", "surrogateescape"))
        elif wanted != "images" and (wanted or _format(path.name)):
            yield _file(path, path.relative_to(folder).as_posix(), wanted, root=folder)
    if found and wanted in {None, "images"}:
        uri = os.fspath(folder.resolve())
        yield InputFile(uri=uri, name=folder.resolve().name, format="images", size=0, stamp=pictures.hexdigest())


def _file(path: Path, name: str, wanted: Format | None, *, root: Path) -> InputFile:
    found = wanted or _format(path.name)
    if found is None:
        known = ", ".join(sorted(SUFFIXES))
        raise ScoringError(f"--input {path}: no format goes by this name ({known}); say --input-format")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ScoringError(f"--input {path}: not a plain file")
    return InputFile(
        uri=os.fspath(path.absolute()),
        name=name,
        format=found,
        size=status.st_size,
        stamp=_stamp(status),
        partitions=_partitions(path.relative_to(root).as_posix()),
    )


def _remote(pattern: str, wanted: Format | None) -> Iterator[InputFile]:
    base, star, _ = pattern.partition("*")
    root = base.rpartition("/")[0] if star else pattern
    system, path = file_system(root)
    try:
        info = system.get_file_info(path)
        found = [info] if info.is_file else system.get_file_info(pafs.FileSelector(path, recursive=True))
    except OSError as error:
        raise ScoringError(f"--input {pattern}: {error}") from error
    matching = file_system(pattern)[1] if star else None
    for item in sorted(found, key=lambda item: item.path):
        name = PurePosixPath(item.path)
        if not item.is_file or (matching and not name.match(matching)):
            continue
        relative = item.path.removeprefix(path).strip("/") or name.name
        form = wanted or _format(name.name)
        if form is None or any(part[0] in "._" for part in PurePosixPath(relative).parts):
            continue
        yield InputFile(
            uri=root.removesuffix(path) + item.path,
            name=relative,
            format=form,
            size=item.size,
            stamp=_remote_stamp(item),
            partitions=_partitions(relative),
        )


def _format(name: str) -> Format | None:
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS and suffixes[-1] != ".tgz":
        suffixes.pop()
    return SUFFIXES.get(suffixes[-1]) if suffixes else None


def _partitions(relative: str) -> tuple[tuple[str, str], ...]:
    """Hive's `key=value` folders."""
    pairs = (part.split("=", 1) for part in PurePosixPath(relative).parts[:-1] if "=" in part)
    return tuple((unquote(key), unquote(value)) for key, value in pairs)


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"


def _remote_stamp(info: pafs.FileInfo) -> str:
    return f"{info.size}-{info.mtime_ns}"
