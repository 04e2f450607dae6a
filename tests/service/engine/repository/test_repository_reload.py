"""20 versions, 3 of them broken, are published under the load of 64 clients: every response is right."""

import asyncio
import gc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from service.engine.repository.repository import Repository
from service.engine.runner import Runner
from tests.service.engine.versions import (
    NAME,
    loader,
    logits,
    publish,
    publish_broken,
    row,
    set_current,
    wait_until,
    wrong_golden,
)

NUM_CLIENTS, NUM_VERSIONS = 64, 20
BROKEN = (5, 11, 17)


class Load:
    """Clients that send requests without a pause and check every result against its version."""

    def __init__(self, repository: Repository, runner: Runner) -> None:
        self.repository = repository
        self.runner = runner
        self.numbers: dict[str, int] = {}  # by version
        self.answers: Counter[str] = Counter()
        self.corrupt: list[str] = []
        self.stop = asyncio.Event()

    async def client(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not self.stop.is_set():
            images = rng.integers(0, 256, (int(rng.integers(1, 5)), 4, 4), dtype=np.uint8)
            model = self.repository.get(NAME)
            answer = await self.runner.run(model.session, {"images": images}, ["logits"])
            version = model.manifest.version
            del model
            self.answers[version] += 1
            if not np.allclose(answer["logits"], logits(images, self.numbers[version]), atol=1e-3):
                self.corrupt.append(version)
            await asyncio.sleep(0)

    async def wait_for_answers(self, version: str, times: int) -> None:
        end = self.answers[version] + times
        while self.answers[version] < end:
            await asyncio.sleep(0.001)


def swap(root: Path, repository: Repository, load: Load, number: int) -> str:
    """Publish a version and wait until it serves or has failed; return the version that serves."""
    before: str = row(repository)["version"]
    if number not in BROKEN:
        (version,) = {publish_known(root, load, number)}
        wait_until(lambda: row(repository)["version"] == version)
        return version
    match BROKEN.index(number):
        case 0:
            publish_broken(root, number)
        case 1:
            publish(root, number, files=wrong_golden(number))
        case _:
            set_current(root, "0123456789ab")
    wait_until(lambda: (row(repository)["next"] or {}).get("state") == "FAILED")
    return before


def publish_known(root: Path, load: Load, number: int) -> str:
    """Publish a version whose number the clients know before it serves."""
    staging = root.with_name("drafts")
    staging.mkdir(exist_ok=True)
    load.numbers[publish(staging, number)] = number
    return publish(root, number)


@pytest.mark.timeout(120)
def test_versions_are_replaced_under_load(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "bundles"
    root.mkdir()
    runner = Runner(threads=2)
    repository = Repository(root, loader(), poll_s=0.01, health_check_s=0.2)

    async def scenario() -> Load:
        load = Load(repository, runner)
        first = publish_known(root, load, 0)
        await asyncio.to_thread(repository.start)
        await asyncio.to_thread(wait_until, lambda: repository.ready)
        clients = [asyncio.create_task(load.client(seed)) for seed in range(NUM_CLIENTS)]
        await load.wait_for_answers(first, NUM_CLIENTS)
        for number in range(1, NUM_VERSIONS + 1):
            serving = await asyncio.to_thread(swap, root, repository, load, number)
            await load.wait_for_answers(serving, NUM_CLIENTS)
            assert repository.ready
        load.stop.set()
        await asyncio.gather(*clients)
        return load

    load = asyncio.run(scenario())
    assert load.corrupt == []
    assert set(load.answers) == set(load.numbers), "every intact version served, and no broken one"
    assert len(load.numbers) == 1 + NUM_VERSIONS - len(BROKEN)
    assert min(load.answers.values()) >= NUM_CLIENTS
    assert caplog.text.count("is still being served") == len(BROKEN)
    # The closed event loop leaves cycles that hold versions.
    gc.collect()
    wait_until(lambda: row(repository)["draining"] == [])
    repository.close()
    runner.close()
