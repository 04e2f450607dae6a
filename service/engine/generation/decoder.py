"""Text generation over a graph with a key/value cache.

A row's tokens depend on its prompt and parameters alone. Each prompt is read in one run of its own; then all rows
whose cache has the same capacity take a step together, one token each, every row at its own length. The capacity of a
row's cache follows from its own prompt and token limit, never from its neighbours. A finished row leaves the batch at
once.

Shapes: B rows that step together, H heads, C capacity of the cache, K head size, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from service.bundle import LanguageModel
from service.engine.context import RequestContext
from service.engine.generation.detokenizer import Decode, Transcript
from service.engine.generation.sampling import Sampling, log_probability, sample
from service.engine.runner import Runner
from service.engine.sessions.session import Session

FIRST_CAPACITY = 64
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class Generation:
    """How to continue a prompt. Each prompt of a list is sampled as if it were sent alone with the same seed."""

    max_tokens: int
    sampling: Sampling
    stops: tuple[str, ...] = ()  # end a completion and are not part of it
    stop_ids: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What follows a prompt.

    `ids` are all tokens that were drawn for it, those of a stop string included, a stop id not; `logprobs` holds the
    log probability of each of `ids` under the model, before temperature and cuts.
    """

    text: str
    finish_reason: FinishReason
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


async def generate_tokens(
    session: Session,
    prompts: Sequence[Sequence[int]],
    params: Generation,
    runner: Runner,
    decode: Decode,
    context: RequestContext | None = None,
) -> list[Completion]:
    """Continue every prompt (at least one token, fewer than the context holds); stops between steps when cancelled.

    A completion ends at `max_tokens`, or where the context (the model's `max_steps`) is full.
    """
    context = context or runner.new_context()
    size = _context(session)
    rows = [_Row(prompt, params, decode, size) for prompt in prompts]
    groups: dict[int, list[_Row]] = {}
    for row in rows:
        groups.setdefault(row.capacity, []).append(row)
    with runner.generation_slots(len(rows)):
        for capacity, members in groups.items():
            batch = _Batch(session, capacity, len(members), partial(runner.count_steps, session))
            for row in members:
                await runner.call(batch.admit, row, context=context)
            while batch.rows:
                await runner.call(batch.step, context=context)
    return [row.completion() for row in rows]


def cache_capacity(num_tokens: int, context: int) -> int:
    """The smallest of 64, 128, 256, ... that holds the tokens, the context at most."""
    capacity = FIRST_CAPACITY
    while capacity < num_tokens:
        capacity *= 2
    return min(capacity, context)


def _context(session: Session) -> int:
    context = session.manifest.limits.max_steps
    if context is None:
        raise ValueError(f"{session.manifest.name}: a language model needs limits.max_steps, its context")
    return context


class _Row:
    """One prompt and what has been drawn for it."""

    def __init__(self, prompt: Sequence[int], params: Generation, decode: Decode, context: int) -> None:
        if not 1 <= len(prompt) < context:
            raise ValueError(f"the prompt has {len(prompt)} tokens, expected 1 to {context - 1}")
        if params.max_tokens < 1:
            raise ValueError(f"max_tokens is {params.max_tokens}, expected 1 or more")
        self.prompt = np.asarray(prompt, np.int64)
        self.end = min(len(prompt) + params.max_tokens, context)
        self.capacity = cache_capacity(self.end, context)
        self.logprobs: list[float] = []
        self.finish_reason: FinishReason | None = None
        self._params = params
        self._transcript = Transcript(decode, params.stops)

    @property
    def last_token(self) -> int:
        return self._transcript.ids[-1]

    def extend(self, logits_V: npt.NDArray[np.float32]) -> None:
        """Draw the next token, and see whether it is the last."""
        position = self.prompt.size + len(self.logprobs)
        if not np.isfinite(logits_V.max()):
            raise RuntimeError(f"the model's logits at position {position} are not finite")
        token = sample(logits_V, self._params.sampling, position)
        if token in self._params.stop_ids:
            self.finish_reason = "stop"
            return
        self.logprobs.append(log_probability(logits_V, token))
        self._transcript.push(token)
        if self._transcript.stopped:
            self.finish_reason = "stop"
        elif position + 1 == self.end:
            self.finish_reason = "length"

    def completion(self) -> Completion:
        assert self.finish_reason is not None
        self._transcript.finish()
        return Completion(
            text=self._transcript.text,
            finish_reason=self.finish_reason,
            ids=tuple(self._transcript.ids),
            logprobs=tuple(self.logprobs),
        )


class _Batch:
    """Rows that step together. Row i of every cache belongs to `rows[i]`; the cache of a layer is [slots, H, C, K]."""

    def __init__(self, session: Session, capacity: int, slots: int, count: Callable[[int], None]) -> None:
        parameters = session.manifest.parameters
        assert isinstance(parameters, LanguageModel)
        shape = (slots, parameters.heads, capacity, parameters.head_size)
        parts = [f"{kind}_{layer}" for layer in range(parameters.layers) for kind in ("key", "value")]
        self.rows: list[_Row] = []
        self._session = session
        self._count = count
        self._caches: dict[str, npt.NDArray[np.float32]] = {part: np.zeros(shape, np.float32) for part in parts}
        self._lengths = np.zeros(slots, np.int64)

    def admit(self, row: _Row) -> None:
        """Read the prompt into the next slot and draw the first token."""
        slot, num_steps = len(self.rows), row.prompt.size
        answer = self._run(slot, slot + 1, row.prompt[None])
        for part, cache_BHCK in self._caches.items():
            cache_BHCK[slot, :, :num_steps] = answer[f"new_{part}"][0]
        self._lengths[slot] = num_steps
        row.extend(answer["logits"][0, -1])
        if row.finish_reason is None:
            self.rows.append(row)
        else:
            self._lengths[slot] = 0

    def step(self) -> None:
        """One more token for every row."""
        num_rows = len(self.rows)
        ids_B1 = np.array([[row.last_token] for row in self.rows], np.int64)
        answer = self._run(0, num_rows, ids_B1)
        places = np.arange(num_rows), slice(None), self._lengths[:num_rows]
        for part, cache_BHCK in self._caches.items():
            cache_BHCK[places] = answer[f"new_{part}"][:, :, 0]
        self._lengths[:num_rows] += 1
        for row, logits_V in zip(self.rows, answer["logits"][:, 0], strict=True):
            row.extend(logits_V)
        for slot in reversed(range(num_rows)):
            if self.rows[slot].finish_reason is not None:
                self._free(slot)

    def _free(self, slot: int) -> None:
        """Move the last row into the slot: running rows stay together and `cache[:B]` is passed without a copy."""
        last = len(self.rows) - 1
        if slot != last:
            for cache_BHCK in self._caches.values():
                cache_BHCK[slot] = cache_BHCK[last]
            self._lengths[slot] = self._lengths[last]
            self.rows[slot] = self.rows[last]
        self.rows.pop()
        self._lengths[last] = 0

    def _run(self, first: int, end: int, ids: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        past = {f"past_{part}": cache_BHCK[first:end] for part, cache_BHCK in self._caches.items()}
        answer = self._session.run({"ids": ids, "past_lengths": self._lengths[first:end], **past})
        self._count(end - first)
        return answer
