"""Whole jobs whose input and output are in an object store."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from service.scoring.job import ScoringError
from service.scoring.output.ledger import Ledger
from service.scoring.progress import Progress
from service.scoring.storage.location import parse_location
from service.scoring.watch import status
from tests.service.bundles import NAMES
from tests.service.scoring.conftest import Score, tree
from tests.service.scoring.inputs import FORMATS, images, texts, write_csv, write_folder, write_text
from tests.service.scoring.object_server import ROOT, ObjectServer
from tests.service.scoring.sources.text.test_openai import line, write
from tests.service.scoring.test_run import MakeInput

INPUT = {"_ledger/done.json", "_ledger/lock"}


def without_input(files: dict[str, bytes]) -> dict[str, bytes]:
    """Local fingerprints differ from those of objects, and a store has no lock file."""
    return {name: content for name, content in files.items() if name not in INPUT}


def parts(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name.startswith(("predictions/", "rejects/"))}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_bytes_as_locally(
    name: str, make_input: MakeInput, score: Score, server: ObjectServer, tmp_path: Path
) -> None:
    family, source = make_input(name, 20)
    server.put(f"in/{source.name}", source.read_bytes()) if source.is_file() else server.upload(
        source, f"in/{source.name}"
    )
    remote = server.uri(f"in/{source.name}")
    options = {"limit": 8} if family in {"language-model", "image-generator"} else {}
    assert score(family, source, tmp_path / "out", **options).failures == ()
    assert score(family, remote, server.uri("out"), **options).failures == ()
    assert without_input(server.tree("out")) == without_input(tree(tmp_path / "out"))


@pytest.mark.parametrize("form", ["pics", "pics/", "pics/**", "pics/**/*.png", "pics/*"])
def test_every_form_of_a_folder_of_images_gives_the_same_bytes(
    form: str, score: Score, store: ObjectServer, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "pics", images(9))
    (folder / "_thumbnails").mkdir()
    (folder / "_thumbnails" / "1.png").write_bytes(b"no image")
    store.upload(folder, "pics")
    score("image-classifier", folder, tmp_path / "expected", keep=("name",))
    expected = parts(tree(tmp_path / "expected"))
    for source, output in ((f"{tmp_path}/{form}", str(tmp_path / "out")), (store.uri(form), store.uri("out"))):
        result = score("image-classifier", source, output, keep=("name",))
        assert result.summary is not None
        assert (result.summary["scored"], result.summary["rejected"]) == (9, 0)
    assert parts(tree(tmp_path / "out")) == expected
    assert parts(store.tree("out")) == expected


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_server_that_fails_every_fifth_request_changes_nothing(
    when: str, score: Score, store: ObjectServer, tmp_path: Path
) -> None:
    source = write_text(tmp_path / "in.txt", texts(100))
    store.put("in.txt", source.read_bytes())
    score("text-classifier", source, tmp_path / "out")
    store.faults(f"every=5&when={when}")
    assert score("text-classifier", store.uri("in.txt"), store.uri("out")).failures == ()
    store.faults()
    assert without_input(store.tree("out")) == without_input(tree(tmp_path / "out"))


def test_an_object_that_changes_during_the_job_stops_it(score: Score, store: ObjectServer) -> None:
    lines = "".join(f"{text}\n" for text in texts(100)).encode()
    store.put("in/a.txt", lines)
    result = score("text-classifier", store.uri("in"), store.uri("out"), limit=10)
    assert result.failures == ()
    store.put("in/a.txt", lines[:-1] + b"!")
    with pytest.raises(ScoringError, match="belongs to another job"):
        score("text-classifier", store.uri("in"), store.uri("out"))


def test_an_object_that_changes_between_plan_and_shard_is_named(
    score: Score, store: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.scoring import shard

    store.put("in/a.txt", "".join(f"{text}\n" for text in texts(40)).encode())
    fingerprint = shard.current_fingerprint

    def changed(file: object) -> str:
        store.put("in/a.txt", b"other\n")
        return fingerprint(file)  # type: ignore[arg-type]

    monkeypatch.setattr(shard, "current_fingerprint", changed)
    result = score("text-classifier", store.uri("in"), store.uri("out"))
    assert result.summary is None
    assert any("a.txt" in failure and "changed" in failure for failure in result.failures)


def test_two_coordinators_share_an_output_and_score_no_row_twice(
    served_bundles: Path, score: Score, store: ObjectServer
) -> None:
    store.put("in/a.txt", "".join(f"{text}\n" for text in texts(960)).encode())
    score("text-classifier", store.uri("in"), store.uri("here"))
    assert len(committed(store, "here")) == 60
    command = [sys.executable, "-m", "service.scoring", "--model", NAMES["text-classifier"], "--device", "cpu"]
    command += ["--bundles", str(served_bundles), "--workers", "1", "--shard-rows", "16", "--json"]
    command += ["--input", store.uri("in"), "--output", store.uri("out")]
    jobs = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    results = [json.loads(job.communicate(timeout=240)[0]) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0]
    computed = [result["computed"] for result in results]
    assert sum(computed) == 960
    assert min(computed) >= 960 / 10, "both take part, even if one starts late"
    assert store.tree("out") == store.tree("here")


@pytest.mark.parametrize("grace_s", [20.0, 0.0])
def test_a_terminated_job_says_so_and_resumes_to_the_same_bytes(
    grace_s: float, served_bundles: Path, score: Score, store: ObjectServer
) -> None:
    store.put("in/a.txt", "".join(f"{text}\n" for text in texts(1600)).encode())
    score("text-classifier", store.uri("in"), store.uri("here"))
    command = [sys.executable, "-m", "service.scoring", "--model", NAMES["text-classifier"], "--device", "cpu"]
    command += ["--bundles", str(served_bundles), "--workers", "2", "--shard-rows", "16", "--grace-s", str(grace_s)]
    command += ["--input", store.uri("in"), "--output", store.uri("out")]
    job = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while job.poll() is None and len(committed(store)) < 3:
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    _, errors = job.communicate(timeout=120)
    assert job.returncode == 143, errors
    assert "terminated after" in errors
    assert store.endpoint not in errors
    if grace_s:
        assert "dropped" not in errors
    place = store.uri("out")
    assert status.main([place]) == 1
    done = sum(json.loads(store.read(key))["scored"] for key in committed(store))
    assert 0 < done < 1600
    assert score("text-classifier", store.uri("in"), place).computed == 1600 - done
    assert status.main([place]) == 0
    assert store.tree("out") == store.tree("here")


def committed(server: ObjectServer, output: str = "out") -> list[str]:
    return [key for key in server.list_keys() if key.startswith(f"{output}/_ledger/shards/")]


def test_status_and_the_progress_of_a_job_are_read_from_the_store(
    score: Score, store: ObjectServer, capsys: pytest.CaptureFixture[str]
) -> None:
    store.put("in/a.txt", "".join(f"{text}\n" for text in texts(40)).encode())
    place = store.uri("out")
    assert status.main([place]) == 2
    assert capsys.readouterr().err == f"{store.place('out')}: no scoring job is there\n"
    score("text-classifier", store.uri("in"), place)
    assert status.main([place]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{store.place('out')}: finished, tiny-texts ")
    assert lines[1:] == ["rows       40 of 40 committed in 3 shards", "rejected   0"]
    assert not [key for key in store.list_keys() if "/progress/" in key]
    with closing(Ledger(parse_location(place, option="--output").uri)) as ledger:
        ledger.resume()
        progress = Progress()
        progress.workers = 3
        status.ProgressFile(ledger)(progress.snapshot())
    assert status.main([place, "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert (state["state"], state["workers"], len(state["processes"])) == ("running", 3, 1)
    store.delete("out/_ledger/shards/00000-000001.json")
    store.delete(*[key for key in store.list_keys() if "/progress/" in key])
    assert status.main([place, "--json"]) == 1
    state = json.loads(capsys.readouterr().out)
    assert (state["state"], state["rows"], state["shards"]) == ("stopped", 24, 2)
    assert status.main([store.uri("out", bucket="nosuch")]) == 2


@pytest.mark.parametrize("sink", ["parquet", "csv", "jsonl"])
def test_a_result_gives_the_places_and_a_table(sink: str, score: Score, store: ObjectServer) -> None:
    rows = [*({"text": text} for text in texts(39)), {"text": None}]
    store.put("in/a.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows).encode())
    result = score("text-classifier", store.uri("in"), store.uri("out dir"), output_format=sink)
    assert result.output == store.place("out dir")
    names = [f"{store.place('out dir')}/predictions/part-00000-00000{i}.{sink}" for i in range(3)]
    assert result.predictions == names
    assert result.rejects == [store.place("out dir/rejects/part-00000-000002.jsonl")]
    assert result.to_table()["row"].to_pylist() == list(range(39))
    assert store.endpoint not in repr(result)


def test_an_openai_batch_is_answered_in_the_store(score: Score, server: ObjectServer, tmp_path: Path) -> None:
    lines = [line(f"r{i}", prompt=f"ab{i}", max_tokens=3, seed=i) for i in range(20)]
    lines[7]["body"]["temperature"] = "hot"
    source = write(tmp_path / "a.jsonl", lines)
    server.put("in/a.jsonl", source.read_bytes())
    score("language-model", source, tmp_path / "out", request={})
    result = score("language-model", server.uri("in"), server.uri("out"), request={})
    assert result.summary is not None
    assert (result.summary["scored"], result.summary["rejected"]) == (19, 1)
    assert without_input(server.tree("out")) == without_input(tree(tmp_path / "out"))
    assert result.rejects == ["s3://data/out/errors/part-00000-000000.jsonl"]
    # An error file is a file of the job like any other.
    server.delete("out/errors/part-00000-000000.jsonl")
    assert score("language-model", server.uri("in"), server.uri("out"), request={}).failures == ()
    assert without_input(server.tree("out")) == without_input(tree(tmp_path / "out"))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("s3:/data/out", "expected s3://, got s3:/"),
        ("nosuch://data/out", "unknown scheme 'nosuch'"),
        ("hdfs://host/out", "hdfs is for input only"),
        ("https://host/out", "https is for input only"),
        ("s3://data/out?nosuch=1", "unknown option 'nosuch'"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_input_is_read(
    output: str, message: str, score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ScoringError, match=message):
        score("text-classifier", tmp_path / "nothing.txt", output)
    assert list(tmp_path.iterdir()) == []


def test_a_local_output_with_a_colon_is_a_folder(score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_text(tmp_path / "in.txt", texts(3))
    assert score("text-classifier", source, "s3:out").failures == ()
    assert (tmp_path / "s3:out" / "summary.json").exists()


def test_credentials_stay_out_of_files_and_messages(served_bundles: Path, server: ObjectServer, tmp_path: Path) -> None:
    """Two inputs of equal names are named by their full place; a bad row reaches the log of a real worker."""
    for name in ("x", "y"):
        server.put(f"{name}/a.csv", write_csv(tmp_path / "a.csv", {"text": [*texts(5), ""]}).read_bytes())
    credentials = "access_key_id=AKIAVISIBLE&secret_access_key=hunter2"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}

    def run(output: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "service.scoring", "--model", NAMES["text-classifier"]]
        command += [
            "--bundles",
            str(served_bundles),
            "--device",
            "cpu",
            "--workers",
            "2",
            "--output",
            output,
            "--input",
        ]
        command += [f"{server.uri(name)}&{credentials}" for name in ("x", "y")]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    done = run(f"{server.uri('out')}&{credentials}")
    assert done.returncode == 3, done.stderr
    files = server.tree("out")
    assert b"s3://data/x/a.csv" in files["rejects/part-00000-000000.jsonl"]
    failed = run(f"{server.uri('out', bucket='nosuch')}&{credentials}")
    assert failed.returncode == 1
    assert "bucket does not exist" in failed.stderr
    printed = done.stdout + done.stderr + failed.stdout + failed.stderr
    for secret in ("AKIAVISIBLE", "hunter2"):
        assert secret not in printed
        assert not any(secret in name or secret.encode() in content for name, content in files.items())
