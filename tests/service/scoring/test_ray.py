"""Two nodes, one of them lost in the middle: the bytes are those of one process."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service.bundles import NAMES
from tests.service.scoring.conftest import Score, tree
from tests.service.scoring.inputs import texts, write_text

pytest.importorskip("ray")

ROOT = Path(__file__).parents[3]
Make = Callable[[str, int], tuple[str, Path]]
CLUSTER = """
import pathlib, sys, threading, time
import ray
from ray.cluster_utils import Cluster
from service.scoring.run import score

model, bundles, source, output = sys.argv[1:]
prompt = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
head = {"num_cpus": 1, "include_dashboard": False, "_system_config": prompt}
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
until = time.monotonic() + 30  # the head notices a lost node at its next health checks
while (alive := sum(node["Alive"] for node in ray.nodes())) > 1 and time.monotonic() < until:
    time.sleep(0.1)
pathlib.Path(output + ".result").write_text(f"{len(result.failures)} {len(ray.nodes())} {alive}")
ray.shutdown()
cluster.shutdown()
"""


def test_a_node_is_lost_and_nothing_else(score: Score, served_bundles: Path, tmp_path: Path) -> None:
    source = write_text(tmp_path / "a.txt", texts(640))
    score("text-classifier", source, tmp_path / "here")
    arguments = [NAMES["text-classifier"], str(served_bundles), str(source), str(tmp_path / "out")]
    job = subprocess.run(
        [sys.executable, "-c", CLUSTER, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},  # the nodes inherit it
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert job.returncode == 0, job.stderr[-3000:]
    assert "lost" in job.stdout
    assert (tmp_path / "out.result").read_text() == "0 2 1"  # the cluster's own words share the standard output
    assert tree(tmp_path / "out") == tree(tmp_path / "here")
