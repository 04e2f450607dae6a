"""WebDataset archives: tar files in which the files of one sample follow each other and share the name up to a dot.

Columns: `key`, that name, and one for each suffix of the first sample, such as `cls` or `json`. PNG and JPEG files are
the column `image`, and `txt` is `text`; other columns are texts if the first sample has UTF-8, else bytes. A row is a
sample.
"""

import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
from xxhash import xxh3_128

from service.scoring.input.files import InputFile
from service.scoring.input.passed_over import HIDDEN, NO_SUFFIX, other_kind
from service.scoring.input.rows import MAX_ROW_BYTES, SHARD_BYTES, ReadSpec, Rows, Span, chunked
from service.scoring.job import ScoringError, TextOptions
from service.scoring.sources.stream import Stream, StreamSource
from service.scoring.sources.tar import open_archive

COLUMNS = {"png": "image", "jpg": "image", "jpeg": "image", "txt": "text"}
BINARY = frozenset({"image", "npy", "npz", "pt", "pth", "pyd", "pickle", "bin"})


@dataclass(kw_only=True)
class _Sample:
    """`start` is the position of the header of its first file in the archive; `fault` says why it cannot be used."""

    key: str
    start: int
    files: dict[str, bytes]  # by column
    fault: str | None = None

    @property
    def size(self) -> int:
        return len(self.key) + sum(map(len, self.files.values()))


class WebDatasetSource(StreamSource):
    def __init__(self, file: InputFile, spec: ReadSpec) -> None:
        super().__init__(file, spec)
        self.passed_over = Counter[str]()
        self._kinds = {field.name: field.type for field in self.schema(file, spec.text_options)}

    @staticmethod
    def schema(file: InputFile, text_options: TextOptions) -> pa.Schema:  # noqa: ARG004
        with closing(Stream(file)) as stream:
            first = next(_samples(stream, 0, Counter()), None)
        if first is None:
            return pa.schema([])
        if first.fault:
            raise ScoringError(f"{file.name}: sample {first.key!r}: {first.fault}")
        return pa.schema(
            [("key", pa.string()), *((name, _kind(name, content)) for name, content in first.files.items())]
        )

    def spans(self, *, shard_rows: int) -> Iterator[Span]:
        samples, first_row = _samples(self._stream, 0, self.passed_over), 0
        while True:
            rows, size, start, digest = 0, 0, 0, xxh3_128()
            for sample in samples:
                start = start if rows else sample.start
                rows, size = rows + 1, size + sample.size
                digest.update(_identity(sample))
                if rows == shard_rows or size >= SHARD_BYTES:
                    break
            if not rows:
                return
            yield Span(first_row=first_row, rows=rows, start=start, stop=start, digest=digest.hexdigest())
            first_row += rows

    def read(self, span: Span) -> Iterator[Rows]:
        self._stream.seek(span.start)
        samples, number = islice(_samples(self._stream, span.start, Counter()), span.rows), span.first_row
        for buffered in chunked(samples):
            yield self._rows(number, buffered)
            number += len(buffered)

    def _rows(self, number: int, samples: list[_Sample]) -> Rows:
        columns: dict[str, list[bytes | str | None]] = {}
        faults = {i: sample.fault for i, sample in enumerate(samples) if sample.fault}
        for name in self._spec.columns:
            if name == "key":
                columns[name] = [sample.key for sample in samples]
                continue
            columns[name] = []
            for i, sample in enumerate(samples):
                content = sample.files.get(name)
                if content is None:
                    faults.setdefault(i, f"sample {sample.key!r} has no {name}")
                is_text = content is not None and self._kinds[name] == pa.string()
                text = _text(content) if content is not None and is_text else None
                if is_text and text is None:
                    faults.setdefault(i, f"sample {sample.key!r}: {name} is not UTF-8, as in the first sample")
                columns[name].append(text if is_text else content)
        return Rows(numbers=range(number, number + len(samples)), columns=columns, faults=faults)


def _identity(sample: _Sample) -> bytes:
    names = ",".join(f"{name}:{len(content)}" for name, content in sample.files.items())
    return f"{sample.key}:{names}:{sample.fault};".encode() + b"".join(sample.files.values())


def _kind(name: str, content: bytes) -> pa.DataType:
    return pa.binary() if name in BINARY or _text(content) is None else pa.string()


def _text(content: bytes) -> str | None:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _samples(stream: Stream, start: int, passed_over: Counter[str]) -> Iterator[_Sample]:
    """The samples of an archive from the member at `start` on. Counts the files that are passed over."""
    sample: _Sample | None = None
    with open_archive(stream) as archive:
        for member in archive:
            # Otherwise tarfile keeps every member in memory.
            archive.members = []  # type: ignore[attr-defined]
            folder, slash, base = member.name.rpartition("/")
            stem, _, suffix = base.partition(".")
            if member.isdir():
                continue
            if kind := _other_kind(member, stem, suffix):
                passed_over[kind] += 1
                continue
            key = (folder + slash + stem).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            if sample is None or sample.key != key:
                if sample is not None:
                    yield sample
                sample = _Sample(key=key, start=start + member.offset, files={})
            _add(sample, COLUMNS.get(suffix.lower(), suffix.lower()), archive, member)
    if sample is not None:
        yield sample


def _other_kind(member: tarfile.TarInfo, stem: str, suffix: str) -> str | None:
    """What the summary counts a member as that is no part of a sample."""
    if not member.isreg():
        return "link or device"
    if not stem or other_kind(member.name) == HIDDEN:
        return HIDDEN
    return None if suffix else NO_SUFFIX


def _add(sample: _Sample, column: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    if sample.size + member.size > MAX_ROW_BYTES:
        sample.fault = f"expected a sample of at most {MAX_ROW_BYTES} bytes, got a larger one"
        return
    opened = archive.extractfile(member)
    content = opened.read() if opened else b""
    if len(content) != member.size:
        raise EOFError(f"the archive ends inside {member.name}")
    if column in sample.files:
        sample.fault = f"two files for {column!r}"
    sample.files[column] = content
