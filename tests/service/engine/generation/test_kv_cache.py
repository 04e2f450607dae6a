"""Caches of rows and batches, and the shapes at which they are computed."""

import numpy as np
import pytest

from service.contract.heads import LanguageModelHead
from service.engine.generation.kv_cache import BatchCache, RowCache, chunk_capacity, read_prompt, token_bytes
from service.engine.sessions.session import Session
from tests.service.bundles import CONTEXT

HEAD = LanguageModelHead(layers=2, heads=3, head_size=4)


def row(value: float, length: int) -> RowCache:
    cache = RowCache(HEAD, CONTEXT)
    cache.append((np.full((3, length, 4), value, np.float32),) * 4)
    return cache


@pytest.mark.parametrize(("first", "capacity"), [(0, 64), (32, 64), (64, 128), (96, 128), (128, 150)])
def test_the_capacity_of_a_chunk_follows_from_its_position(first: int, capacity: int) -> None:
    assert chunk_capacity(first, 150) == capacity


def test_the_bytes_of_a_token() -> None:
    assert token_bytes(HEAD) == 2 * 2 * 3 * 4 * 4


@pytest.fixture
def session(sessions: dict[str, Session]) -> Session:
    return sessions["language-model"]


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 64, 100, CONTEXT])
def test_a_prompt_read_in_chunks_has_the_keys_of_a_single_run(session: Session, size: int) -> None:
    ids = np.arange(size) % 20
    empty = {
        spec.name: np.zeros((1, spec.shape[1], 0, spec.shape[3]), np.float32)  # type: ignore[arg-type]
        for spec in session.manifest.inputs[2:]
    }
    outputs = session.run({"ids": ids[None], "past_lengths": np.zeros(1, np.int64), **empty})
    cache = read_prompt(session, ids)
    assert cache.length == size
    for part, cache_1HCK in cache.parts.items():
        np.testing.assert_allclose(cache_1HCK[:, :, :size], outputs[f"new_{part}"], atol=1e-5)


def test_padding_changes_no_bit_of_a_chunk(session: Session) -> None:
    head = session.manifest.head
    assert isinstance(head, LanguageModelHead)
    short, whole = (RowCache(head, CONTEXT) for _ in range(2))
    ids = np.arange(32) % 20
    logits, expected = short.read_chunk(session, ids[:7]), whole.read_chunk(session, ids)
    np.testing.assert_array_equal(logits, expected[:7])
    for part in short.parts:
        np.testing.assert_array_equal(short.parts[part][:, :, :7], whole.parts[part][:, :, :7])
    assert (short.length, whole.length) == (7, 32)


def test_rows_of_a_batch_stay_contiguous() -> None:
    cache = BatchCache(HEAD, 64)
    for number in range(5):
        cache.add(row(number + 1, 3).values, 0, 3)
    cache.remove(1)  # the last row takes its slot
    cache.remove(3)
    cache.add(row(9, 2).values, 0, 2)
    assert cache.num_rows == 4
    for slot, (value, length) in enumerate([(1, 3), (5, 3), (3, 3), (9, 2)]):
        values = cache.values.read(slot, 0, length)
        assert [part.shape for part in values] == [(3, length, 4)] * 4
        assert all((part == value).all() for part in values)


def test_a_step_writes_the_keys_of_each_row_behind_its_past(session: Session) -> None:
    head = session.manifest.head
    assert isinstance(head, LanguageModelHead)
    batch = BatchCache(head, 64)
    prompts = [np.arange(size) % 20 for size in (5, 1, 40)]
    for prompt in prompts:
        batch.add(read_prompt(session, prompt).values, 0, len(prompt))
    logits = batch.step(session, [1, 2, 3])
    for slot, (prompt, token) in enumerate(zip(prompts, [1, 2, 3], strict=True)):
        longer = np.append(prompt, token)
        expected = read_prompt(session, longer)
        values = batch.values.read(slot, 0, len(longer))
        for actual, value in zip(values, expected.values.read(0, 0, len(longer)), strict=True):
            np.testing.assert_allclose(actual, value, atol=1e-5)
            assert actual[:, len(prompt)].any()
    assert logits.shape[0] == 3
