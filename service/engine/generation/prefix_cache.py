"""Keys and values of whole chunks at the beginning of prompts, reused by prompts that begin with the same tokens.

Invariant: the results of a prompt are the same bits on a hit and on a miss. A chunk is computed at a shape that follows
from its position, from the tokens before it and its own, and the key of a chunk covers all of them and the version.
"""

import hashlib
from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from service.engine.generation.kv_cache import PREFILL_CHUNK, RowCache
from service.engine.generation.logits import Logits
from service.engine.generation.sequence import SequenceState
from service.engine.metrics import GenerationCounters
from service.engine.sessions.key_values import TokenValues


class PrefixCache:
    """The least recently used chunks leave first. Not thread-safe: it belongs to one decode loop."""

    def __init__(self, max_bytes: int) -> None:
        self.num_bytes = 0
        self._max_bytes = max_bytes
        self._chunks: OrderedDict[bytes, TokenValues] = OrderedDict()

    def get(self, key: bytes) -> TokenValues | None:
        chunk = self._chunks.get(key)
        if chunk is not None:
            self._chunks.move_to_end(key)
        return chunk

    def put(self, key: bytes, chunk: TokenValues) -> None:
        size = sum(part.nbytes for part in chunk)
        if key in self._chunks or size > self._max_bytes:
            return
        self._chunks[key] = chunk
        self.num_bytes += size
        while self.num_bytes > self._max_bytes:
            _, oldest = self._chunks.popitem(last=False)
            self.num_bytes -= sum(part.nbytes for part in oldest)


def chunk_keys(version: str, prompt: npt.NDArray[np.int64]) -> list[bytes]:
    """Return the key of each whole chunk that ends before the last token, whose logits every prompt needs."""
    keys: list[bytes] = []
    key = version.encode()
    for first in range(0, (prompt.size - 1) // PREFILL_CHUNK * PREFILL_CHUNK, PREFILL_CHUNK):
        key = hashlib.blake2b(key + prompt[first : first + PREFILL_CHUNK].tobytes(), digest_size=32).digest()
        keys.append(key)
    return keys


def read_chunk(row: SequenceState, cache: RowCache, prefixes: PrefixCache, counters: GenerationCounters) -> Logits:
    """Compute the next chunk that is not in the prefix cache and return its logits [steps, vocabulary].

    A row that needs the logits of its whole prompt computes every chunk.
    """
    manifest = row.session.manifest
    needs_all = row.params.prompt_logprobs
    if not cache.length:
        if not needs_all:
            row.prefix_keys = chunk_keys(f"{manifest.name}/{manifest.version}", row.prompt)
        counters.prompt_tokens += row.prompt.size
        counters.prefix_queried_tokens += len(row.prefix_keys) * PREFILL_CHUNK
    keys, before = row.prefix_keys, cache.length
    for key in keys[before // PREFILL_CHUNK :]:
        chunk = prefixes.get(key)
        if chunk is None:
            break
        cache.append(chunk)
    counters.prefix_hit_tokens += cache.length - before
    first = cache.length
    logits_SV = cache.read_chunk(row.session, row.prompt)
    number = first // PREFILL_CHUNK
    if number < len(keys):
        prefixes.put(keys[number], cache.chunk(first))
    if needs_all:
        row.add_prompt_logprobs(logits_SV, first)
    return logits_SV
