"""Lists the files that `--input` names, in an order that does not depend on the file system.

Paths, globs, folders and URIs (s3://, gs://, hdfs://, file://, or any other file system that pyarrow supports) become
a sorted list of input files of one format. The output folder is never input. Hidden files and names that begin with
"_" are not data, and symbolic links to folders are not followed.
"""

import glob
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs

from service.scoring.job import Format, ScoringError

FORMATS: dict[Format, tuple[str, ...]] = {
    "parquet": (".parquet", ".pq"),
    "csv": (".csv", ".tsv"),
    "jsonl": (".jsonl", ".ndjson"),
    "text": (".txt",),
    "npy": (".npy",),
    "idx": (".idx", ".idx1-ubyte", ".idx3-ubyte"),
    "arrow": (".arrow", ".arrows", ".feather", ".ipc"),
    "orc": (".orc",),
    "ts": (".ts",),
    "safetensors": (".safetensors",),
    "tar": (".tar", ".tgz", ".txz"),
}
SUFFIXES = {suffix: name for name, suffixes in FORMATS.items() for suffix in suffixes}
# Images in formats that the model does not read are listed too, so that they are rejected with a reason.
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".heic", ".avif"}
)
COMPRESSIONS = {
    ".gz": "gzip",
    ".tgz": "gzip",
    ".zst": "zstd",
    ".zstd": "zstd",
    ".bz2": "bz2",
    ".xz": "xz",
    ".txz": "xz",
}
# The names of the MNIST files, which have no suffix.
IDX_ENDINGS = ("-ubyte",)


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """One file, or one folder of images.

    `name`: the path relative to what `--input` named, as in the output. `fingerprint` changes when the file is written.
    `table` names the table and its version (`FOLDER?version=N`) that the file holds rows of; empty if there is none.
    """

    uri: str
    name: str
    format: Format
    size: int
    fingerprint: str
    partitions: dict[str, str] = field(default_factory=dict)
    table: str = ""

    @property
    def compression(self) -> str | None:
        if self.format in {"images", "parquet", "arrow", "orc", "delta", "iceberg"}:
            return None
        return COMPRESSIONS.get(PurePosixPath(self.uri).suffix.lower())


def list_files(inputs: Sequence[str], *, output: Path, input_format: Format | None) -> list[InputFile]:
    """List every file. Raises ScoringError if an input matches nothing or lies in the output, or if formats mix."""
    files: dict[str, InputFile] = {}
    output = output.resolve()
    for pattern in inputs:
        is_remote = "://" in pattern
        found = _remote_files(pattern, input_format) if is_remote else _local_files(pattern, output, input_format)
        matches = {file.uri: file for file in found}
        if not matches:
            raise ScoringError(f"--input {pattern}: nothing there to score")
        files |= matches
    formats = {file.format: file for file in files.values()}
    if len(formats) > 1:
        examples = ", ".join(f"{name} ({formats[name].name})" for name in sorted(formats))
        raise ScoringError(f"--input holds several formats: {examples}; choose one with --input-format")
    names = Counter(file.name for file in files.values())
    return [file if names[file.name] == 1 else replace(file, name=uri) for uri, file in sorted(files.items())]


def file_system(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a URI or path, and the path in it. Raises ScoringError."""
    try:
        return pafs.FileSystem.from_uri(uri) if "://" in uri else (pafs.LocalFileSystem(), uri)
    except (pa.ArrowInvalid, OSError) as error:
        raise ScoringError(f"--input {uri}: {error}") from error


def current_fingerprint(file: InputFile) -> str:
    """The fingerprint of the file as it is now. For a folder of images this is the one taken when it was listed."""
    if "://" not in file.uri:
        return file.fingerprint if file.format == "images" else _fingerprint(Path(file.uri).stat())
    system, path = file_system(file.uri)
    return _remote_fingerprint(system.get_file_info(path))


def is_image_name(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def walk(folder: Path, *, excluded: Path | None = None) -> Iterator[Path]:
    """Yield the files below a folder by name, except hidden and "_" names; lists one folder per level at a time."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith((".", "_")):
            continue
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            if path.resolve() != excluded:
                yield from walk(path, excluded=excluded)
        elif entry.is_file():
            yield path


def _local_files(pattern: str, output: Path, input_format: Format | None) -> Iterator[InputFile]:
    paths = [Path(pattern)] if os.path.lexists(pattern) else [Path(path) for path in glob.glob(pattern, recursive=True)]  # noqa: PTH207 - takes any path
    for path in sorted(paths):
        resolved = path.resolve()
        if resolved == output or output in resolved.parents:
            if str(path) == pattern:
                raise ScoringError(f"--input {path} lies in the output folder {output}")
            continue
        try:
            if path.is_dir():
                yield from _folder_files(path, output, input_format)
            elif path.name[0] not in "._" or str(path) == pattern:
                yield _input_file(path, path.name, input_format, root=path.parent)
        except OSError as error:
            raise ScoringError(f"--input {path}: {error.strerror}") from error


def _folder_files(folder: Path, output: Path, input_format: Format | None) -> Iterator[InputFile]:
    """The data files below a folder, and the folder itself as one file if it holds images."""
    images_hash, has_images = hashlib.sha256(), False
    for path in walk(folder, excluded=output):
        if is_image_name(path.name):
            has_images = True
            images_hash.update(f"{path}\0{_fingerprint(path.stat())}\0".encode("utf-8", "surrogateescape"))
        elif input_format != "images" and (input_format or _format(path.name)):
            yield _input_file(path, path.relative_to(folder).as_posix(), input_format, root=folder)
    if has_images and input_format in {None, "images"}:
        root = folder.resolve()
        yield InputFile(
            uri=os.fspath(root), name=root.name, format="images", size=0, fingerprint=images_hash.hexdigest()
        )


def _input_file(path: Path, name: str, input_format: Format | None, *, root: Path) -> InputFile:
    file_format = input_format or _format(path.name)
    if file_format is None:
        known = ", ".join(sorted(SUFFIXES))
        raise ScoringError(f"--input {path}: the name ends in no known suffix ({known}); say --input-format")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ScoringError(f"--input {path}: not a regular file")
    return InputFile(
        uri=os.fspath(path.absolute()),
        name=name,
        format=file_format,
        size=status.st_size,
        fingerprint=_fingerprint(status),
        partitions=_partitions(path.relative_to(root).as_posix()),
    )


def _remote_files(pattern: str, input_format: Format | None) -> Iterator[InputFile]:
    base, star, _ = pattern.partition("*")
    root = base.rpartition("/")[0] if star else pattern
    system, path = file_system(root)
    try:
        info = system.get_file_info(path)
        entries = [info] if info.is_file else system.get_file_info(pafs.FileSelector(path, recursive=True))
    except OSError as error:
        raise ScoringError(f"--input {pattern}: {error}") from error
    glob_path = file_system(pattern)[1] if star else None
    for item in sorted(entries, key=lambda item: item.path):
        name = PurePosixPath(item.path)
        if not item.is_file or (glob_path and not name.match(glob_path)):
            continue
        relative = item.path.removeprefix(path).strip("/") or name.name
        file_format = input_format or _format(name.name)
        if file_format is None or any(part[0] in "._" for part in PurePosixPath(relative).parts):
            continue
        yield InputFile(
            uri=root.removesuffix(path) + item.path,
            name=relative,
            format=file_format,
            size=item.size,
            fingerprint=_remote_fingerprint(item),
            partitions=_partitions(relative),
        )


def _format(name: str) -> Format | None:
    """The format that the suffixes of a name tell."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS and suffixes[-1] not in SUFFIXES:
        name = name[: -len(suffixes.pop())]
    if name.lower().endswith(IDX_ENDINGS):
        return "idx"
    return SUFFIXES.get(suffixes[-1]) if suffixes else None


def _partitions(relative: str) -> dict[str, str]:
    """The `key=value` folders of a path, as Hive writes them."""
    pairs = (part.split("=", 1) for part in PurePosixPath(relative).parts[:-1] if "=" in part)
    return {unquote(key): unquote(value) for key, value in pairs}


def _fingerprint(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"


def _remote_fingerprint(info: pafs.FileInfo) -> str:
    return f"{info.size}-{info.mtime_ns}"
