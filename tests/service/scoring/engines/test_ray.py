"""Ray writes the same bytes as one process: on a cluster that loses a node, and on one that grows."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.bundles import NAMES
from tests.service.scoring.conftest import Score, tree
from tests.service.scoring.engines.started_cluster import ray_environment, started_cluster
from tests.service.scoring.inputs import texts, write_text
from tests.service.scoring.object_server import CREDENTIALS, ObjectServer

pytest.importorskip("ray")

ROOT = Path(__file__).parents[4]
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


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[dict[str, str]]:
    """No test of this file joins a cluster that somebody else runs on this machine."""
    with ray_environment() as environment, pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment


def run_script(script: str, arguments: list[str]) -> str:
    """Run a script that starts a cluster of its own, in a process of its own; return what it printed."""
    job = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        # The nodes inherit the path.
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert job.returncode == 0, job.stderr[-3000:]
    return job.stdout


def test_lost_node_changes_no_output(score: Score, served_bundles: Path, tmp_path: Path) -> None:
    source = write_text(tmp_path / "a.txt", texts(640))
    score("text-classifier", source, tmp_path / "here")
    arguments = [NAMES["text-classifier"], str(served_bundles), str(source), str(tmp_path / "out")]
    printed = run_script(CLUSTER, arguments)
    assert "lost" in printed
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
options = {"engine": "ray", "ray_address": "local", "workers": 2, "device": "cpu", "shard_rows": 16}
options["request"] = {"max_tokens": 2}
score(["tiny-texts", "tiny-letters"], [source], output, bundles=bundles, **options)
"""


def test_a_cluster_scores_several_models_in_one_pass(score: Score, served_bundles: Path, tmp_path: Path) -> None:
    """Its address `local` counts more than RAY_ADDRESS."""
    source = write_text(tmp_path / "a.txt", texts(80))
    requests = {"text-classifier": {}, "language-model": {"max_tokens": 2}}
    for family, request in requests.items():
        score(family, source, tmp_path / NAMES[family], request=request)
    job = subprocess.run(
        [sys.executable, "-c", PASS_ON_RAY, str(served_bundles), str(source), str(tmp_path / "out")],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:1"},
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
    run_script(GROWING, arguments)
    assert (tmp_path / "out.result").read_text() == "0 [1, 2]"
    assert tree(tmp_path / "out") == tree(tmp_path / "here")


@pytest.fixture(scope="module")
def cluster(environment: dict[str, str]) -> Iterator[str]:
    """A cluster that `ray start` has started. It has no credentials of a store."""
    with started_cluster(environment, num_cpus=2) as cluster:
        yield cluster


def run_on(address: str, runtime_env: str, *arguments: str, bundles: Path, cwd: Path = ROOT) -> tuple[int, str]:
    """Run the command on a cluster; return its exit code and what it says."""
    command = [sys.executable, "-m", "service.scoring", "--model", NAMES["text-classifier"], "--device", "cpu"]
    command += ["--bundles", str(bundles), "--engine", "ray", "--ray-address", address, "--shard-rows", "16"]
    command += ["--ray-runtime-env", runtime_env, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_started_cluster_writes_to_a_store_in_its_runtime_environment(
    cluster: str, score: Score, served_bundles: Path, server: ObjectServer, tmp_path: Path
) -> None:
    """Only the runtime environment gives the nodes the credentials."""
    server.put("in/a.txt", write_text(tmp_path / "a.txt", texts(160)).read_bytes())
    score("text-classifier", server.uri("in"), server.uri("here"))
    places = ("--input", server.uri("in"), "--output", server.uri("out"))
    runtime_env = tmp_path / "env.json"
    runtime_env.write_text(json.dumps({"env_vars": {**CREDENTIALS, "PYTHONPATH": str(ROOT)}}))
    code, printed = run_on(cluster, str(runtime_env), *places, bundles=served_bundles)
    assert code == 0, printed
    assert server.tree("out") == server.tree("here")


def test_without_its_runtime_environment_a_cluster_cannot_write_to_the_store(
    cluster: str, served_bundles: Path, server: ObjectServer, tmp_path: Path
) -> None:
    server.put("in/a.txt", write_text(tmp_path / "a.txt", texts(16)).read_bytes())
    places = ("--input", server.uri("in"), "--output", server.uri("out"))
    runtime_env = json.dumps({"env_vars": {"PYTHONPATH": str(ROOT)}})
    code, printed = run_on(cluster, runtime_env, *places, bundles=served_bundles)
    assert (code, "failed: " in printed) == (1, True), printed


def test_a_working_directory_brings_the_bundles(
    cluster: str, score: Score, served_bundles: Path, tmp_path: Path
) -> None:
    source = write_text(tmp_path / "a.txt", texts(64))
    score("text-classifier", source, tmp_path / "here")
    copied = tmp_path / "project"
    shutil.copytree(ROOT / "service", copied / "service", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(served_bundles, copied / "models")
    places = ("--input", str(source), "--output", str(tmp_path / "out"))
    code, printed = run_on(cluster, '{"working_dir": "."}', *places, bundles=Path("models"), cwd=copied)
    assert code == 0, printed
    assert tree(tmp_path / "out") == tree(tmp_path / "here")


def test_what_ray_refuses_is_said(
    cluster: str, served_bundles: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places = ("--input", str(write_text(tmp_path / "a.txt", texts(3))), "--output", str(tmp_path / "out"))
    code, printed = run_on(cluster, '{"env_vars": 3}', *places, bundles=served_bundles)
    assert code == 1
    assert f"--ray-address {cluster}: cannot connect, or the runtime environment is invalid: TypeE" in printed
    monkeypatch.delenv("RAY_AUTH_MODE")
    code, printed = run_on(cluster, "{}", *places, bundles=served_bundles)
    assert code == 1
    assert "; a cluster that `ray start` has protected by a token needs RAY_AUTH_MODE=token" in printed
