"""The dialect of a CSV file: what the job says, else what the suffix says, checked against the first records.

Nothing is guessed: a file whose first records look like another dialect is refused, and the message names the option
that settles it.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from service.scoring.input.files import InputFile
from service.scoring.job import ScoringError, TextOptions

# The last one is that of Hive.
DELIMITERS = (",", ";", "\t", "|", "\x01")
# The first line that Excel writes and reads to name the delimiter.
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n?', re.IGNORECASE)
APOSTROPHES = re.compile(r"'.*'", re.DOTALL)
SPACED_QUOTES = re.compile(r' +".*"', re.DOTALL)
BACKSLASH = (
    "a backslash stands before a quote: say --escape '\\' if it escapes the quote (Spark, MySQL), "
    "or --escape '' if it is a character like others"
)
# What stands for tabs, line ends, backslashes and nulls where nothing is quoted.
ESCAPED_TEXT = re.compile(r"\\[tnrN\\]")
NULL = "\\N"


@dataclass(frozen=True, kw_only=True)
class CsvDialect:
    """`escape` is None while no record has shown whether a backslash escapes a quote; `preamble` lines come first."""

    delimiter: str
    quote: str
    escape: str | None
    preamble: int = 0

    def reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        if self.quote and self.escape:
            lines = Unescaped(lines, self)
        if not self.quote:
            return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE, strict=True)
        return csv.reader(lines, delimiter=self.delimiter, quotechar=self.quote, strict=True)

    def parse(self, lines: Sequence[str]) -> tuple[list[list[str]], str | None]:
        """The records of some lines up to the first error, and that error."""
        records, reader = list[list[str]](), self.reader(iter(lines))
        try:
            records.extend(reader)
        except csv.Error as error:
            return records, str(error)
        return records, None


def resolve_dialect(file: InputFile, sample: bytes, text_options: TextOptions) -> CsvDialect:
    """The dialect of a file whose first lines are the sample. Raises ScoringError if it looks like another one."""
    for option, value in (
        ("delimiter", text_options.delimiter),
        ("quote", text_options.quote),
        ("escape", text_options.escape),
    ):
        is_character = value is not None and len(value) == 1 and value.isascii() and value not in "\r\n"
        if value is not None and not is_character and (value or option == "delimiter"):
            raise ScoringError(f"--{option} {value!r}: expected one ASCII character")
    # The lines end with LF alone, as the reader of the file cuts them.
    lines = [line + "\n" for line in sample.decode("latin-1").removesuffix("\n").split("\n")]
    by_suffix = "\t" if ".tsv" in file.name.lower() else ","
    delimiter, separator = text_options.delimiter or by_suffix, SEPARATOR_LINE.fullmatch(lines[0])
    if separator:
        if text_options.delimiter not in {None, separator[1]}:
            raise ScoringError(f"--delimiter {text_options.delimiter!r}: {file.name} begins with {lines[0].strip()!r}")
        delimiter, lines = separator[1], lines[1:]
    quote = '"' if text_options.quote is None else text_options.quote
    preamble = 1 if separator else 0
    resolved = CsvDialect(delimiter=delimiter, quote=quote, escape=text_options.escape, preamble=preamble)
    if text_options.escape is None:
        _check_escaped_text(file, lines, resolved)
        resolved = _resolve_escape(file, lines, resolved)
    if text_options.delimiter is None and not separator:
        _check_delimiter(file, lines, resolved)
    if text_options.quote is None:
        has_apostrophes = any(f"{delimiter}'" in f"{delimiter}{line}" for line in lines)
        if has_apostrophes and not _width(resolved, lines) and _width(replace(resolved, quote="'"), lines) > 1:
            raise ScoringError(
                f"{file.name}: looks as if apostrophes are its quotes: say --quote \"'\" or --quote '\"'"
            )
        _check_quote(file, resolved.parse(lines)[0])
    return resolved


def _resolve_escape(file: InputFile, lines: Sequence[str], csv_dialect: CsvDialect) -> CsvDialect:
    """Whether a backslash escapes a quote: no if the file is valid only without, refused if only with, or with both."""
    if not csv_dialect.quote or not any("\\" + csv_dialect.quote in line for line in lines):
        return csv_dialect
    escaping = replace(csv_dialect, escape="\\")
    is_plain, is_escaped = (_width(csv_dialect, lines) > 0, _width(escaping, lines) > 0)
    if is_plain and not is_escaped:
        return replace(csv_dialect, escape="")
    if (is_escaped and not is_plain) or (is_plain and csv_dialect.parse(lines)[0] != escaping.parse(lines)[0]):
        raise ScoringError(f"{file.name}: {BACKSLASH}")
    return csv_dialect


def _check_escaped_text(file: InputFile, lines: Sequence[str], csv_dialect: CsvDialect) -> None:
    """Refuse the text format of databases: tabs and line ends as escapes in a file of tabs, or fields that are \\N."""
    is_quoted = any(f"{csv_dialect.delimiter}{csv_dialect.quote}" in f"{csv_dialect.delimiter}{line}" for line in lines)
    is_text = csv_dialect.delimiter == "\t" and csv_dialect.quote != "" and not is_quoted
    for number, line in enumerate(lines, 1 + csv_dialect.preamble):
        found = ESCAPED_TEXT.search(line) if is_text else None
        if found or NULL in line.rstrip("\r\n").split(csv_dialect.delimiter):
            raise ScoringError(
                f"{file.name}: line {number} has {found.group() if found else NULL}, which PostgreSQL, MySQL and Hive "
                "write for a character or a null: export CSV with quotes (COPY … CSV HEADER), or say --escape '' if "
                "the backslash is a character like others"
            )


def _check_delimiter(file: InputFile, lines: Sequence[str], csv_dialect: CsvDialect) -> None:
    """Refuse a file that another delimiter divides into equal records, and this one does not."""
    if _width(csv_dialect, lines) > 1:
        return
    for other in DELIMITERS:
        width = _width(replace(csv_dialect, delimiter=other), lines) if other in lines[0] else 0
        if other != csv_dialect.delimiter and width > 1:
            raise ScoringError(
                f"{file.name}: looks as if {other!r} divides it into {width} columns: say --delimiter {other!r}, "
                f"or --delimiter {csv_dialect.delimiter!r} if that is right"
            )


def _width(csv_dialect: CsvDialect, lines: Sequence[str]) -> int:
    """The number of fields that all complete records have; 0 if they differ or cannot be parsed."""
    records, error = csv_dialect.parse(lines)
    widths = {len(record) for record in records if record}
    # The last lines of a sample may end inside quotes.
    if len(widths) != 1 or (error is not None and "unexpected end" not in error):
        return 0
    return widths.pop()


def _check_quote(file: InputFile, records: list[list[str]]) -> None:
    """Refuse a file with a column whose texts all stand in apostrophes, or in quotes that a space precedes."""
    for i, name in enumerate(records[0] if records else ()):
        cells = [record[i] for record in records[1:] if len(record) == len(records[0]) and record[i]]
        if len(cells) > 1 and all(APOSTROPHES.fullmatch(cell) for cell in cells):
            raise ScoringError(
                f"{file.name}: every text of column {name!r} stands in apostrophes: "
                "say --quote \"'\" if they are quotes, or --quote '\"' if they belong to the text"
            )
        if len(cells) > 1 and all(SPACED_QUOTES.fullmatch(cell) for cell in cells):
            raise ScoringError(
                f"{file.name}: every text of column {name!r} begins with a space and a quote: remove the spaces, "
                "or say --quote '\"' if the quotes belong to the text"
            )


class Unescaped(Iterator[str]):
    """Lines with doubled quotes for escaped ones; as in Spark, only quotes and escapes inside quotes are escaped.

    An escaped quote outside of quotes is an error of its record; what it stands for differs between programs.
    """

    def __init__(self, lines: Iterator[str], csv_dialect: CsvDialect) -> None:
        quote, escape = re.escape(csv_dialect.quote), re.escape(csv_dialect.escape or "")
        self._lines, self._quote, self._is_quoted = lines, csv_dialect.quote, False
        self._opening = re.compile(rf"(?:^|{re.escape(csv_dialect.delimiter)}){quote}|{escape}{quote}")
        self._inside = re.compile(rf"{escape}[{quote}{escape}]|{quote}{quote}|{quote}")
        self._escaped_quote = f"{csv_dialect.escape}{csv_dialect.quote}"

    def __next__(self) -> str:
        line, parts, position = next(self._lines), list[str](), 0
        while position < len(line):
            found = (self._inside if self._is_quoted else self._opening).search(line, position)
            if found is None:
                break
            token = found.group()
            parts.append(line[position : found.start()])
            position = found.end()
            if not self._is_quoted:
                if token == self._escaped_quote:
                    raise csv.Error("an escaped quote outside of quotes")
                self._is_quoted = True
            elif token == self._quote:
                self._is_quoted = False
            elif token == self._escaped_quote:
                token = self._quote * 2
            elif token != self._quote * 2:
                token = token[1]
            parts.append(token)
        return "".join([*parts, line[position:]])
