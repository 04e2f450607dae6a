"""Lists the files that `--input` names, in an order that does not depend on the store.

Paths, globs, folders and URIs (see `storage.location`) become a sorted list of input files of one format. The output
folder is never input. Hidden files and names that begin with "_" are not data, and symbolic links to folders are not
followed.

Invariant: a file has the same name in every form of the input. Names are relative to the folder that the input names,
or to the part before its first wildcard, and `key=value` folders at the end of that belong to the name.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import pyarrow.fs as pafs

from service.scoring.job import Format, ScoringError
from service.scoring.storage.listing import Listing, input_error, list_input, open_tree
from service.scoring.storage.location import check_utf8, exact_location, parse_location
from service.scoring.storage.pattern import Pattern, is_hidden

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
# JSON Lines where nothing else is data; beside other files it describes them.
JSON_SUFFIX = ".json"
# What to do with files of some other formats.
ADVICE = {
    **dict.fromkeys((".zip", ".7z", ".rar"), "unpack it"),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save it as CSV"),
    **dict.fromkeys((".avro", ".h5", ".hdf5", ".rds"), "convert it to Parquet"),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3"), "say --input sqlite:///PATH with --query"),
    **dict.fromkeys((".pkl", ".pickle"), "convert it to Parquet, because a pickle runs code when it is read"),
}
# The names of the MNIST files, which have no suffix.
IDX_ENDINGS = ("-ubyte",)


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """One file, or one folder of images.

    `name`: the path relative to what `--input` named, as in the output. `fingerprint` changes when the file is written.
    `table` names the table and its version (`FOLDER?version=N`) that the file holds rows of; empty if there is none.
    `pattern` says which images of a folder belong to the file; all if it is empty.
    """

    uri: str
    name: str
    format: Format
    size: int
    fingerprint: str
    partitions: dict[str, str] = field(default_factory=dict)
    table: str = ""
    pattern: str = ""

    @property
    def compression(self) -> str | None:
        if self.format in {"images", "parquet", "arrow", "orc", "delta", "iceberg"}:
            return None
        return COMPRESSIONS.get(PurePosixPath(self.name).suffix.lower())


def list_files(inputs: Sequence[str], *, output: str | Path, input_format: Format | None) -> list[InputFile]:
    """List every file. Raises ScoringError if an input matches nothing or lies in the output, or if formats mix."""
    files: dict[str, InputFile] = {}
    excluded = parse_location(str(output), option="--output")
    for text in inputs:
        listing = list_input(text, excluded=excluded)
        try:
            for file in _input_files(listing, input_format):
                if file.uri in files and files[file.uri].pattern != file.pattern:
                    raise ScoringError(f"--input {text}: the images of {listing.folder} are named by two inputs")
                files[file.uri] = file
                check_utf8(file.uri, option="--input")
        except OSError as error:
            raise input_error(listing.folder, error) from error
    formats = {file.format: file for file in files.values()}
    if len(formats) > 1:
        examples = ", ".join(f"{name} ({formats[name].name})" for name in sorted(formats))
        raise ScoringError(f"--input holds several formats: {examples}; choose one with --input-format")
    names = Counter(file.name for file in files.values())
    places = {uri: str(exact_location(uri)) for uri in files}
    return [
        file if names[file.name] == 1 else replace(file, name=places[uri])
        for uri, file in sorted(files.items(), key=lambda item: (places[item[0]], item[0]))
    ]


def file_system(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system of an `InputFile.uri`, and the path in it. Raises ScoringError."""
    location = exact_location(uri)
    system, prefix = open_tree(location).file_system()
    return system, prefix + location.path


def current_fingerprint(file: InputFile) -> str:
    """The fingerprint of the file as it is now. For a folder of images this is the one taken when it was listed.

    Raises OSError if the file is gone.
    """
    if file.format == "images":
        return file.fingerprint
    location = exact_location(file.uri)
    status = open_tree(location).status(location.path)
    if status is None:
        raise FileNotFoundError(f"{location} is gone")
    return status.fingerprint


def is_image_name(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def list_images(file: InputFile) -> Iterator[str]:
    """The names of the images below a folder, in order."""
    folder = exact_location(file.uri)
    files = open_tree(folder).walk(folder.path, Pattern(file.pattern), excluded=None)
    return (name for name, _ in files if is_image_name(name))


def read_image(file: InputFile, name: str, max_bytes: int) -> bytes | None:
    """The bytes of one image below a folder; None if it is larger."""
    location = exact_location(file.uri).child(name)
    return open_tree(location).read_small(location.path, max_bytes)


def _input_files(listing: Listing, input_format: Format | None) -> Iterator[InputFile]:
    """The data files, and one file for all images. Raises ScoringError if there is none."""
    images_hash, has_images, count = hashlib.sha256(), False, 0
    others, json_files = set[str](), list[InputFile]()
    prefix = _partition_folders(listing.folder.path)
    for name, status in listing.files:
        file_format = input_format or _format(name)
        if is_image_name(name) and input_format in {None, "images"} and not (listing.is_file and is_hidden(name)):
            has_images = True
            images_hash.update(f"{name}\0{status.fingerprint}\0".encode("utf-8", "surrogateescape"))
            continue
        file = InputFile(
            uri=listing.folder.child(name).uri,
            name=prefix + name,
            format=file_format or "jsonl",
            size=status.size,
            fingerprint=status.fingerprint,
            partitions=_partitions(prefix + name),
        )
        if file_format is None and _suffix(name) == JSON_SUFFIX:
            json_files.append(file)
        elif file_format in {None, "images"}:
            others.add(_suffix(name))
        else:
            count += 1
            yield file
    if has_images:
        folder = listing.folder
        name = PurePosixPath(folder.path).name or folder.root
        digest = images_hash.hexdigest()
        yield InputFile(uri=folder.uri, name=name, format="images", size=0, fingerprint=digest, pattern=listing.pattern)
    elif not count and json_files:
        yield from json_files
    elif not count and others:
        known = ", ".join(sorted([*SUFFIXES, JSON_SUFFIX]))
        found = ", ".join(sorted(suffix or "a name without a suffix" for suffix in others)[:5])
        advice = next((f"{ADVICE[suffix]}, or " for suffix in sorted(others) if suffix in ADVICE), "")
        raise ScoringError(
            f"--input {listing.folder}: no name ends in a known suffix, there is {found}: {advice}say --input-format; "
            f"the suffixes are {known}"
        )
    elif not count:
        raise ScoringError(f"--input {listing.folder}: nothing there to score")


def _partition_folders(folder: str) -> str:
    """The partition folders (`key=value`) at the end of a path, which names of files below it begin with."""
    parts = folder.split("/")
    count = len(parts)
    while count and "=" in parts[count - 1]:
        count -= 1
    return "".join(f"{part}/" for part in parts[count:])


def _format(name: str) -> Format | None:
    """The format that the suffixes of a name tell."""
    return "idx" if _uncompressed(name).endswith(IDX_ENDINGS) else SUFFIXES.get(_suffix(name))


def _suffix(name: str) -> str:
    return PurePosixPath(_uncompressed(name)).suffix


def _uncompressed(name: str) -> str:
    """The name in small letters, without the suffix of a compression."""
    name, last = name.lower(), PurePosixPath(name.lower()).suffix
    return name.removesuffix(last) if last in COMPRESSIONS and last not in SUFFIXES else name


def _partitions(relative: str) -> dict[str, str]:
    """The `key=value` folders of a path, as Hive writes them."""
    pairs = (part.split("=", 1) for part in PurePosixPath(relative).parts[:-1] if "=" in part)
    return {unquote(key): unquote(value) for key, value in pairs}
