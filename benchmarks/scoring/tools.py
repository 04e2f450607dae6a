"""Scores one table as the tools of data engineers write it, by the command that a user would try first.

    python -m benchmarks.scoring.tools

The texts hold commas, quotes, line ends, tabs and umlauts, and the command runs in this process. Each file is scored as
it is; if the command refuses it, the options that its message names are added once. Every row must then have the text
and the prediction that the same row of a JSON Lines file gets. Exit code 1 if one has another, or is missing without an
error. pandas, polars, DuckDB, pyarrow, datasets and SQLite write their own files; those of the other tools are written
byte by byte as the tools do.
"""

import contextlib
import csv
import gzip
import io
import json
import sqlite3
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from benchmarks.scoring.tiny_bundles import write_tiny_bundles
from service.scoring import __main__ as scoring
from service.scoring import execution
from tests.service.bundles import NAMES
from tests.service.scoring.conftest import run_here
from tests.service.scoring.inputs import texts

ROWS = 60


@dataclass(frozen=True, kw_only=True)
class Input:
    """One input: `write(folder)` returns its path, `options` are what the command's message has a user add.

    With `refused`, the message is all that a user gets, and says these words.
    """

    name: str
    made_by: str
    write: Callable[[Path], Path | str]
    first: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    refused: str = ""
    id_column: str = "id"
    text_column: str = "text"


def rows() -> list[dict[str, Any]]:
    words = texts(ROWS)
    return [{"id": i, "text": f'{word}, "{word}"; tschüß\n{word}\t.'} for i, word in enumerate(words)]


def frame() -> pd.DataFrame:
    return pd.DataFrame(rows())


def _text(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(content.encode(encoding))
    return path


def _csv(*, delimiter: str = ",", end: str = "\r\n", quoting: Any = csv.QUOTE_MINIMAL) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["id", "text"], delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writeheader()
    writer.writerows(rows())
    return out.getvalue()


def _pandas_index(folder: Path) -> Path:
    frame().to_csv(folder / "pandas.csv")
    return folder / "pandas.csv"


def _pandas_parquet(folder: Path) -> Path:
    data = frame()
    data.index = pd.Index([f"x{i}" for i in range(ROWS)])
    data.to_parquet(folder / "pandas.parquet")
    return folder / "pandas.parquet"


def _polars(kind: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / f"polars.{kind}"
        data = pl.DataFrame(rows())
        writers: Mapping[str, Any] = {
            "csv": data.write_csv, "arrow": data.write_ipc, "parquet": data.write_parquet, "ndjson": data.write_ndjson,
        }  # fmt: skip
        writers[kind](path)
        return path

    return write


def _duckdb(name: str, options: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        table = frame()
        duckdb.from_df(table).query(
            "articles", f"COPY (SELECT *, id % 3 AS part FROM articles) TO '{folder / name}' ({options})"
        )
        return folder / name

    return write


def _arrow_csv(folder: Path) -> Path:
    pacsv.write_csv(pa.Table.from_pylist(rows()), folder / "arrow.csv")
    return folder / "arrow.csv"


def _spark_parquet(folder: Path) -> Path:
    out = folder / "spark_parquet"
    out.mkdir()
    name = "part-00000-7c1c7d0e-4b50-4d0e-9f0a-2a6e6c1f6c11-c000.snappy.parquet"
    pq.write_table(pa.Table.from_pylist(rows()), out / name, compression="snappy")
    return _spark_layout(out)


def _spark_csv(folder: Path) -> Path:
    out = folder / "spark_csv"
    out.mkdir()
    # option("header", True): quotes are escaped by a backslash.
    lines = ["id,text", *(f'{row["id"]},"{_escaped(row["text"])}"' for row in rows())]
    _text(out / "part-00000-7c1c7d0e-4b50-4d0e-9f0a-2a6e6c1f6c11-c000.csv", "\n".join(lines) + "\n")
    return _spark_layout(out)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _spark_layout(folder: Path) -> Path:
    for path in list(folder.iterdir()):
        (folder / f".{path.name}.crc").write_bytes(b"crc\0\0\0\2\0")
    (folder / "_SUCCESS").touch()
    (folder / "._SUCCESS.crc").write_bytes(b"crc\0\0\0\2\0")
    (folder / "_temporary" / "0").mkdir(parents=True)
    return folder


def _r_csv(folder: Path) -> Path:
    def quoted(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    lines = ['"","id","text"', *(f'"{i + 1}",{row["id"]},{quoted(row["text"])}' for i, row in enumerate(rows()))]
    return _text(folder / "r.csv", "\n".join(lines) + "\n")


def _copied_text(folder: Path) -> Path:
    """COPY ... TO of PostgreSQL in its text format: tabs, and line ends as escapes."""

    def cell(text: str) -> str:
        return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")

    return _text(folder / "articles.tsv", "".join(f"{row['id']}\t{cell(row['text'])}\n" for row in rows()))


def _bigquery(folder: Path) -> Path:
    out = folder / "bigquery"
    out.mkdir()
    # INT64 becomes a text.
    lines = [json.dumps({"id": str(row["id"]), "text": row["text"]}, ensure_ascii=False) for row in rows()]
    for i in range(2):
        content = "".join(f"{line}\n" for line in lines[i * 30 : i * 30 + 30])
        (out / f"articles-{i:012d}.json.gz").write_bytes(gzip.compress(content.encode()))
    return out


def _kaggle(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "train.csv.zip", "w") as archive:
        archive.writestr("train.csv", _csv())
    return folder / "train.csv.zip"


def _hugging_face(folder: Path) -> Path:
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(rows()).save_to_disk(str(folder / "hf"))
    return folder / "hf"


def _sqlite(folder: Path) -> str:
    with sqlite3.connect(folder / "news.db") as database:
        database.execute("CREATE TABLE articles (id INTEGER PRIMARY KEY, text TEXT)")
        database.executemany("INSERT INTO articles VALUES (:id, :text)", rows())
    database.close()
    return f"sqlite:///{folder / 'news.db'}"


def _json_array(folder: Path) -> Path:
    frame().to_json(folder / "records.json", orient="records")
    return folder / "records.json"


def _bytes(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def _excel(name: str, content: Callable[[], str], encoding: str) -> Callable[[Path], Path]:
    return lambda folder: _text(folder / name, content(), encoding)


INPUTS = (
    Input(name="CSV with the index", made_by="pandas `to_csv()`", write=_pandas_index),
    Input(
        name="Parquet with an index",
        made_by="pandas `to_parquet()`",
        write=_pandas_parquet,
        options=("--column", "text=text"),
    ),
    Input(name="CSV", made_by="polars `write_csv()`", write=_polars("csv")),
    Input(name="Arrow IPC with views", made_by="polars `write_ipc()`", write=_polars("arrow")),
    Input(name="Parquet", made_by="polars `write_parquet()`", write=_polars("parquet")),
    Input(name="NDJSON", made_by="polars `write_ndjson()`", write=_polars("ndjson")),
    Input(name="CSV", made_by="DuckDB `COPY`", write=_duckdb("duck.csv", "HEADER")),
    Input(
        name="Parquet in folders",
        made_by="DuckDB `COPY … PARTITION_BY`",
        write=_duckdb("duck", "FORMAT parquet, PARTITION_BY (part)"),
    ),
    Input(name="CSV with quotes everywhere", made_by="pyarrow", write=_arrow_csv),
    Input(
        name="CSV UTF-8 with semicolons and BOM",
        made_by="Excel (German)",
        write=_excel("excel.csv", lambda: _csv(delimiter=";"), "utf-8-sig"),
        options=("--delimiter", ";"),
    ),
    Input(
        name="`sep=;`, Windows-1252",
        made_by="Excel (German)",
        write=_excel("sep.csv", lambda: "sep=;\r\n" + _csv(delimiter=";"), "cp1252"),
        options=("--encoding", "cp1252"),
    ),
    Input(
        name="Unicode text, UTF-16 with tabs (.txt)",
        made_by="Excel",
        write=_excel("unicode.txt", lambda: _csv(delimiter="\t"), "utf-16"),
        first=("--input-format", "csv"),
        options=("--delimiter", "tab"),
    ),
    Input(name="folder with _SUCCESS and crc, Parquet", made_by="Spark", write=_spark_parquet),
    Input(name="folder with _SUCCESS and crc, CSV", made_by="Spark", write=_spark_csv, options=("--escape", "\\")),
    Input(name="CSV with row names", made_by="R `write.csv()`", write=_r_csv),
    Input(name="`COPY … CSV HEADER`", made_by="PostgreSQL", write=_excel("pg.csv", lambda: _csv(end="\n"), "utf-8")),
    Input(
        name="`COPY` in text format (.tsv)",
        made_by="PostgreSQL",
        write=_copied_text,
        first=("--no-header", "--column", "text=1"),
        refused="CSV HEADER",
        id_column="0",
        text_column="1",
    ),
    Input(name="JSON export, .json.gz in parts", made_by="BigQuery", write=_bigquery),
    Input(name="train.csv.zip", made_by="Kaggle", write=_kaggle, refused="zip"),
    Input(name="CSV", made_by="Google Sheets", write=_excel("sheet.csv", lambda: _csv().rstrip(), "utf-8")),
    Input(name="folder of `save_to_disk`", made_by="Hugging Face datasets", write=_hugging_face),
    Input(name="SQLite", made_by="sqlite3", write=_sqlite, first=("--query", "SELECT id, text FROM articles")),
    Input(name="JSON array", made_by="pandas `to_json(orient='records')`", write=_json_array, refused="array"),
    Input(name="workbook .xlsx", made_by="Excel", write=_bytes("book.xlsx", b"PK\3\4"), refused="xlsx"),
    Input(name=".avro", made_by="BigQuery, Kafka", write=_bytes("a.avro", b"Obj\1"), refused="avro"),
)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ekiben-tools-") as name:
        folder = Path(name)
        write_tiny_bundles(folder / "bundles")
        lines = "".join(f"{json.dumps(row)}\n" for row in rows())
        source = _text(folder / "reference.jsonl", lines)
        execution.ENGINES["local"] = run_here
        code, printed = _score(folder, source, ("--id", "id", "--keep", "text"), "reference")
        if code:
            sys.exit(printed)
        expected = _predictions(folder / "reference", "id", "text")
        print(
            "| input | made by | the first command says | with | rows | equal |\n| --- | --- | --- | --- | ---: | --- |"
        )
        failed = [item.name for i, item in enumerate(INPUTS) if not _try(folder, i, item, expected)]
    if failed:
        sys.exit(f"wrong: {', '.join(failed)}")


def _try(folder: Path, number: int, item: Input, expected: Mapping[str, Any]) -> bool:
    """Score one input, print its line; whether nothing about it is wrong."""
    place = folder / f"in{number}"
    place.mkdir()
    source = item.write(place)
    output = f"out{number}"
    copied = ("--id", item.id_column, "--keep", item.text_column)
    code, printed = _score(folder, source, (*item.first, *copied), output)
    said = "scored" if code == 0 else _message(printed, folder)
    if code and item.refused:
        _print(item, said, "", 0, "—")
        return item.refused in said
    if code:
        code, printed = _score(folder, source, (*item.first, *item.options, *copied), output)
    actual = _predictions(folder / output, item.id_column, item.text_column) if code == 0 else {}
    is_equal = actual == expected
    _print(item, said, " ".join(item.options) if said != "scored" else "", len(actual), "yes" if is_equal else "**no**")
    if code:
        print(_message(printed, folder), file=sys.stderr)
    return is_equal and not item.refused and (said == "scored" or bool(item.options))


def _print(item: Input, said: str, options: str, count: int, equal: str) -> None:
    cells = [item.name, item.made_by, said, f"`{options}`" if options else "", str(count or ""), equal]
    print("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |", flush=True)


def _score(folder: Path, source: Path | str, options: tuple[str, ...], output: str) -> tuple[int, str]:
    """Run the command; return its exit code and what it says."""
    arguments = ["--model", NAMES["text-classifier"], "--bundles", str(folder / "bundles"), "--device", "cpu"]
    arguments += ["--input", str(source), "--output", str(folder / output), "--set", "truncate=true", *options]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = scoring.main(arguments)
    return code, printed.getvalue()


def _message(printed: str, folder: Path) -> str:
    """The last line, without the folder of this run."""
    return printed.strip().splitlines()[-1].replace(f"{folder}/", "").removeprefix("failed: ")


def _predictions(output: Path, id_column: str, text_column: str) -> dict[str, Any]:
    """Text, label and probability of each id."""
    table = pa.concat_tables([pq.read_table(path) for path in sorted((output / "predictions").iterdir())])
    return {str(row[id_column]): (row[text_column], row["label"], row["probability"]) for row in table.to_pylist()}


if __name__ == "__main__":
    main()
