"""The commands of docs/scoring.md, run as they are printed but for the names of models and places."""

import gzip
import re
import shlex
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from deltalake import DeltaTable

from service.scoring import execution
from service.scoring.__main__ import main
from tests.service.bundles import NAMES
from tests.service.scoring.conftest import run_here
from tests.service.scoring.inputs import FORMATS, texts
from tests.service.scoring.object_server import ROOT, ObjectServer
from tests.service.scoring.passes.conftest import IMAGES, pass_bundles

__all__ = ["pass_bundles"]

PAGE = (ROOT / "docs" / "scoring.md").read_text()
COMMANDS = re.findall(r"^python -m service\.scoring (.*?)(?<!\\)\n", PAGE, re.MULTILINE | re.DOTALL)
NUM_ROWS = 20


def command(marker: str) -> list[str]:
    """The arguments of the command that holds the marker."""
    [line] = [line for line in COMMANDS if marker in line]
    return shlex.split(line.replace("\\\n", " "))


@pytest.fixture
def run(
    pass_bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[list[str], dict[str, str]], None]:
    """Run a command in an empty folder, with these words in place of others."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EKIBEN_BUNDLES", str(pass_bundles))
    monkeypatch.setitem(execution.ENGINES, "local", run_here)
    models = dict(zip(("news-lstm", "mnist-cnn", "mnist-mlp"), (NAMES["text-classifier"], *IMAGES), strict=True))

    def run(words: list[str], changes: dict[str, str]) -> None:
        assert changes.keys() <= set(words)
        assert main([{**models, **changes}.get(word, word) for word in words]) == 0

    return run


def write_news(path: Path, *, rows: int = NUM_ROWS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    days = [f"2026-01-0{1 + i % 3}" for i in range(rows)]
    pyarrow.parquet.write_table(pa.table({"text": texts(rows), "day": days}), path)


def rows_of(folder: Path) -> int:
    return sum(pyarrow.parquet.read_metadata(path).num_rows for path in folder.rglob("predictions/**/*.parquet"))


def test_every_command_is_run_here() -> None:
    markers = ("*.csv.gz", "postgresql", "--new-only", "minio", "--partition-by", "--append-to", "mnist-mlp")
    assert {line for marker in (*markers, "ray.yaml") for line in COMMANDS if marker in line} == set(COMMANDS)
    assert all(command(marker) for marker in markers)


def test_files(run: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    lines = [f'{i},"{text}"' for i, text in enumerate(texts(NUM_ROWS))]
    with gzip.open(tmp_path / "data" / "a.csv.gz", "wt") as file:
        file.write("\n".join(["article,body", *lines, ""]))
    run(command("*.csv.gz"), {})
    assert rows_of(tmp_path / "scored") == NUM_ROWS


def test_a_query(run: Callable[..., None], tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "news.db") as database:
        database.execute("CREATE TABLE articles (id INTEGER, body TEXT)")
        database.executemany("INSERT INTO articles VALUES (?, ?)", enumerate(texts(NUM_ROWS)))
    run(command("postgresql"), {"postgresql://reader@db:5432/news": f"sqlite:///{tmp_path / 'news.db'}"})
    assert rows_of(tmp_path / "scored") == NUM_ROWS


def test_a_growing_folder(run: Callable[..., None], tmp_path: Path, server: ObjectServer) -> None:
    words = command("--new-only")
    places = {"s3://news/": server.uri("news/"), "s3://scored/": server.uri("scored/")}
    for number, name in enumerate(("a", "b"), start=1):
        write_news(tmp_path / f"{name}.parquet")
        server.put(f"news/{name}.parquet", (tmp_path / f"{name}.parquet").read_bytes())
        run(words, places)
        found = [key for key in server.list_keys() if key.startswith("scored/predictions/")]
        assert len(found) == number


def test_a_pattern_in_a_store(run: Callable[..., None], tmp_path: Path, server: ObjectServer) -> None:
    write_news(tmp_path / "a.parquet")
    server.put("news/2026/01/a.parquet", (tmp_path / "a.parquet").read_bytes())
    output = "s3://scored/2026/?endpoint=http://minio:9000&region=eu-west-1"
    places = {
        "s3://news/2026/**/*.parquet": server.uri("news/2026/**/*.parquet"),
        output: output.replace("s3://scored", "s3://data/scored").replace("http://minio:9000", server.endpoint),
    }
    run(command("minio"), places)
    assert any(key.startswith("scored/2026/predictions/") for key in server.list_keys())


def test_partitions(run: Callable[..., None], tmp_path: Path) -> None:
    write_news(tmp_path / "news" / "a.parquet")
    run(command("--partition-by"), {})
    assert rows_of(tmp_path / "scored") == NUM_ROWS
    assert {path.name for path in (tmp_path / "scored/predictions").iterdir()} == {
        f"day=2026-01-0{i}" for i in (1, 2, 3)
    }


def test_a_table_is_appended_to(run: Callable[..., None], tmp_path: Path, server: ObjectServer) -> None:
    write_news(tmp_path / "news" / "a.parquet")
    run(command("--append-to"), {"s3://lake/scored_news": server.uri("lake/scored_news")})
    options = {"AWS_ENDPOINT_URL": server.endpoint, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
    table = DeltaTable("s3://data/lake/scored_news", storage_options=options)
    assert table.to_pyarrow_table().num_rows == NUM_ROWS


def test_several_models(run: Callable[..., None], tmp_path: Path) -> None:
    _, write = FORMATS["parquet-pixels"]
    source = write(tmp_path, NUM_ROWS)
    (tmp_path / "digits").mkdir()
    source.rename(tmp_path / "digits" / source.name)
    run(command("mnist-mlp"), {})
    assert rows_of(tmp_path / "scored") == 2 * NUM_ROWS
