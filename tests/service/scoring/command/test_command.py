"""The command line: exit codes, messages and JSON output."""

import json
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest

from service.scoring import execution
from service.scoring.__main__ import main
from tests.service.scoring.conftest import predictions, run_here
from tests.service.scoring.inputs import texts, write_jsonl

Command = Callable[..., int]


@pytest.fixture
def command(served_bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setitem(execution.ENGINES, "local", run_here)
    monkeypatch.setenv("EKIBEN_BUNDLES", str(served_bundles))
    rows = [*texts(18), None, None]
    write_jsonl(tmp_path / "in.jsonl", {"id": range(20), "body": rows})

    def command(*arguments: str, model: str = "tiny-texts", source: str = "in.jsonl") -> int:
        where = ("--input", str(tmp_path / source), "--output", str(tmp_path / "out"))
        return main(["--model", model, *where, "--device", "cpu", *arguments])

    return command


def test_rejects_above_the_allowed_share_exit_with_3(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--column", "text=body") == 3
    printed = capsys.readouterr()
    assert "20 rows in" in printed.out
    assert printed.err.splitlines()[-1].startswith("exit code 3: more rows were rejected than --max-rejects 0 allows")
    assert command("--column", "text=body", "--max-rejects", "0.1") == 0
    printed = capsys.readouterr()
    assert "nothing to do; 18 scored, 2 rejected" in printed.out
    assert "exit code" not in printed.err
    assert command("--column", "text=body", "--max-rejects", "0.09") == 3


def test_json_option_prints_the_summary(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    command("--column", "text=body", "--id", "id", "--set", "top_k=2", "--json")
    document = json.loads(capsys.readouterr().out)
    assert (document["rows"], document["scored"], document["rejected"], document["computed"]) == (20, 18, 2, 20)
    assert document["options"] == {"columns": {"text": "body"}, "id": "id", "keep": [], "top_k": 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "nothing"}, "--model nothing: no such bundle"),
        ({"model": "tiny-texts@ffff"}, "expected one version, found none"),
        ({"model": "../bundles"}, "no such bundle"),
        ({"source": "gone.jsonl"}, "nothing there to score"),
        ({}, "cannot tell which column holds the text: pass --column text=NAME; columns: 'id', 'body'"),
    ],
)
def test_job_that_cannot_start_exits_with_1(
    arguments: dict[str, str], message: str, command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command(**arguments) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "predictions").exists()
    assert command("--json", **arguments) == 1
    assert json.loads(capsys.readouterr().out)["failures"]


def test_a_device_of_the_environment_is_no_other(
    served_bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job that is to run on a GPU does not run on the CPU instead."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    (tmp_path / "in.jsonl").write_text('{"text": "the train"}\n')
    words = ["--model", "tiny-texts", "--bundles", str(served_bundles), "--input", str(tmp_path / "in.jsonl")]
    for value, message in (("cuda", "device 'cuda' was requested"), ("gpu", "EKIBEN_DEVICE='gpu': expected auto, cpu")):
        monkeypatch.setenv("EKIBEN_DEVICE", value)
        assert main([*words, "--output", str(tmp_path / "out")]) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", ["0", "-1"])
def test_less_than_one_worker_is_refused(
    workers: str, command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command("--column", "text=body", "--workers", workers) == 1
    assert f"--workers {workers}: expected at least 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [("nonsense=1", "the options of a model text -> labels are top_k, truncate"), ("top_k=0", "top_k")],
)
def test_invalid_request_field_is_reported(
    setting: str, message: str, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--column", "text=body", "--set", setting) == 1
    assert message in capsys.readouterr().err


def test_metrics_are_written_where_node_exporter_reads_them(
    command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ("--column", "text=body", "--max-rejects", "1", "--metrics-file")
    assert command(*options, str(tmp_path / "x.txt")) == 1
    assert "x.txt: expected a name that ends in .prom" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert command(*options, str(tmp_path / "x.prom")) == 0
    assert 'ekiben_scoring_rows{model="tiny-texts"' in (tmp_path / "x.prom").read_text()


def test_unique_version_prefix_is_enough(command: Command, served_bundles: Path, tmp_path: Path) -> None:
    version = (served_bundles / "tiny-texts" / "current").read_text()[:6]
    assert command("--column", "text=body", "--max-rejects", "1", "--limit", "5", model=f"tiny-texts@{version}") == 0
    assert len(predictions(tmp_path / "out")) == 5


@pytest.mark.parametrize(
    ("content", "arguments"),
    [
        ("id\ttext\n1\tthe train, late\n", ("--delimiter", "tab")),
        ("id\ttext\n1\tthe train, late\n", ("--delimiter", "\\t")),
        ("id;text\n1;'the; train'\n", ("--delimiter", ";", "--quote", "'")),
        ('id,text\n1,"the \\"train\\""\n', ("--escape", "\\")),
        ('id,text\n1,"C:\\"\n', ("--escape", "")),
        ("id,text\n1,\x80uro\n", ("--encoding", "cp1252")),
        ("1,the train\n", ("--no-header", "--column", "text=1")),
    ],
)
def test_dialects_of_csv_are_options(
    content: str, arguments: tuple[str, ...], command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_bytes(content.encode("latin-1"))
    assert command(*arguments, "--output-format", "csv", "--escape-formulas", source="in.csv") == 0
    assert "1 scored, 0 rejected" in capsys.readouterr().out


def test_the_last_line_names_a_large_drift(
    command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "other.jsonl", {"body": ["der Zug kommt am Mittag"] * 300})
    assert command("--column", "text=body", source="other.jsonl") == 0
    line = capsys.readouterr().out
    drift = json.loads((tmp_path / "out" / "summary.json").read_text())["drift"]
    first, *others = [statistic for statistic in drift["statistics"] if statistic["verdict"] == "large"]
    assert line.endswith(f"; large drift of {first['name']} (PSI {first['psi']:.2f}), and {len(others)} more\n")
    assert "input share of unknown tokens" in {statistic["name"] for statistic in (first, *others)}
