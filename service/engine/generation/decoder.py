"""Generate text with a graph that has a key/value cache.

Invariant: the tokens of a row depend only on its prompt and its parameters. Each prompt is prefilled in a run of its
own. All rows with the same cache capacity, which follows from the row's own prompt and token limit, are then decoded in
one batch, one token per row and step, each row at its own length. A finished row leaves the batch at once.

Shapes: B rows in a decode batch, H heads, C capacity of the cache, K head size, V vocabulary.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from service.contract.heads import LanguageModelHead
from service.engine.context import RequestContext
from service.engine.generation.detokenizer import Decode, IncrementalDetokenizer
from service.engine.generation.logits import NotFiniteLogitsError
from service.engine.generation.sampler import RowSampler, Sampling, sample_rows
from service.engine.sessions.session import Session

MIN_CACHE_CAPACITY = 64  # tokens
FinishReason = Literal["stop", "length"]


class StepRunner(Protocol):
    """The part of the runner that generation needs: it limits generations, and computes and counts their steps."""

    def generation_slots(self, num_rows: int) -> AbstractContextManager[None]:
        """Reserve a generation slot for each row until the context exits."""

    async def call(self, function: Callable[..., Any], *args: Any, context: RequestContext | None = None) -> Any:
        """Call the function on a compute thread."""

    def count_steps(self, session: Session, num_rows: int) -> None:
        """Count one decoded token for each row."""


@dataclass(frozen=True, kw_only=True)
class GenerationParams:
    """Parameters for each prompt of a list; `stops` and `stop_ids` end a completion and are not part of its text."""

    max_tokens: int
    sampling: Sampling
    stops: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Completion:
    """The continuation of one prompt: `ids` are all sampled tokens, including those of a stop string but not a stop id.

    `logprobs` are the log probabilities of `ids` under the model, before temperature, top_k and top_p.
    """

    text: str
    finish_reason: FinishReason
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


async def generate_tokens(
    session: Session,
    prompts: Sequence[Sequence[int]],
    params: GenerationParams,
    runner: StepRunner,
    decode: Decode,
    *,
    context: RequestContext | None = None,
) -> list[Completion]:
    """Continue every prompt; a cancelled generation stops before its next step.

    Every step has the deadline of the request's context. A prompt has at least one token and fewer than `max_steps` of
    the model. A completion ends at `max_tokens` or with a full context. Raises ValueError for values out of range, and
    NotFiniteLogitsError.
    """
    context_size = session.manifest.limits.max_steps
    if context_size is None:
        raise ValueError(f"{session.manifest.name}: a language model needs limits.max_steps, its context")
    rows = [_Row(index, prompt, params, decode, context_size) for index, prompt in enumerate(prompts)]
    groups: dict[int, list[_Row]] = {}
    for row in rows:
        groups.setdefault(row.capacity, []).append(row)
    with runner.generation_slots(len(rows)):
        for capacity, members in groups.items():
            batch = _Batch(session, capacity, len(members), runner)
            for row in members:
                await runner.call(batch.admit, row, context=context)
            while batch.rows:
                await runner.call(batch.step, context=context)
    return [row.completion() for row in rows]


def cache_capacity(num_tokens: int, context: int) -> int:
    """Return the smallest of 64, 128, 256, ... that holds the tokens, but at most the context."""
    return min(max(1 << (num_tokens - 1).bit_length(), MIN_CACHE_CAPACITY), context)


class _Row:
    """One prompt and the tokens sampled for it so far."""

    def __init__(
        self, index: int, prompt: Sequence[int], params: GenerationParams, decode: Decode, context: int
    ) -> None:
        if not 1 <= len(prompt) < context:
            raise ValueError(f"the prompt has {len(prompt)} tokens, expected 1 to {context - 1}")
        if params.max_tokens < 1:
            raise ValueError(f"max_tokens is {params.max_tokens}, expected 1 or more")
        self.index = index
        self.prompt = np.asarray(prompt, np.int64)
        self.end = min(len(prompt) + params.max_tokens, context)
        self.capacity = cache_capacity(self.end, context)
        self.logprobs: list[float] = []
        self.finish_reason: FinishReason | None = None
        self._params = params
        self._sampler = RowSampler(params.sampling, prompt=prompt, stop_ids=params.stop_ids, num_logprobs=0)
        self.detokenizer = IncrementalDetokenizer(decode, params.stops)

    def extend(self, logits_V: npt.NDArray[np.float32]) -> None:
        """Sample the next token and set `finish_reason` if it is the last.

        Logits of -inf exclude tokens. The maximum is NaN or +inf if any logit is, and -inf if all are.
        """
        position = self.prompt.size + len(self.logprobs)
        if not np.isfinite(logits_V.max()):
            raise NotFiniteLogitsError(self.index, position)
        [sampled] = sample_rows(logits_V[None], [self._sampler], [position])
        if sampled.id in self._params.stop_ids:
            self.finish_reason = "stop"
            return
        assert sampled.logprob is not None
        self.logprobs.append(sampled.logprob)
        self.detokenizer.append(sampled.id)
        if self.detokenizer.stopped or position + 1 == self.end:
            self.finish_reason = "stop" if self.detokenizer.stopped else "length"

    def completion(self) -> Completion:
        assert self.finish_reason is not None
        self.detokenizer.finish()
        if self.detokenizer.stopped:
            self.finish_reason = "stop"
        ids, logprobs = tuple(self.detokenizer.ids), tuple(self.logprobs)
        return Completion(text=self.detokenizer.text, finish_reason=self.finish_reason, ids=ids, logprobs=logprobs)


class _Batch:
    """Rows that are decoded together. Row i of every cache belongs to `rows[i]`; each cache is [slots, H, C, K]."""

    def __init__(self, session: Session, capacity: int, slots: int, runner: StepRunner) -> None:
        head = session.manifest.head
        assert isinstance(head, LanguageModelHead)
        shape = (slots, head.heads, capacity, head.head_size)
        parts = [f"{kind}_{layer}" for layer in range(head.layers) for kind in ("key", "value")]
        self.rows: list[_Row] = []
        self._session = session
        self._runner = runner
        self._caches: dict[str, npt.NDArray[np.float32]] = {part: np.zeros(shape, np.float32) for part in parts}
        self._lengths = np.zeros(slots, np.int64)

    def admit(self, row: _Row) -> None:
        """Prefill the next slot with the prompt and sample the first token."""
        slot, num_steps = len(self.rows), row.prompt.size
        outputs = self._run(slot, slot + 1, row.prompt[None])
        for part, cache_BHCK in self._caches.items():
            cache_BHCK[slot, :, :num_steps] = outputs[f"new_{part}"][0]
        row.extend(outputs["logits"][0, -1])
        if row.finish_reason is None:
            self._lengths[slot] = num_steps
            self.rows.append(row)

    def step(self) -> None:
        """Decode one token for every row and remove the rows that are finished."""
        num_rows = len(self.rows)
        ids_B1 = np.array([[row.detokenizer.ids[-1]] for row in self.rows], np.int64)
        outputs = self._run(0, num_rows, ids_B1)
        positions = np.arange(num_rows), slice(None), self._lengths[:num_rows]
        for part, cache_BHCK in self._caches.items():
            cache_BHCK[positions] = outputs[f"new_{part}"][:, :, 0]
        self._lengths[:num_rows] += 1
        for row, logits_V in zip(self.rows, outputs["logits"][:, 0], strict=True):
            row.extend(logits_V)
        for slot in reversed(range(num_rows)):
            if self.rows[slot].finish_reason is not None:
                self._free(slot)

    def _free(self, slot: int) -> None:
        """Move the last row into the slot: active rows stay contiguous, so `cache[:B]` is passed without a copy."""
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
        outputs = self._session.run({"ids": ids, "past_lengths": self._lengths[first:end], **past})
        self._runner.count_steps(self._session, end - first)
        return outputs
