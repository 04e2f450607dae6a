"""Caches on the host and on a device hold the same, bit by bit; the device is the CPU here."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from service.contract.heads import LanguageModelHead
from service.engine.generation import kv_cache
from service.engine.generation.kv_cache import BatchCache, RowCache, read_prompt
from service.engine.sessions import key_values
from service.engine.sessions.key_values import DeviceKeyValues, HostKeyValues, KeyValues, create_key_values
from service.engine.sessions.session import Session
from service.manifest import Invariance
from tests.service.bundles import CONTEXT
from tests.service.engine.gpu.host_memory import HostMemory

HEAD = LanguageModelHead(layers=2, heads=3, head_size=4)
KINDS = (HostKeyValues, lambda head: DeviceKeyValues(head, HostMemory()))


def tokens(value: float, length: int) -> key_values.TokenValues:
    return tuple(value + np.arange(3 * length * 4, dtype=np.float32).reshape(3, length, 4) for _ in range(4))


@pytest.mark.parametrize("create", KINDS)
def test_rows_keep_their_values_when_the_caches_grow(create: Callable[[LanguageModelHead], KeyValues]) -> None:
    values = create(HEAD)
    values.resize(1, 4)
    values.write(0, 1, tokens(100, 3))
    values.resize(3, 4)
    values.write(2, 0, tokens(200, 4))
    values.resize(3, 8)
    values.write(2, 4, tokens(300, 4))
    for slot, first, stop, expected in (
        (0, 1, 4, tokens(100, 3)),
        (2, 0, 4, tokens(200, 4)),
        (2, 4, 8, tokens(300, 4)),
    ):
        for actual, value in zip(values.read(slot, first, stop), expected, strict=True):
            np.testing.assert_array_equal(actual, value)
    assert not any(part.any() for part in values.read(1, 0, 8))


def test_caches_on_a_device_that_cannot_grow_keep_their_values() -> None:
    memory = HostMemory()
    values = DeviceKeyValues(HEAD, memory)
    values.resize(1, 4)
    values.write(0, 0, tokens(100, 4))
    before = memory.num_bytes
    memory.max_bytes = 3 * before
    with pytest.raises(MemoryError):
        values.resize(2, 8)
    assert memory.num_bytes == before
    for actual, value in zip(values.read(0, 0, 4), tokens(100, 4), strict=True):
        np.testing.assert_array_equal(actual, value)
    memory.max_bytes = 1 << 40
    values.resize(2, 8)
    for actual, value in zip(values.read(0, 0, 4), tokens(100, 4), strict=True):
        np.testing.assert_array_equal(actual, value)
    del values
    assert memory.num_bytes == 0


def test_caches_on_the_host_that_cannot_grow_keep_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    values = HostKeyValues(HEAD)
    values.resize(1, 4)
    values.write(0, 0, tokens(100, 4))
    zeros, created = np.zeros, list[Any]()

    def lacks_memory_for_the_second(*args: Any) -> np.ndarray:
        created.append(args)
        if len(created) > 1:
            raise MemoryError
        return zeros(*args)

    with monkeypatch.context() as patched:
        patched.setattr(np, "zeros", lacks_memory_for_the_second)
        with pytest.raises(MemoryError):
            values.resize(2, 8)
    assert {part.shape for part in values.parts.values()} == {(1, 3, 4, 4)}
    for actual, value in zip(values.read(0, 0, 4), tokens(100, 4), strict=True):
        np.testing.assert_array_equal(actual, value)


@pytest.mark.parametrize("create", KINDS)
def test_a_row_is_copied_from_other_caches_and_within(create: Callable[[LanguageModelHead], KeyValues]) -> None:
    source, values = create(HEAD), create(HEAD)
    source.resize(2, 4)
    source.write(1, 0, tokens(7, 4))
    values.resize(2, 8)
    values.copy_row(0, source, 1, 3)
    values.copy_row(1, values, 0, 2)
    for slot, length in ((0, 3), (1, 2)):
        for actual, value in zip(values.read(slot, 0, 8), tokens(7, 4), strict=True):
            np.testing.assert_array_equal(actual[:, :length], value[:, :length])
            assert not actual[:, length:].any()


@pytest.fixture(
    params=[
        Invariance(level="bitwise", measured=0, how=""),
        Invariance(level="bitwise", measured=0, how="", strategy="minimum-batch-2"),
        Invariance(level="bitwise", measured=0, how="", strategy="batch-buckets", bounds=(4,)),
    ],
    ids=lambda invariance: invariance.strategy,
)
def session(sessions: dict[str, Session], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Session:
    shared = sessions["language-model"]
    monkeypatch.setattr(shared, "manifest", shared.manifest.model_copy(update={"invariance": request.param}))
    return shared


def decode(session: Session) -> list[np.ndarray]:
    """The logits of prompts, of steps in a batch whose rows come and go, and the caches in the end."""
    head = session.manifest.head
    assert isinstance(head, LanguageModelHead)
    prompts = [np.arange(size) % 20 for size in (5, 1, 40, 60)]
    batch, results = BatchCache(head, 64), []
    for prompt in prompts:
        row = RowCache(head, CONTEXT)
        while row.length < len(prompt):
            results.append(row.read_chunk(session, prompt))
        batch.add(row.values, 0, len(prompt))
        results.append(batch.step(session, [1, 2, 3, 4][: batch.num_rows]))
    larger = BatchCache(head, 128)
    larger.add(batch.values, 3, 61)
    batch.remove(3)
    batch.remove(0)
    results += [larger.step(session, [9]), batch.step(session, [5, 6])]
    results += [part for cache in (batch, larger) for part in cache.values.read(0, 0, 7)]
    return results


def test_a_device_computes_the_bits_of_the_host(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = decode(session)
    monkeypatch.setattr(kv_cache, "create_key_values", lambda head, _device: DeviceKeyValues(head, HostMemory()))
    actual = decode(session)
    assert isinstance(read_prompt(session, np.arange(3)).values, DeviceKeyValues)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_failing_run_says_which_model_it_was(sessions: dict[str, Session]) -> None:
    session = sessions["language-model"]
    values = DeviceKeyValues(HEAD, HostMemory())
    values.resize(1, 64)
    with pytest.raises(RuntimeError, match=f"^{session.manifest.name}/{session.manifest.version}: the graph failed: "):
        values.extend(session, np.array([[1]]), np.array([0]))
    assert session.longest_run_s() == 0


def test_the_host_is_used_on_a_cpu_and_for_odd_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_values, "cuda_memory", HostMemory)
    assert isinstance(create_key_values(HEAD, "cpu"), HostKeyValues)
    assert isinstance(create_key_values(HEAD, "cuda"), DeviceKeyValues)
    assert isinstance(create_key_values(HEAD.model_copy(update={"head_size": 6}), "cuda"), HostKeyValues)
