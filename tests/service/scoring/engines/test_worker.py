"""The events that a worker writes to its standard output."""

import json
import subprocess
import sys
from pathlib import Path

from service.scoring.input.files import list_files
from service.scoring.job import JOBS
from service.scoring.job_options import resolve_job
from service.scoring.model import read_manifest, resolve_version
from service.scoring.output.ledger import Ledger
from service.scoring.plan import SharedShard, plan
from tests.service.scoring.inputs import texts, write_csv

ROOT = Path(__file__).parents[4]


def test_worker_scores_its_shards_and_ends_with_its_input(served_bundles: Path, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", {"text": [*texts(5), ""]})
    files = list_files([str(source)], output=tmp_path / "out", input_format=None)
    manifest = read_manifest(served_bundles, *resolve_version("tiny-texts", served_bundles))
    job = resolve_job(
        manifest,
        files,
        bundles=served_bundles,
        inputs=(str(source),),
        output=tmp_path / "out",
        sink="csv",
        columns={},
        id_column=None,
        keep=(),
        header=True,
        request={},
        shard_rows=4,
        limit=None,
        device="cpu",
    )
    ledger = Ledger(job.output)
    ledger.open_job(job, ["a.csv"])
    ledger.resume()
    shards = [shard for shard in plan({0: job}, files) if isinstance(shard, SharedShard)]
    lines = [JOBS.dump_json((job,)).decode(), *(json.dumps(shard.to_json()) for shard in [*shards, shards[0]])]
    worker = subprocess.run(
        [sys.executable, "-m", "service.scoring.engines.worker"],
        cwd=ROOT,
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    events = [json.loads(line) for line in worker.stdout.splitlines()]
    final = [event["event"] for event in events if event["event"] != "progress"]
    assert final == ["ready", "done", "done", "done"]
    assert sum(event["rows"] for event in events) == 6
    assert sum(event["rejects"] for event in events) == 1
    assert "a.csv, row 5: text: expected a non-empty text" in worker.stderr
    assert [record.scored for record in ledger.records()] == [4, 1]
    ledger.close()
