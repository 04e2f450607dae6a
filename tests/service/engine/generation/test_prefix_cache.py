"""Chunks are found by all tokens up to their end, and the least recently used ones leave first."""

import numpy as np

from service.engine.generation.kv_cache import PREFILL_CHUNK
from service.engine.generation.prefix_cache import PrefixCache, chunk_keys
from service.engine.sessions.key_values import TokenValues


def chunk(value: float) -> TokenValues:
    return (np.full((2, PREFILL_CHUNK, 4), value, np.float32),)


CHUNK_BYTES = 2 * PREFILL_CHUNK * 4 * 4


def test_the_least_recently_used_chunk_leaves_first() -> None:
    cache = PrefixCache(2 * CHUNK_BYTES)
    cache.put(b"a", chunk(1))
    cache.put(b"b", chunk(2))
    assert cache.get(b"a") is not None
    cache.put(b"c", chunk(3))
    assert [cache.get(key) is None for key in (b"a", b"b", b"c")] == [False, True, False]
    assert cache.num_bytes == 2 * CHUNK_BYTES


def test_a_chunk_is_kept_once_and_only_if_it_has_room() -> None:
    cache = PrefixCache(CHUNK_BYTES)
    cache.put(b"a", chunk(1))
    cache.put(b"a", chunk(2))
    (part,) = cache.get(b"a") or ()
    assert (part[0, 0, 0], cache.num_bytes) == (1, CHUNK_BYTES)
    none = PrefixCache(CHUNK_BYTES - 1)
    none.put(b"a", chunk(1))
    assert (none.get(b"a"), none.num_bytes) == (None, 0)


def test_keys_cover_the_version_and_all_tokens_up_to_the_end_of_the_chunk() -> None:
    prompt = np.arange(100)
    keys = chunk_keys("m/1", prompt)
    assert len(set(keys)) == 3
    assert chunk_keys("m/2", prompt)[0] != keys[0]
    for position, num_equal in ((0, 0), (31, 0), (32, 1), (95, 2), (96, 3)):
        changed = prompt.copy()
        changed[position] += 1
        assert [a == b for a, b in zip(chunk_keys("m/1", changed), keys, strict=True)] == [
            number < num_equal for number in range(3)
        ]


def test_the_chunk_of_the_last_token_has_no_key() -> None:
    """Its logits are needed, so that it is always computed."""
    assert [len(chunk_keys("m/1", np.arange(size))) for size in (1, 32, 33, 64, 65)] == [0, 0, 1, 1, 2]
