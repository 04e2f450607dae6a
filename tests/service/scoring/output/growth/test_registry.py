"""Jobs whose input folder grows: what is scored, what stays, and what is named."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from service.scoring import __main__ as command
from service.scoring import execution, shard
from service.scoring.job import ScoringError
from service.scoring.output.growth.registry import InputRegistry
from service.scoring.output.ledger import Ledger
from service.scoring.result import JobFailedError
from service.scoring.sources.text.lines import JsonSource
from tests.service.bundles import NAMES
from tests.service.scoring.conftest import Score, predictions, tree
from tests.service.scoring.inputs import images, texts, write_csv, write_folder, write_jsonl, write_parquet
from tests.service.scoring.lake import write_delta
from tests.service.scoring.object_server import ObjectServer

Add = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def add(folder: Path, name: str, rows: int = 20, *, seed: int = 0) -> Path:
    lines: list[Any] = list(texts(rows, seed=seed))
    lines[3] = None
    return write_jsonl(folder / name, {"text": lines, "n": list(range(rows))})


def scored_files(output: Path) -> dict[str, list[bytes]]:
    """The bytes of the predictions of each file, in order."""
    ledger = Ledger(output)
    parts: dict[str, list[bytes]] = {}
    for record in ledger.records():
        named = [name for name in record.parts if name.startswith("predictions/")]
        parts.setdefault(record.file, []).extend((output / name).read_bytes() for name in named)
    return parts


def test_new_files_are_added_and_the_others_are_not_read_again(
    score: Score, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[str]()
    opened, schema = JsonSource.__init__, JsonSource.schema

    def opening(source: JsonSource, file: Any, spec: Any) -> None:
        read.append(file.name)
        opened(source, file, spec)

    monkeypatch.setattr(JsonSource, "__init__", opening)
    monkeypatch.setattr(JsonSource, "schema", lambda file, options: (read.append(file.name), schema(file, options))[1])
    options = {"keep": ("n",), "new_only": True}
    add(folder, "m.jsonl")
    assert score("text-classifier", folder, tmp_path / "out", **options).computed == 20
    before = tree(tmp_path / "out")
    add(folder, "z.jsonl", 40, seed=1)
    add(folder, "a.jsonl", 18, seed=2)
    read.clear()
    result = score("text-classifier", folder, tmp_path / "out", **options)
    assert set(read) == {"a.jsonl", "z.jsonl"}
    assert result.computed == 58
    after = tree(tmp_path / "out")
    assert all(after[name] == before[name] for name in before if name.startswith(("predictions/", "_ledger/shards/")))
    read.clear()
    assert score("text-classifier", folder, tmp_path / "out", **options).computed == 0
    assert set(read) <= {"a.jsonl"}
    add(folder, "b.jsonl", 16, seed=3)
    result = score("text-classifier", folder, tmp_path / "out", **options)
    assert result.summary is not None
    assert (result.computed, result.summary["rows"], result.summary["files"]) == (16, 94, 4)
    assert result.summary["input_changes"] == {"changed": [], "deleted": []}
    # One job over the same folder gives each file the same parts; only their numbers differ.
    whole = score("text-classifier", folder, tmp_path / "whole", keep=("n",)).summary
    assert whole is not None
    assert scored_files(tmp_path / "out") == scored_files(tmp_path / "whole")
    assert {name: result.summary[name] for name in whole} == whole
    names = sorted(path.name for path in (tmp_path / "out" / "predictions").iterdir())
    assert [name[5:10] for name in names] == ["00000"] * 2 + ["00001"] * 2 + ["00002"] * 3 + ["00003"]
    assert len({(row["file"], row["row"]) for row in predictions(tmp_path / "out")}) == 94 - 4


def test_a_new_file_without_content_stops_nothing(score: Score, folder: Path, tmp_path: Path) -> None:
    options = {"keep": ("n",), "new_only": True}
    add(folder, "m.jsonl")
    score("text-classifier", folder, tmp_path / "out", **options)
    (folder / "a.jsonl").touch()
    (folder / "z.jsonl.gz").write_bytes(gzip.compress(b""))
    for _ in range(2):
        result = score("text-classifier", folder, tmp_path / "out", **options)
        assert result.summary is not None
        assert (result.summary["files"], result.summary["rows"], result.computed) == (3, 20, 0)
    add(folder, "b.jsonl")
    assert score("text-classifier", folder, tmp_path / "out", **options).computed == 20


def test_changed_and_deleted_files_are_named_and_stay(
    score: Score, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
        add(folder, name)
    score("text-classifier", folder, tmp_path / "out", new_only=True)
    before = scored_files(tmp_path / "out")
    add(folder, "a.jsonl", 25, seed=9)
    (folder / "b.jsonl").unlink()
    # Written again with equal bytes.
    content = (folder / "c.jsonl").read_bytes()
    (folder / "c.jsonl").unlink()
    (folder / "c.jsonl").write_bytes(content)
    add(folder, "d.jsonl", 10, seed=4)
    for _ in range(2):
        result = score("text-classifier", folder, tmp_path / "out", new_only=True)
        assert result.summary is not None
        assert result.summary["input_changes"] == {"changed": ["a.jsonl"], "deleted": ["b.jsonl"]}
        assert (result.summary["files"], result.summary["rows"]) == (4, 70)
        after = scored_files(tmp_path / "out")
        assert {name: after[name] for name in before} == before
    with pytest.raises(JobFailedError, match=r"a\.jsonl: changed after being scored, see ignore_changed"):
        score("text-classifier", folder, tmp_path / "out", new_only=True, check=True, max_rejects=1.0)
    score("text-classifier", folder, tmp_path / "out", new_only=True, check=True, max_rejects=1.0, ignore_changed=True)
    # The file is back as it was scored.
    add(folder, "a.jsonl")
    assert score("text-classifier", folder, tmp_path / "out", new_only=True).changed == []


def test_the_command_says_what_changed(
    served_bundles: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], score: Score
) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        add(folder, name)
    arguments = ["--model", NAMES["text-classifier"], "--bundles", str(served_bundles), "--device", "cpu"]
    arguments += ["--input", str(folder), "--output", str(tmp_path / "out"), "--workers", "1", "--new-only"]
    arguments += ["--max-rejects", "1"]
    assert command.main(arguments) == 0
    add(folder, "a.jsonl", 25, seed=9)
    (folder / "b.jsonl").unlink()
    for _ in range(2):
        capsys.readouterr()
        assert command.main(arguments) == 4
        assert capsys.readouterr().err.splitlines()[-2:] == [
            "a.jsonl: was changed after it was scored; its predictions stay as they are",
            "b.jsonl: was deleted after it was scored; its predictions stay as they are",
        ]
    assert command.main([*arguments, "--ignore-changed"]) == 0


@pytest.mark.parametrize("killed_at", ["register", "score", "finish"])
def test_a_job_killed_while_the_input_grows_resumes(
    killed_at: str, score: Score, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(folder, "m.jsonl")
    score("text-classifier", folder, tmp_path / "out", new_only=True)
    add(folder, "c.jsonl", 40, seed=1)

    class KilledError(BaseException):
        """Nothing catches it."""

    def kill(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        match killed_at:
            case "register":
                patch.setattr(execution, "count_passed_over", kill)
            case "score":
                commit = shard.Ledger.commit

                def commit_first(ledger: Ledger, planned: Any, *rest: Any) -> None:
                    commit(ledger, planned, *rest) if planned.number == 0 else kill()

                patch.setattr(shard.Ledger, "commit", commit_first)
            case _:
                patch.setattr(execution.Ledger, "finish", kill)
        with pytest.raises(KilledError):
            score("text-classifier", folder, tmp_path / "out", new_only=True)
    add(folder, "a.jsonl", 18, seed=2)
    result = score("text-classifier", folder, tmp_path / "out", new_only=True)
    assert result.failures == ()
    assert result.computed == {"register": 58, "score": 42, "finish": 18}[killed_at]
    score("text-classifier", folder, tmp_path / "whole")
    assert scored_files(tmp_path / "out") == scored_files(tmp_path / "whole")
    lists = [json.loads((tmp_path / f"out/_ledger/inputs-00000{i}.json").read_text())["files"] for i in range(3)]
    assert lists == [["m.jsonl"], ["c.jsonl"], ["a.jsonl"]]
    assert not (tmp_path / "out/_ledger/inputs-000003.json").exists()


def test_lost_files_are_made_again_or_the_run_fails(score: Score, folder: Path, tmp_path: Path) -> None:
    def run() -> bool:
        try:
            return score("text-classifier", folder, tmp_path / "out", new_only=True).summary is not None
        except ScoringError:
            return False

    add(folder, "m.jsonl")
    assert run()
    add(folder, "a.jsonl", 40, seed=1)
    assert run()
    expected = tree(tmp_path / "out")
    refused = set()
    for name in [name for name in expected if not name.endswith("/lock")]:
        for content in (None, expected[name][: len(expected[name]) // 2]):
            path = tmp_path / "out" / name
            path.unlink() if content is None else path.write_bytes(content)
            if run():
                assert tree(tmp_path / "out") == expected, name
            else:
                refused.add(name)
                path.write_bytes(expected[name])
                assert run()
                assert tree(tmp_path / "out") == expected, name
    assert refused <= {"_ledger/job.json", "_ledger/inputs-000000.json", "_ledger/inputs-000001.json"}
    (folder / "m.jsonl").unlink()
    next((tmp_path / "out/predictions").glob("part-00000-*")).unlink()
    with pytest.raises(ScoringError, match=r"m\.jsonl: its predictions are lost or damaged, and the file was deleted"):
        score("text-classifier", folder, tmp_path / "out", new_only=True)


def test_a_damaged_list_of_names_is_refused(score: Score, folder: Path, tmp_path: Path) -> None:
    add(folder, "m.jsonl")
    score("text-classifier", folder, tmp_path / "out", new_only=True)
    path = tmp_path / "out/_ledger/inputs-000000.json"
    path.write_text(path.read_text().replace("m.jsonl", "n.jsonl"))
    with pytest.raises(ScoringError, match=r"inputs-000000\.json is damaged"):
        score("text-classifier", folder, tmp_path / "out", new_only=True)


def test_a_bucket_grows_like_a_folder(score: Score, store: ObjectServer, folder: Path, tmp_path: Path) -> None:
    for name, rows in (("m.jsonl", 20), ("a.jsonl", 40), ("b.jsonl", 17)):
        store.put(f"in/{name}", add(folder, name, rows, seed=rows).read_bytes())
        result = score("text-classifier", store.uri("in"), store.uri("out"), new_only=True)
        assert (result.failures, result.computed) == ((), rows)
    store.put("in/a.jsonl", b'{"text": "other"}\n')
    store.delete("in/b.jsonl")
    result = score("text-classifier", store.uri("in"), store.uri("out"), new_only=True)
    assert result.summary is not None
    assert result.summary["input_changes"] == {"changed": ["a.jsonl"], "deleted": ["b.jsonl"]}
    assert (result.summary["rows"], result.computed) == (77, 0)
    assert store.endpoint.encode() not in b"".join(store.tree("out").values())


def test_types_of_new_files_fit_those_of_the_first_run(score: Score, folder: Path, tmp_path: Path) -> None:
    def write(name: str, kind: pa.DataType) -> Path:
        return write_parquet(folder / name, {"text": texts(5), "n": pa.array(range(5), kind)})

    options = {"new_only": True, "keep": ("n",)}
    write("b.parquet", pa.int32())
    score("text-classifier", folder, tmp_path / "out", **options)
    write("a.parquet", pa.int16())
    assert score("text-classifier", folder, tmp_path / "out", **options).failures == ()
    assert score("text-classifier", folder, tmp_path / "out", **options).to_table()["n"].type == pa.int32()
    path = write("c.parquet", pa.int64())
    with pytest.raises(
        ScoringError, match="column 'n' of the new files is int64, of the files scored before it is int32"
    ):
        score("text-classifier", folder, tmp_path / "out", **options)
    path.unlink()
    write_parquet(folder / "d.parquet", {"text": texts(5), "n": pa.array(range(5), pa.int32()), "m": ["x"] * 5})
    assert score("text-classifier", folder, tmp_path / "out", **options).computed == 5


def test_a_file_that_goes_before_it_is_scored_to_its_end(
    score: Score, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(folder, "a.jsonl")
    broken = folder / "b.jsonl.gz"
    broken.write_bytes(b"no gzip")
    result = score("text-classifier", folder, tmp_path / "out", new_only=True)
    assert len(result.failures) == 1
    broken.unlink()
    result = score("text-classifier", folder, tmp_path / "out", new_only=True)
    assert result.summary is not None
    assert (result.summary["files"], result.summary["input_changes"]) == (1, {"changed": [], "deleted": []})
    ledger = Ledger(tmp_path / "out")
    registry = InputRegistry(ledger)
    del registry.scored["a.jsonl"]
    (tmp_path / "out" / "_ledger" / "scored.json").write_bytes(registry.documents()["_ledger/scored.json"])
    (folder / "a.jsonl").unlink()
    add(folder, "c.jsonl")
    with pytest.raises(ScoringError, match=r"a\.jsonl: the file was deleted before it was scored to its end"):
        score("text-classifier", folder, tmp_path / "out", new_only=True)


def test_inputs_that_do_not_grow_by_files_are_refused(score: Score, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pictures = write_folder(tmp_path / "pictures", images(3))
    with pytest.raises(ScoringError, match="--new-only: pictures: a folder of images is one input"):
        score("image-classifier", pictures, out, new_only=True)
    table = write_delta(tmp_path / "table", {"text": texts(3)})
    with pytest.raises(ScoringError, match=r"--new-only: table@0/.*: a table is read at one version"):
        score("text-classifier", table, out, new_only=True)
    with pytest.raises(ScoringError, match="new_only: a Table does not grow"):
        score("text-classifier", pa.table({"text": texts(3)}), out, new_only=True)
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        write_csv(tmp_path / name / "a.csv", {"text": texts(3)})
    with pytest.raises(ScoringError, match="two inputs hold a file of this name"):
        score("text-classifier", [tmp_path / "x", tmp_path / "y"], out, new_only=True)
    with pytest.raises(ScoringError, match="--new-only, --limit"):
        score("text-classifier", tmp_path / "x", out, new_only=True, limit=2)
    assert not out.exists()


def test_an_output_belongs_to_a_job_with_or_without_the_option(score: Score, folder: Path, tmp_path: Path) -> None:
    add(folder, "a.jsonl")
    score("text-classifier", folder, tmp_path / "out")
    with pytest.raises(ScoringError, match=r"belongs to another job .*new_only was None, is True"):
        score("text-classifier", folder, tmp_path / "out", new_only=True)
    os.utime(folder / "a.jsonl")
    assert score("text-classifier", folder, tmp_path / "out").failures == ()
