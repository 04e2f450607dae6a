"""Samples of several workers add up."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from service.http.telemetry import multiprocess
from service.http.telemetry.exposition import Samples
from service.http.telemetry.multiprocess import MultiprocessMetrics
from tests.e2e.serving import eventually
from tests.service.http.telemetry.prometheus import scrape

SAMPLES: Samples = {
    ("ekiben_http_requests", "_total", (("route", "/classify"), ("status", "200"))): 1,
    ("ekiben_engine_compute_seconds", "_bucket", (("model", "m"), ("version", "v"), ("le", "4e-06"))): 1,
    ("ekiben_ready_workers", "", ()): 1,
    ("ekiben_engine_queue_items", "", (("model", "m"), ("version", "v"))): 7,
    ("ekiben_engine_last_request_timestamp_seconds", "", (("model", "m"), ("version", "v"))): 50,
}


def publish_as(pid: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish the samples as the process `pid` would."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: pid)
        MultiprocessMetrics(folder).publish(SAMPLES)


def test_workers_add_up_and_counters_of_ended_workers_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    publish_as(os.getppid(), tmp_path, monkeypatch)
    publish_as(ended.pid, tmp_path, monkeypatch)
    metrics = MultiprocessMetrics(tmp_path)
    metrics.publish(SAMPLES)  # must not be counted twice
    seen = scrape(metrics.merge(SAMPLES))
    assert seen["ekiben_http_requests_total,/classify,200"] == 3
    assert seen["ekiben_engine_compute_seconds_bucket,4e-06,m,v"] == 3
    assert seen["ekiben_ready_workers"] == 2
    assert seen["ekiben_engine_queue_items,m,v"] == 14


def test_of_the_times_of_last_requests_the_latest_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_as(os.getppid(), tmp_path, monkeypatch)
    key = "ekiben_engine_last_request_timestamp_seconds", "", (("model", "m"), ("version", "v"))
    for mine, latest in ((49, 50), (51, 51)):
        assert MultiprocessMetrics(tmp_path).merge({key: mine})[key] == latest


def test_samples_are_published_about_once_a_second() -> None:
    assert 0.5 <= multiprocess.PUBLISH_INTERVAL_S <= 2


def test_samples_are_published_repeatedly_and_once_more_on_cancellation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiprocess, "PUBLISH_INTERVAL_S", 0.001)
    samples = dict(SAMPLES)

    async def main() -> None:
        task = asyncio.create_task(MultiprocessMetrics(tmp_path).run(lambda: samples))
        await asyncio.sleep(0.02)
        samples["ekiben_http_requests", "_total", (("route", "/classify"), ("status", "200"))] = 2
        task.cancel()
        await task

    asyncio.run(main())
    assert b'"status","200"]],2]' in (tmp_path / f"{os.getpid()}.json").read_bytes()


def test_a_folder_that_cannot_be_written_is_logged_once_and_so_is_the_recovery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(multiprocess, "PUBLISH_INTERVAL_S", 0.001)
    folder = tmp_path / "shared"
    attempts = []

    def collect() -> Samples:
        attempts.append(1)
        return SAMPLES

    async def wait_for_attempts(num: int) -> None:
        before = len(attempts)
        await eventually(lambda: len(attempts) >= before + num)

    async def main() -> None:
        folder.write_text("")  # a file in place of the folder
        task = asyncio.create_task(MultiprocessMetrics(folder).run(collect))
        await wait_for_attempts(5)
        folder.unlink()
        await wait_for_attempts(2)
        assert (folder / f"{os.getpid()}.json").exists()
        task.cancel()
        await task

    with caplog.at_level("INFO"):
        asyncio.run(main())
    levels = [record.levelname for record in caplog.records if record.name == multiprocess.__name__]
    assert levels == ["ERROR", "INFO"]
    assert "cannot write" in caplog.text
