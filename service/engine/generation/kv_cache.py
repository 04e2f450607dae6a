"""Keys and values of the rows that are generated, and the shapes at which they are computed.

Invariant: the capacity at which a token is computed follows from its position alone, so that a row's results do not
depend on the tokens that may follow, nor on other rows. Prompts are read in chunks of PREFILL_CHUNK tokens at multiples
of it; the last chunk is padded.

Shapes: B rows, S steps of a chunk, H heads, C capacity, K head size.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.bundle import Tensors
from service.contract.heads import LanguageModelHead
from service.engine.sessions.session import Session

MIN_CACHE_CAPACITY = 64  # tokens
PREFILL_CHUNK = 32  # tokens
Array = npt.NDArray[Any]
ChunkCache = tuple[Array, ...]  # one [H, S, K] for each part


def cache_capacity(num_tokens: int, context: int) -> int:
    """Return the smallest of 64, 128, 256, ... that holds the tokens, but at most the context."""
    return min(max(1 << (num_tokens - 1).bit_length(), MIN_CACHE_CAPACITY), context)


def cache_parts(head: LanguageModelHead) -> list[str]:
    """Return the names of the caches, without "past_" and "new_"."""
    return [f"{kind}_{layer}" for layer in range(head.layers) for kind in ("key", "value")]


def token_bytes(head: LanguageModelHead) -> int:
    """Return the bytes that one token takes in all caches of a row."""
    return 2 * head.layers * head.heads * head.head_size * np.dtype(np.float32).itemsize


def chunk_capacity(first: int, context: int) -> int:
    """Return the capacity at which the chunk that begins at the token `first` is computed."""
    return cache_capacity(min(first + PREFILL_CHUNK, context), context)


class RowCache:
    """The caches of one row, while its prompt is read: each part is float32 [1, H, C, K]."""

    def __init__(self, head: LanguageModelHead, context: int) -> None:
        self.capacity = 0
        self.length = 0  # tokens
        self._context = context
        self.parts: dict[str, Array] = {
            part: np.zeros((1, head.heads, 0, head.head_size), np.float32) for part in cache_parts(head)
        }

    def read_chunk(self, session: Session, prompt: Array) -> Array:
        """Compute the next chunk of the prompt in one run and return its logits [S, V], without those of padding."""
        ids = prompt[self.length : self.length + PREFILL_CHUNK]
        # Past the last multiple of the chunk, the context may be shorter than a chunk.
        size = min(PREFILL_CHUNK, self._context - self.length)
        self._grow(chunk_capacity(self.length, self._context))
        ids_1S = np.zeros((1, size), np.int64)
        ids_1S[0, : ids.size] = ids
        past: Tensors = {f"past_{part}": cache for part, cache in self.parts.items()}
        outputs = session.run({"ids": ids_1S, "past_lengths": np.array([self.length]), **past})
        self.append(tuple(outputs[f"new_{part}"][0, :, : ids.size] for part in self.parts))
        logits: Array = outputs["logits"][0, : ids.size]
        return logits

    def append(self, chunk: ChunkCache) -> None:
        """Add the keys and values of the next tokens."""
        end = self.length + chunk[0].shape[1]
        self._grow(chunk_capacity(self.length, self._context))
        for cache_1HCK, values_HSK in zip(self.parts.values(), chunk, strict=True):
            cache_1HCK[0, :, self.length : end] = values_HSK
        self.length = end

    def chunk(self, first: int) -> ChunkCache:
        """Return a copy of the keys and values of one whole chunk, which begins at `first`."""
        return tuple(cache_1HCK[0, :, first : first + PREFILL_CHUNK].copy() for cache_1HCK in self.parts.values())

    def _grow(self, capacity: int) -> None:
        if capacity > self.capacity:
            self.parts = {part: _resize(cache, 2, capacity) for part, cache in self.parts.items()}
            self.capacity = capacity


def read_prompt(session: Session, prompt: Array) -> RowCache:
    """Return the caches after a prompt of any length, read in chunks."""
    head, context = session.manifest.head, session.manifest.limits.max_steps
    assert isinstance(head, LanguageModelHead)
    cache = RowCache(head, context or len(prompt))
    while cache.length < len(prompt):
        cache.read_chunk(session, prompt)
    return cache


class BatchCache:
    """The caches of all rows that decode at one capacity: each part is float32 [slots, H, C, K].

    Active rows stay contiguous, so that `cache[:B]` is passed without a copy.
    """

    def __init__(self, head: LanguageModelHead, capacity: int) -> None:
        self.capacity = capacity
        self.num_rows = 0
        self._lengths = np.zeros(1, np.int64)
        shape = (1, head.heads, capacity, head.head_size)
        self._parts: dict[str, Array] = {part: np.zeros(shape, np.float32) for part in cache_parts(head)}

    def add(self, parts: Tensors, length: int) -> None:
        """Copy the caches [1, H, C', K] of a row into the next slot."""
        slot = self.num_rows
        if slot == len(self._lengths):
            self._lengths = _resize(self._lengths, 0, 2 * slot)
            self._parts = {part: _resize(cache, 0, 2 * slot) for part, cache in self._parts.items()}
        for part, cache in self._parts.items():
            cache[slot, :, :length] = parts[part][0, :, :length]
        self._lengths[slot] = length
        self.num_rows += 1

    def step(self, session: Session, ids: Sequence[int]) -> Array:
        """Compute one token of every row, whose last token is given, and return the logits [B, V]."""
        num_rows = self.num_rows
        past = {f"past_{part}": cache[:num_rows] for part, cache in self._parts.items()}
        lengths_B = self._lengths[:num_rows]
        outputs = session.run({"ids": np.array(ids, np.int64)[:, None], "past_lengths": lengths_B, **past})
        where = np.arange(num_rows), slice(None), lengths_B
        for part, cache in self._parts.items():
            cache[where] = outputs[f"new_{part}"][:, :, 0]
        self._lengths[:num_rows] += 1
        logits: Array = outputs["logits"][:, 0]
        return logits

    def row(self, slot: int) -> Tensors:
        """Return views [1, H, C, K] of the caches of one row."""
        return {part: cache[slot : slot + 1] for part, cache in self._parts.items()}

    def remove(self, slot: int) -> None:
        """Move the last row into the slot."""
        last = self.num_rows - 1
        if slot != last:
            for cache in self._parts.values():
                cache[slot] = cache[last]
            self._lengths[slot] = self._lengths[last]
        self._lengths[last] = 0
        self.num_rows = last


def _resize(array: Array, axis: int, size: int) -> Array:
    """Return a longer array that begins with this one."""
    shape = list(array.shape)
    shape[axis] = size
    resized = np.zeros(shape, array.dtype)
    resized[tuple(slice(length) for length in array.shape)] = array
    return resized
