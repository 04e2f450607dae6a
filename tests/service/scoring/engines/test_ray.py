"""Ray writes the same bytes as one process: on a cluster that loses a node, and on one that grows."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service.bundles import NAMES
from tests.service.scoring.conftest import Score, tree
from tests.service.scoring.inputs import texts, write_text
from tests.service.scoring.object_server import ObjectServer

pytest.importorskip("ray")

ROOT = Path(__file__).parents[4]
MakeInput = Callable[[str, int], tuple[str, Path]]
CLUSTER = """
import pathlib, sys, threading, time
import ray
from ray.cluster_utils import Cluster
from service.scoring.run import score

model, bundles, source, output = sys.argv[1:]
fast_checks = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
head = {"num_cpus": 1, "include_dashboard": False, "_system_config": fast_checks}
cluster = Cluster(initialize_head=True, head_node_args=head)
lost = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
ray.init(address=cluster.address, log_to_driver=False)

def lose_a_node():
    records = pathlib.Path(output) / "_ledger" / "shards"
    while len(list(records.glob("*.json"))) < 4:
        time.sleep(0.01)
    cluster.remove_node(lost, allow_graceful=False)
    print("\\nlost", flush=True)

threading.Thread(target=lose_a_node, daemon=True).start()
result = score(model, [source], output, bundles=bundles, engine="ray", device="cpu", shard_rows=16)
# The head notices a lost node at its next health checks.
deadline = time.monotonic() + 30
while (alive := sum(node["Alive"] for node in ray.nodes())) > 1 and time.monotonic() < deadline:
    time.sleep(0.1)
pathlib.Path(output + ".result").write_text(f"{len(result.failures)} {len(ray.nodes())} {alive}")
ray.shutdown()
cluster.shutdown()
"""


def test_lost_node_changes_no_output(score: Score, served_bundles: Path, tmp_path: Path) -> None:
    source = write_text(tmp_path / "a.txt", texts(640))
    score("text-classifier", source, tmp_path / "here")
    arguments = [NAMES["text-classifier"], str(served_bundles), str(source), str(tmp_path / "out")]
    job = subprocess.run(
        [sys.executable, "-c", CLUSTER, *arguments],
        cwd=ROOT,
        # The nodes inherit the path.
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert job.returncode == 0, job.stderr[-3000:]
    assert "lost" in job.stdout
    # The result is in a file because Ray writes to standard output too.
    assert (tmp_path / "out.result").read_text() == "0 2 1"
    assert tree(tmp_path / "out") == tree(tmp_path / "here")


ON_RAY = """
import sys
from service.scoring.run import score

model, bundles, source, output = sys.argv[1:]
result = score(model, [source], output, bundles=bundles, engine="ray", workers=2, device="cpu", shard_rows=16)
sys.exit(str(result.failures) if result.failures else 0)
"""


def test_a_cluster_reads_and_writes_an_object_store(
    score: Score, served_bundles: Path, server: ObjectServer, tmp_path: Path
) -> None:
    source = write_text(tmp_path / "a.txt", texts(160))
    server.put("in/a.txt", source.read_bytes())
    score("text-classifier", server.uri("in"), server.uri("here"))
    arguments = [NAMES["text-classifier"], str(served_bundles), server.uri("in"), server.uri("out")]
    job = subprocess.run(
        [sys.executable, "-c", ON_RAY, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert job.returncode == 0, job.stderr[-3000:]
    assert len(server.tree("out")) == 25
    assert server.tree("out") == server.tree("here")


PASS_ON_RAY = """
import sys
from service.scoring.run import score

bundles, source, output = sys.argv[1:]
options = {"engine": "ray", "workers": 2, "device": "cpu", "shard_rows": 16, "request": {"max_tokens": 2}}
score(["tiny-texts", "tiny-letters"], [source], output, bundles=bundles, **options)
"""


def test_a_cluster_scores_several_models_in_one_pass(score: Score, served_bundles: Path, tmp_path: Path) -> None:
    source = write_text(tmp_path / "a.txt", texts(80))
    requests = {"text-classifier": {}, "language-model": {"max_tokens": 2}}
    for family, request in requests.items():
        score(family, source, tmp_path / NAMES[family], request=request)
    job = subprocess.run(
        [sys.executable, "-c", PASS_ON_RAY, str(served_bundles), str(source), str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert job.returncode == 0, job.stderr[-3000:]
    for family in requests:
        assert tree(tmp_path / "out" / NAMES[family]) == tree(tmp_path / NAMES[family])


GROWING = """
import pathlib, sys, threading, time
import ray
from ray.cluster_utils import Cluster
from service.scoring.run import score

model, bundles, source, output = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
ray.init(address=cluster.address, log_to_driver=False)
counts, results = set(), []
options = {"bundles": bundles, "engine": "ray", "device": "cpu", "shard_rows": 8, "check": False}

def run():
    results.append(score(model, [source], output, on_progress=lambda snapshot: counts.add(snapshot.workers), **options))

job = threading.Thread(target=run, daemon=True)
job.start()
while not counts:
    time.sleep(0.1)
# Shards wait, which is what has an autoscaler add a node.
cluster.add_node(num_cpus=2)
job.join()
pathlib.Path(output + ".result").write_text(f"{len(results[0].failures)} {sorted(counts)}")
ray.shutdown()
cluster.shutdown()
"""


def test_shards_in_flight_follow_a_cluster_that_grows(score: Score, served_bundles: Path, tmp_path: Path) -> None:
    """A cluster without a core gets a node of two while the job runs."""
    source = write_text(tmp_path / "a.txt", texts(240))
    score("text-classifier", source, tmp_path / "here", shard_rows=8)
    arguments = [NAMES["text-classifier"], str(served_bundles), str(source), str(tmp_path / "out")]
    job = subprocess.run(
        [sys.executable, "-c", GROWING, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert job.returncode == 0, job.stderr[-3000:]
    assert (tmp_path / "out.result").read_text() == "0 [1, 2]"
    assert tree(tmp_path / "out") == tree(tmp_path / "here")
