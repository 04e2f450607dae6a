"""The snippets of docs/scoring.md for Ray Data, Spark, Airflow and Dagster, run by the frameworks themselves.

Only the name of the model and the places are those of the test.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pytest

from tests.service.bundles import NAMES
from tests.service.scoring.conftest import Score, predictions
from tests.service.scoring.inputs import texts, write_parquet
from tests.service.scoring.object_server import ROOT

# Airflow and Spark take minutes to start on a machine that is busy.
pytestmark = pytest.mark.timeout(900)

PAGE = ROOT / "docs" / "scoring.md"
DAY = "2026-01-02"
REASON = "body: expected a non-empty text, got null"
LOCAL_RAY = "import ray\nray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)\n"
LOCAL_SPARK = """
from pyspark.sql import SparkSession
SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
"""
MATERIALIZE = f"""
import json
result = dg.materialize([scored_news], partition_key="{DAY}")
metadata = result.asset_materializations_for_node("scored_news")[0].metadata
print(json.dumps({{name: value.value for name, value in metadata.items()}}))
"""


def snippet(marker: str, *, source: Path, output: Path) -> str:
    """The block of the page that holds the marker, for this model and these folders."""
    [block] = [block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if marker in block]
    for place, folder in (("s3://news", source), ("s3://scored", output)):
        assert place in block
        block = block.replace(place, str(folder))
    assert "news-lstm" in block
    return block.replace("news-lstm", NAMES["text-classifier"])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Articles of a year and of a day, in one file each. The last has no body."""
    for folder in ("2026", DAY):
        (tmp_path / "news" / folder).mkdir(parents=True)
        columns = {"article": [f"r{i}" for i in range(40)], "body": [*texts(39), None]}
        write_parquet(tmp_path / "news" / folder / "a.parquet", columns)
    return tmp_path / "news"


def run(python: str | Path, *command: str, bundles: Path, cwd: Path, **variables: str) -> str:
    """Run a command of a Python environment with this checkout; return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "EKIBEN_BUNDLES": str(bundles), **variables}
    done = subprocess.run(
        [str(python), *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=840, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def environment_of(name: str) -> Path:
    """The interpreter of an environment; skips the test where it is not installed."""
    python = ROOT / f".venv-{name}" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"there is no .venv-{name}: make prove-frameworks installs it")
    return python


def scored_by_a_job(score: Score, source: Path, output: Path) -> list[tuple[Any, ...]]:
    """Article, label and probability of each row that a job scores."""
    score("text-classifier", source / "2026", output, columns={"text": "body"}, id_column="article")
    return [(row["article"], row["label"], row["probability"]) for row in predictions(output)]


def test_ray_data_scores_like_a_job(source: Path, score: Score, served_bundles: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    code = LOCAL_RAY + snippet("map_batches", source=source, output=tmp_path / "scored")
    run(sys.executable, "-c", code, bundles=served_bundles, cwd=tmp_path)
    check_scored(tmp_path / "scored" / "2026", scored_by_a_job(score, source, tmp_path / "out"))


def test_spark_scores_like_a_job(source: Path, score: Score, served_bundles: Path, tmp_path: Path) -> None:
    python = environment_of("spark")
    if shutil.which("java") is None:
        pytest.skip("there is no Java, which Spark runs on")
    code = LOCAL_SPARK + snippet("pandas_udf", source=source, output=tmp_path / "scored")
    run(python, "-c", code, bundles=served_bundles, cwd=tmp_path, PYSPARK_PYTHON=str(python))
    check_scored(tmp_path / "scored" / "2026", scored_by_a_job(score, source, tmp_path / "out"), column="text")


def check_scored(folder: Path, expected: list[tuple[Any, ...]], column: str = "body") -> None:
    rows = pa.dataset.dataset(folder).to_table().to_pylist()
    rows.sort(key=lambda row: int(row["article"][1:]))
    assert [(row["article"], row["label"], row["probability"]) for row in rows[:39]] == expected
    assert [row["error"] for row in rows] == [None] * 39 + [REASON.replace("body", column)]
    assert rows[39]["label"] is None


def test_dagster_materializes_a_scored_day(source: Path, served_bundles: Path, tmp_path: Path) -> None:
    python = environment_of("dagster")
    code = snippet("dagster", source=source, output=tmp_path / "scored").replace("max_rejects=0.01", "max_rejects=0.1")
    printed = run(python, "-c", code + MATERIALIZE, bundles=served_bundles, cwd=tmp_path, DAGSTER_HOME=str(tmp_path))
    output = str(tmp_path / "scored" / DAY)
    assert json.loads(printed.splitlines()[-1]) == {"rows": 40, "scored": 39, "rejected": 1, "output": output}


def test_airflow_runs_a_scored_day(source: Path, served_bundles: Path, tmp_path: Path) -> None:
    python = environment_of("airflow")
    code = snippet("airflow", source=source, output=tmp_path / "scored").replace("max_rejects=0.01", "max_rejects=0.1")
    home = tmp_path / "airflow"
    (home / "dags").mkdir(parents=True)
    (home / "dags" / "news.py").write_text(code)
    variables = {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    run(python, "-m", "airflow", "db", "migrate", bundles=served_bundles, cwd=tmp_path, **variables)
    command = ("-m", "airflow", "dags", "test", "news", DAY)
    run(python, *command, bundles=served_bundles, cwd=tmp_path, **variables)
    summary = json.loads((tmp_path / "scored" / DAY / "summary.json").read_text())
    assert (summary["rows"], summary["scored"], summary["rejected"]) == (40, 39, 1)
