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
from service.engine.sessions.device import Device
from service.engine.sessions.key_values import KeyValues, TokenValues, cache_parts, create_key_values
from service.engine.sessions.session import Session

MIN_CACHE_CAPACITY = 64  # tokens
PREFILL_CHUNK = 32  # tokens
Array = npt.NDArray[Any]


def cache_capacity(num_tokens: int, context: int) -> int:
    """Return the smallest of 64, 128, 256, ... that holds the tokens, but at most the context."""
    return min(max(1 << (num_tokens - 1).bit_length(), MIN_CACHE_CAPACITY), context)


def token_bytes(head: LanguageModelHead) -> int:
    """Return the bytes that one token takes in all caches of a row."""
    return 2 * head.layers * head.heads * head.head_size * np.dtype(np.float32).itemsize


def chunk_capacity(first: int, context: int) -> int:
    """Return the capacity at which the chunk that begins at the token `first` is computed."""
    return cache_capacity(min(first + PREFILL_CHUNK, context), context)


class RowCache:
    """The caches of one row, while its prompt is read."""

    def __init__(self, head: LanguageModelHead, context: int, device: Device = "cpu") -> None:
        self.capacity = 0
        self.length = 0  # tokens
        self.values = create_key_values(head, device)
        self._head, self._context = head, context

    @property
    def parts(self) -> Tensors:
        """Each part on the host, float32 [1, H, C, K]."""
        names, shape = cache_parts(self._head), (1, self._head.heads, self.capacity, self._head.head_size)
        if not self.capacity:
            return {name: np.zeros(shape, np.float32) for name in names}
        values = self.values.read(0, 0, self.capacity)
        return {name: part_HCK.reshape(shape) for name, part_HCK in zip(names, values, strict=True)}

    def read_chunk(self, session: Session, prompt: Array) -> Array:
        """Compute the next chunk of the prompt in one run and return its logits [S, V], without those of padding."""
        ids = prompt[self.length : self.length + PREFILL_CHUNK]
        # Past the last multiple of the chunk, the context may be shorter than a chunk.
        size = min(PREFILL_CHUNK, self._context - self.length)
        self._grow()
        ids_1S = np.zeros((1, size), np.int64)
        ids_1S[0, : ids.size] = ids
        logits_1SV = self.values.extend(session, ids_1S, np.array([self.length]))
        self.length += ids.size
        logits: Array = logits_1SV[0, : ids.size]
        return logits

    def append(self, chunk: TokenValues) -> None:
        """Add the keys and values of the next tokens."""
        self._grow()
        self.values.write(0, self.length, chunk)
        self.length += chunk[0].shape[1]

    def chunk(self, first: int) -> TokenValues:
        """Return a copy of the keys and values of one whole chunk, which begins at `first`."""
        return tuple(part_HSK.copy() for part_HSK in self.values.read(0, first, first + PREFILL_CHUNK))

    def _grow(self) -> None:
        capacity = chunk_capacity(self.length, self._context)
        if capacity > self.capacity:
            self.values.resize(1, capacity)
            self.capacity = capacity


def read_prompt(session: Session, prompt: Array) -> RowCache:
    """Return the caches after a prompt of any length, read in chunks."""
    head, context = session.manifest.head, session.manifest.limits.max_steps
    assert isinstance(head, LanguageModelHead)
    cache = RowCache(head, context or len(prompt), session.device)
    while cache.length < len(prompt):
        cache.read_chunk(session, prompt)
    return cache


class BatchCache:
    """The caches of all rows that decode at one capacity, in the first slots."""

    def __init__(self, head: LanguageModelHead, capacity: int, device: Device = "cpu") -> None:
        self.capacity = capacity
        self.num_rows = 0
        self.values = create_key_values(head, device)
        self._head = head
        self._lengths = np.zeros(0, np.int64)

    def add(self, source: KeyValues, slot: int, length: int) -> None:
        """Copy the first tokens of a row of other caches on the same device into the next slot."""
        num_slots = len(self._lengths)
        if self.num_rows == num_slots:
            num_slots = max(1, 2 * num_slots)
            self.values.resize(num_slots, self.capacity)
            self._lengths = np.pad(self._lengths, (0, num_slots - len(self._lengths)))
        self.values.copy_row(self.num_rows, source, slot, length)
        self._lengths[self.num_rows] = length
        self.num_rows += 1

    def step(self, session: Session, ids: Sequence[int]) -> Array:
        """Compute one token of every row, whose last token is given, and return the logits [B, V]."""
        lengths_B = self._lengths[: self.num_rows]
        logits_B1V = self.values.extend(session, np.array(ids, np.int64)[:, None], lengths_B)
        lengths_B += 1
        logits: Array = logits_B1V[:, 0]
        return logits

    def remove(self, slot: int, *, clear: bool = False) -> None:
        """Move the last row into the slot. `clear` overwrites the row: a NaN would reach the next row there, masked."""
        last = self.num_rows - 1
        if clear:
            zeros_HSK = np.zeros((self._head.heads, int(self._lengths[slot]), self._head.head_size), np.float32)
            self.values.write(slot, 0, (zeros_HSK,) * len(cache_parts(self._head)))
        if slot != last:
            self.values.copy_row(slot, self.values, last, int(self._lengths[last]))
            self._lengths[slot] = self._lengths[last]
        self._lengths[last] = 0
        self.num_rows = last
