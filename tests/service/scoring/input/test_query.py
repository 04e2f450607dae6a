"""Queries as input: asked once, scored from the stored result, and no credential in any file or message."""

import os
import pwd
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from service.scoring.input.query import parse_query
from service.scoring.job import ScoringError
from tests.service.scoring.conftest import Score, predictions, tree
from tests.service.scoring.inputs import texts, write_parquet
from tests.service.scoring.object_server import ObjectServer

ROWS = 40
SQL = "SELECT id, body AS text FROM news WHERE id >= 5 ORDER BY id"
BIG = 2**53 + 1


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "my news.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE news (id INTEGER, body TEXT)")
        connection.executemany("INSERT INTO news VALUES (?, ?)", enumerate(texts(ROWS)))
    return path


def change(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM news")


def test_result_is_scored_like_a_file_with_its_rows(score: Score, database: Path, tmp_path: Path) -> None:
    result = score("text-classifier", f"sqlite:///{database}", tmp_path / "out", query=SQL, id_column="id")
    flat = write_parquet(tmp_path / "flat.parquet", {"id": range(5, ROWS), "text": texts(ROWS)[5:]})
    score("text-classifier", flat, tmp_path / "flat", id_column="id")
    assert result.summary is not None
    found = predictions(tmp_path / "out")
    assert {row["file"] for row in found} == {"query"}
    expected = predictions(tmp_path / "flat")
    assert [{**row, "file": ""} for row in found] == [{**row, "file": ""} for row in expected]


def test_job_never_asks_again(score: Score, database: Path, tmp_path: Path) -> None:
    place, out = f"sqlite:///{database}", tmp_path / "out"
    score("text-classifier", place, out, query=SQL)
    before = tree(out)
    change(database)
    assert score("text-classifier", place, out, query=SQL).computed == 0
    (out / "_ledger" / "done.json").unlink()
    for part in [*(out / "_ledger" / "shards").iterdir(), *(out / "predictions").iterdir()][::2]:
        part.unlink()
    assert score("text-classifier", place, out, query=SQL).computed > 0
    assert tree(out) == before
    assert score("text-classifier", place, tmp_path / "new", query=SQL).summary["rows"] == 0  # type: ignore[index]


def test_started_job_scores_the_stored_result(score: Score, database: Path, tmp_path: Path) -> None:
    place, out = f"sqlite:///{database}", tmp_path / "out"
    with pytest.raises(ScoringError, match="no column 'key'"):
        score("text-classifier", place, out, query=SQL, id_column="key")
    change(database)
    summary = score("text-classifier", place, out, query=SQL).summary
    assert summary is not None
    assert summary["rows"] == ROWS - 5


def test_another_query_is_another_job(score: Score, database: Path, tmp_path: Path) -> None:
    place, out = f"sqlite:///{database}", tmp_path / "out"
    score("text-classifier", place, out, query=SQL)
    with pytest.raises(ScoringError, match=r"belongs to another job \(query was .*id >= 5.*is .*id >= 6"):
        score("text-classifier", place, out, query=SQL.replace("5", "6"))
    flat = write_parquet(tmp_path / "flat.parquet", {"text": texts(3)})
    with pytest.raises(ScoringError, match="belongs to another job"):
        score("text-classifier", flat, out)
    score("text-classifier", flat, tmp_path / "flat")
    with pytest.raises(ScoringError, match=r"another job \(without --query\)"):
        score("text-classifier", place, tmp_path / "flat", query=SQL)


def test_damaged_result_is_refused(score: Score, database: Path, tmp_path: Path) -> None:
    place, out = f"sqlite:///{database}", tmp_path / "out"
    score("text-classifier", place, out, query=SQL)
    [stored] = (out / "_ledger").glob("query-*.arrow")
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.write_bytes(content)
    with pytest.raises(ScoringError, match="stored result of the query, is damaged"):
        score("text-classifier", place, out, query=SQL)
    stored.unlink()
    with pytest.raises(ScoringError, match="stored result of the query, is damaged"):
        score("text-classifier", place, out, query=SQL)


def test_result_is_stored_in_an_object_store(
    score: Score, database: Path, tmp_path: Path, server: ObjectServer
) -> None:
    place, out = f"sqlite:///{database}", server.uri("scored")
    result = score("text-classifier", place, out, query=SQL, id_column="id")
    change(database)
    assert result.to_table().column("id").to_pylist() == list(range(5, ROWS))
    assert score("text-classifier", place, out, query=SQL, id_column="id").computed == 0


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT * FROM other", "the query failed: .*no such table: other"),
        ("DELETE FROM news", "the query failed: .*readonly"),
        ("SELECT body AS text FROM news; SELECT 1", "one statement"),
        ("ATTACH ':memory:' AS other", "gives no columns"),
        ("  ", "needs --query"),
        (None, "needs --query"),
    ],
)
def test_faults_are_one_line(sql: str | None, message: str, score: Score, database: Path, tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match=message.replace("--query", "query")) as caught:
        score("text-classifier", f"sqlite:///{database}", tmp_path / "out", query=sql, check=True)
    assert "\n" not in str(caught.value)


def test_places_that_are_no_database_are_refused(score: Score, tmp_path: Path) -> None:
    for place in (f"sqlite:///{tmp_path}/absent.db", str(tmp_path), "sqlite://x", "sqlite:///a.db?mode=rw"):
        with pytest.raises(ScoringError, match=r"there is no file|expected"):
            score("text-classifier", place, tmp_path / "out", query=SQL)


def test_missing_driver_names_the_group(score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.scoring.input.query.DRIVERS", {"postgresql": "adbc_driver_absent"})
    with pytest.raises(ScoringError, match="dependency group `sql`"):
        score("text-classifier", "postgresql://localhost/news", tmp_path / "out", query=SQL)


def answer(path: Path, *values: str) -> pa.Table:
    """What is stored of the column `x` with these values of SQLite."""
    query = parse_query(
        [f"sqlite:///{path}"], "SELECT * FROM (" + " UNION ALL ".join(f"SELECT {v} AS x" for v in values) + ")"
    )
    assert query is not None
    query.write(path.with_suffix(".arrow"))
    return pa.ipc.open_file(path.with_suffix(".arrow")).read_all()


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["1", "NULL", "9223372036854775807"], pa.int64(), [1, None, 2**63 - 1]),
        (["1.5", str(2**53)], pa.float64(), [1.5, 2.0**53]),
        (["12345678", "12345679", "0.1", "'a'"], pa.string(), ["12345678", "12345679", "0.1", "a"]),
        (["1e300", "''", "'1.500000e+00'"], pa.string(), ["1e+300", "", "1.500000e+00"]),
        (["x'ff00'", "NULL"], pa.binary(), [b"\xff\0", None]),
        (["NULL", "NULL"], pa.null(), [None, None]),
    ],
)
def test_values_of_sqlite_are_exact(
    values: list[str], kind: pa.DataType, expected: list[object], database: Path
) -> None:
    column = answer(database, *values).column("x")
    assert (column.type, column.to_pylist()) == (kind, expected)


@pytest.mark.parametrize(
    ("values", "value"),
    [(["0.5", str(BIG)], str(BIG)), (["'a'", "x'00'"], "b'a'"), (["1"] * 9000 + ["'b'"], "b'b'")],
)
def test_a_value_of_sqlite_that_does_not_fit_fails_the_query(values: list[str], value: str, database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE many (x)")
        connection.executemany(f"INSERT INTO many VALUES ({values[0]})", [()] * (len(values) - 1))
        connection.execute(f"INSERT INTO many VALUES ({values[-1]})")
    query = parse_query([f"sqlite:///{database}"], "SELECT x FROM many")
    assert query is not None
    with pytest.raises(ScoringError, match=f"column 'x' .* does not hold {value} exactly: CAST it"):
        query.write(database.with_suffix(".arrow"))


def test_a_text_of_sqlite_that_is_not_utf8_is_one_reject(score: Score, database: Path, tmp_path: Path) -> None:
    sql = "SELECT CAST(x'ff' AS TEXT) AS text UNION ALL SELECT 'the train'"
    summary = score("text-classifier", f"sqlite:///{database}", tmp_path / "out", query=sql, max_rejects=1.0).summary
    assert summary is not None
    assert (summary["scored"], summary["rejected"]) == (1, 1)


def test_credentials_are_no_part_of_the_identity() -> None:
    for place in (
        "postgresql://bob:s3cret@db.example:5433/news?sslmode=require&sslpassword=s3cret",
        "postgresql://bob:s3/cret@db.example:5433/news",
    ):
        query = parse_query([place], "SELECT 1")
        assert query is not None
        assert query.identity == "postgresql://db.example:5433/news: SELECT 1"
    with pytest.raises(ScoringError, match="%40") as caught:
        parse_query(["postgresql://bob:s3cret?x@db/news"], "SELECT 1")
    assert "s3cret" not in str(caught.value)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A PostgreSQL server on a Unix socket, with the user `bob` and a password; its URI."""
    if not all(map(shutil.which, ("initdb", "pg_ctl", "psql"))):
        pytest.skip("the programs of a PostgreSQL server are not here")
    user = {}
    if os.getuid() == 0:
        try:
            entry = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL refuses root, and there is no user postgres")
        user = {"user": entry.pw_uid, "group": entry.pw_gid}
    with tempfile.TemporaryDirectory(prefix="ekiben-pg-") as folder:
        if user:
            os.chown(folder, user["user"], user["group"])
        data, password = f"{folder}/data", Path(folder, "password")
        password.write_text("s3cret")
        password.chmod(0o644)

        def run(*command: str) -> None:
            subprocess.run(command, check=True, cwd=folder, capture_output=True, timeout=60, **user)  # type: ignore[call-overload]

        run("initdb", "-D", data, "-U", "bob", "-A", "scram-sha-256", "--pwfile", str(password), "-N")
        run("pg_ctl", "-D", data, "-w", "-l", f"{folder}/log", "-o", f"-h '' -k {folder}", "start")
        try:
            yield f"postgresql://bob:s3cret@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "stop")


def execute(uri: str, sql: str) -> None:
    subprocess.run(["psql", "-q", "-v", "ON_ERROR_STOP=1", uri, "-c", sql], check=True, timeout=60)


def test_postgresql_is_scored_from_one_snapshot(score: Score, postgres: str, tmp_path: Path) -> None:
    values = ", ".join(f"({BIG + i}, '{text}', 1.50)" for i, text in enumerate(texts(ROWS)))
    execute(postgres, f"CREATE TABLE news (id bigint, body text, price numeric); INSERT INTO news VALUES {values}")
    sql, out = "SELECT id, body AS text FROM news ORDER BY id", tmp_path / "out"
    score("text-classifier", postgres, out, query=sql, id_column="id")
    assert [row["id"] for row in predictions(out)] == [BIG + i for i in range(ROWS)]
    before = tree(out)
    execute(postgres, "DELETE FROM news")
    assert score("text-classifier", postgres, out, query=sql, id_column="id").computed == 0
    assert tree(out) == before
    assert not [name for name, content in before.items() if b"s3cret" in content or b"bob" in content]


def test_faults_of_postgresql_show_no_password(score: Score, postgres: str, tmp_path: Path) -> None:
    for place, sql in ((postgres, "SELECT * FROM absent"), (postgres.replace("s3cret", "s3cret-x"), "SELECT 1")):
        with pytest.raises(ScoringError, match="the query failed") as caught:
            score("text-classifier", place, tmp_path / "out", query=sql)
        assert "s3cret" not in str(caught.value)
        assert "\n" not in str(caught.value)
