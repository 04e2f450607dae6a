"""Dialects that the first records show."""

from typing import Any

import pytest

from service.scoring.input.files import InputFile
from service.scoring.job import ScoringError, TextOptions
from service.scoring.sources.text.csv_dialect import CsvDialect, Unescaped, resolve_dialect

RFC = CsvDialect(delimiter=",", quote='"', escape=None)


def resolve(content: str, *, name: str = "a.csv", **options: Any) -> CsvDialect:
    file = InputFile(uri=f"/{name}", name=name, format="csv", size=0, fingerprint="")
    return resolve_dialect(file, content.encode(), TextOptions(**options))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "text\n",
        "id,text\n1,a;b;c\n2,d\n",
        'id,text\n1,"a;b\nc"\n2,d\n',
        "text\na; b\nc; d\n",
        "text\na\tb\n",
        "id,text\n1,it's\n2,'quoted'\n",
        'text\n"""quoted"""\n"""quoted too"""\n',
        'id,json\n1,"{""a"": ""x\\""y""}"\n',
        "id,path\n1,C:\\new\n",
        "id,text\n1,a\\N\n",
        'id,text\n1,"a"b\n2,it\'s\n',
    ],
)
def test_plain_files_are_read_as_they_are(content: str) -> None:
    found = resolve(content)
    assert (found.delimiter, found.quote, found.preamble) == (",", '"', 0)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("id;text\n1;a, b\n", "a.csv", "looks as if ';' divides it into 2 columns"),
        ('"id";"text"\n"1";"a"\n', "a.csv", "looks as if ';'"),
        ("id;price\n1;2,50\n2;3\n", "a.csv", "looks as if ';'"),
        ("id|a|b\n", "a.csv", r"looks as if '\|' divides it into 3 columns"),
        ("id,text\n1,a\n", "a.tsv", "looks as if ',' .* say --delimiter ',', or --delimiter '.t' if that is right"),
        ("1\x01a, b\n2\x01c\n", "a.csv", r"looks as if '\\x01' divides .* say --delimiter '\\x01'"),
        ("id,text\n1,'a'\n2,'b'\n", "a.csv", "every text of column 'text' stands in apostrophes"),
        ("id,text\n1,'a, b'\n2,'c'\n", "a.csv", "looks as if apostrophes are its quotes: say --quote"),
        ('id,text\n1, "a"\n2, "b"\n', "a.csv", "begins with a space and a quote"),
        ('id,text\n1,"say \\"hi\\""\n', "a.csv", "say --escape"),
        ('id,path\n1,"C:\\\\"\n', "a.csv", "say --escape"),
        ("1\ta\\nb\n", "a.tsv", r"line 1 has \\n, which PostgreSQL, .* or say --escape ''"),
        ("id\ttext\n1\ta\n2\t\\N\n", "a.tsv", r"line 3 has \\N, "),
        ("id,text\n1,\\N\n", "a.csv", r"line 2 has \\N, "),
    ],
)
def test_other_dialects_are_refused_with_the_option(content: str, name: str, message: str) -> None:
    with pytest.raises(ScoringError, match=f"{name}: .*{message}|{name}: {message}"):
        resolve(content, name=name)


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("id;text\n1;a\n", {"delimiter": ","}),
        ("id,text\n1,'a'\n2,'b'\n", {"quote": '"'}),
        ('id,text\n1,"C:\\\\"\n', {"escape": ""}),
        ('id,text\n1,"say \\"hi\\""\n', {"escape": "\\"}),
    ],
)
def test_what_the_job_says_holds(content: str, options: dict[str, str]) -> None:
    found = resolve(content, **options)
    assert {name: getattr(found, name) for name in options} == options


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=;\r"])
def test_separator_line_names_the_delimiter(line: str) -> None:
    found = resolve(f"{line}\nid;text\n1;a\n")
    assert (found.delimiter, found.preamble) == (";", 1)
    with pytest.raises(ScoringError, match=r"--delimiter ',': a\.csv begins with"):
        resolve(f"{line}\nid;text\n", delimiter=",")


@pytest.mark.parametrize("options", [{"delimiter": ""}, {"delimiter": ";;"}, {"quote": "\n"}, {"escape": "é"}])
def test_option_of_more_than_a_character_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(ScoringError, match="expected one ASCII character"):
        resolve("id,text\n", **options)


@pytest.mark.parametrize(
    ("lines", "records"),
    [
        (['1,"a \\"b\\" c"\n'], [["1", 'a "b" c']]),
        (['"\\\\",x\n'], [["\\", "x"]]),
        (['"",""\n'], [["", ""]]),
        (['a\\\\b,"c\\d"\n'], [["a\\\\b", "c\\d"]]),
        (['"two\n', 'lines \\"x\\"",y\n'], [['two\nlines "x"', "y"]]),
        (['"a ""b""",y\n'], [['a "b"', "y"]]),
        (['"\\"",y\n'], [['"', "y"]]),
    ],
)
def test_escapes_inside_quotes(lines: list[str], records: list[list[str]]) -> None:
    text_options = CsvDialect(delimiter=",", quote='"', escape="\\")
    assert text_options.parse(lines) == (records, None)


def test_escaped_quote_outside_of_quotes_is_an_error_of_its_line() -> None:
    text_options = CsvDialect(delimiter=",", quote='"', escape="\\")
    assert text_options.parse(["1,a\n", 'say \\"hi\\",x\n'])[1] == "an escaped quote outside of quotes"
    lines = Unescaped(iter(['\\"\n', "next\n"]), text_options)
    with pytest.raises(Exception, match="outside of quotes"):
        next(lines)
    assert next(lines) == "next\n"
