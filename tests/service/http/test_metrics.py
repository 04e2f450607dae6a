"""What is counted is shown as Prometheus reads it, and workers add up."""

import asyncio
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from service.engine.counters import Counters
from service.http import metrics
from service.http.metrics import FAMILIES, Samples, Sharing, exposition, samples
from service.http.traffic import Traffic
from tests.e2e.serving import until


def a_host() -> Any:
    counters = Counters(model="m", version="v", requests=3, items=5, executed_items=4, batches=3, inline_batches=1)
    counters.refused["overloaded"] = 2
    counters.compute_s.add(0.000003)
    counters.queued_items = 7
    counters.decoder_steps = 9
    traffic = Traffic()
    traffic.count("/classify", 200, 0.5)
    traffic.in_flight = 1
    rows = [{"name": "m", "version": "v", "state": "READY"}, {"name": "n", "version": "w", "state": "FAILED"}]
    return SimpleNamespace(
        runner=SimpleNamespace(counters=lambda: [counters]),
        repository=SimpleNamespace(ready=True, list_models=lambda: rows),
        traffic=traffic,
        draining=False,
        sharing=None,
    )


def read(found: Samples) -> dict[str, float]:
    """As Prometheus would: NAME{labels} -> value."""
    families = text_string_to_metric_families(exposition(found).decode())
    return {
        sample.name + "".join(f",{value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def test_counters_are_shown() -> None:
    shown = read(samples(a_host()))
    assert shown["ekiben_http_requests_total,/classify,200"] == 1
    assert shown["ekiben_http_in_flight"] == 1
    assert shown["ekiben_ready_workers"] == 1
    assert shown["ekiben_model_ready,m,v"] == 1
    assert "ekiben_model_ready,n,w" not in shown
    assert shown["ekiben_engine_items_total,m,executed,v"] == 4
    assert shown["ekiben_engine_refused_total,m,overloaded,v"] == 2
    assert shown["ekiben_engine_batches_total,inline,m,v"] == 1
    assert shown["ekiben_engine_batches_total,thread,m,v"] == 2
    assert shown["ekiben_engine_queue_items,m,v"] == 7
    assert shown["ekiben_engine_decoder_steps_total,m,v"] == 9
    assert shown["ekiben_engine_compute_seconds_count,m,v"] == 1
    assert shown["ekiben_engine_compute_seconds_bucket,2e-06,m,v"] == 0
    assert shown["ekiben_engine_compute_seconds_bucket,4e-06,m,v"] == 1
    assert shown["ekiben_engine_compute_seconds_bucket,+Inf,m,v"] == 1


def test_every_family_is_known() -> None:
    assert {family for family, *_ in samples(a_host())} <= set(FAMILIES)


def test_a_service_that_leaves_is_not_ready() -> None:
    host = a_host()
    host.draining = True
    assert read(samples(host))["ekiben_ready_workers"] == 0


def other(folder: Path, pid: int, found: Samples) -> None:
    """What a worker of that process would leave."""
    sharing = Sharing(folder)
    sharing._own = folder / f"{pid}.json"
    sharing.leave(found)


def test_workers_add_up_and_the_dead_keep_their_counts(tmp_path: Path) -> None:
    own = samples(a_host())
    ended = subprocess.Popen(["true"])
    ended.wait()
    other(tmp_path, os.getppid(), own)
    other(tmp_path, ended.pid, own)
    sharing = Sharing(tmp_path)
    sharing.leave(own)  # its own file is not counted twice
    shown = read(sharing.merged(own))
    assert shown["ekiben_http_requests_total,/classify,200"] == 3
    assert shown["ekiben_engine_compute_seconds_bucket,4e-06,m,v"] == 3
    assert shown["ekiben_ready_workers"] == 2
    assert shown["ekiben_engine_queue_items,m,v"] == 14


def test_samples_are_left_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SHARE_EVERY_S", 0.001)
    host = a_host()

    async def scene() -> None:
        task = asyncio.create_task(Sharing(tmp_path).keep(host))
        await asyncio.sleep(0.02)
        host.traffic.count("/classify", 200, 0.5)
        task.cancel()
        await task

    asyncio.run(scene())
    assert b'"status","200"]],2]' in (tmp_path / f"{os.getpid()}.json").read_bytes()


def test_a_folder_that_cannot_be_written_is_said_once_and_written_when_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(metrics, "SHARE_EVERY_S", 0.001)
    folder = tmp_path / "shared"
    tried = []
    host = a_host()

    def described() -> list[dict[str, str]]:
        tried.append(1)
        return []

    async def tries(num: int) -> None:
        before = len(tried)
        await until(lambda: len(tried) >= before + num)

    async def scene() -> None:
        host.repository.list_models = described
        folder.write_text("")  # where the folder was
        task = asyncio.create_task(Sharing(folder).keep(host))
        await tries(5)
        folder.unlink()
        await tries(2)
        assert (folder / f"{os.getpid()}.json").exists()
        task.cancel()
        await task

    with caplog.at_level("INFO"):
        asyncio.run(scene())
    assert [record.levelname for record in caplog.records if record.name == metrics.__name__] == ["ERROR", "INFO"]
    assert "cannot write" in caplog.text


def test_the_application_shows_its_own(client: TestClient) -> None:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert 'ekiben_model_ready{model="tiny-images"' in answer.text
