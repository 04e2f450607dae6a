"""The encoding of a file of text: UTF-8, what its byte order mark says, or what the job says. It is never guessed."""

import codecs
from contextlib import closing
from dataclasses import dataclass

from service.scoring.input.files import InputFile
from service.scoring.job import ScoringError, TextOptions
from service.scoring.sources.stream import Stream

BOM = codecs.BOM_UTF8
# The longer marks come first, because one begins with another.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
MARK_BYTES = max(map(len, MARKS))
# What is looked at before the first row is read.
SAMPLE_BYTES = 1 << 16
HINT = "say --encoding, for instance cp1252 (western Excel), utf-16-le or shift_jis"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The first lines of a file as UTF-8, and the encoding of the file; None for UTF-8."""

    content: bytes
    encoding: str | None


def text_encoding(file: InputFile, text_options: TextOptions) -> str | None:
    """The encoding of a file; None for UTF-8. Raises ScoringError if the job names one that does not exist."""
    if text_options.encoding is None:
        with closing(Stream(file)) as stream:
            return _marked_encoding(stream.read(MARK_BYTES))
    try:
        name = codecs.lookup(text_options.encoding).name
        "".encode(name)
    except LookupError as error:
        raise ScoringError(f"--encoding {text_options.encoding}: no such encoding of text") from error
    return None if name in {"utf-8", "utf-8-sig", "ascii"} else name


def _marked_encoding(start: bytes) -> str | None:
    return next((name for mark, name in MARKS.items() if start.startswith(mark)), None)


def read_sample(file: InputFile, text_options: TextOptions) -> Sample:
    """Read the first lines of a file. Raises ScoringError if they are in another encoding."""
    encoding = text_encoding(file, text_options) if text_options.encoding is not None else None
    with closing(Stream(file, encoding)) as stream:
        content = stream.read(SAMPLE_BYTES)
    if text_options.encoding is None and (encoding := _marked_encoding(content)) is not None:
        with closing(Stream(file, encoding)) as stream:
            content = stream.read(SAMPLE_BYTES)
    # A file that is not longer than a sample may lack the end of its last line.
    if len(content) == SAMPLE_BYTES:
        content = content[: content.rfind(b"\n") + 1]
    content = content.removeprefix(BOM)
    if text_options.encoding is None and (b"\n\0" in content or b"\0\n" in content):
        raise ScoringError(f"{file.name}: looks like UTF-16 without a byte order mark: {HINT}")
    if b"\n" not in content and content.count(b"\r") > 1:
        raise ScoringError(f"{file.name}: its lines end with CR alone, expected LF or CRLF: convert it first")
    if text_options.encoding is None and not content.isascii():
        _check_utf8(file, content.split(b"\n"))
    return Sample(content=content, encoding=encoding)


def _check_utf8(file: InputFile, lines: list[bytes]) -> None:
    """Refuse a file whose text beyond ASCII is never UTF-8. One such line alone is a fault of its row."""
    numbers, valid = [], 0
    for number, line in enumerate(lines, 1):
        if line.isascii():
            continue
        try:
            line.decode()
            valid += 1
        except UnicodeDecodeError:
            numbers.append(number)
    if len(numbers) > 1 and not valid:
        raise ScoringError(f"{file.name}: lines {numbers[0]} and {numbers[1]} are not UTF-8, nor is any other: {HINT}")
