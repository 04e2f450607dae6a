"""One prompt and the tokens generated for it, and the events that its request receives.

Invariant: the tokens of a row depend only on its prompt, its parameters and its choice.
"""

from collections.abc import Sequence
from enum import Enum, auto
from time import monotonic

import numpy as np
import numpy.typing as npt

from service.engine.generation.detokenizer import Decode, IncrementalDetokenizer
from service.engine.generation.events import EventSink, FinishReason, GenerationEvent, GenerationParams
from service.engine.generation.kv_cache import RowCache, cache_capacity
from service.engine.generation.logits import Logits, log_probabilities
from service.engine.generation.sampler import RowSampler, TokenLogprob, sample_rows
from service.engine.sessions.session import Session
from service.errors import EkibenError


class RowStatus(Enum):
    WAITING = auto()
    PREFILLING = auto()
    DECODING = auto()
    FINISHED = auto()


class SequenceState:
    """One row of a request. Only the decode loop changes it, except for `is_cancelled`."""

    def __init__(
        self,
        index: int,
        prompt: Sequence[int],
        params: GenerationParams,
        *,
        choice: int,
        decode: Decode,
        session: Session,
        sink: EventSink,
    ) -> None:
        context = session.manifest.limits.max_steps
        assert context is not None, "a language model has limits.max_steps, its context"
        if params.max_tokens < 0:
            raise ValueError(f"max_tokens is {params.max_tokens}, expected 0 or more")
        longest = context - (params.max_tokens > 0)
        if not 1 <= len(prompt) <= longest:
            raise ValueError(f"the prompt has {len(prompt)} tokens, expected 1 to {longest}")
        self.index = index
        self.prompt: npt.NDArray[np.int64] = np.asarray(prompt, np.int64)
        self.params = params
        self.session = session
        self.sink = sink
        self.status = RowStatus.WAITING
        self.is_cancelled = False
        self.end = min(len(prompt) + params.max_tokens, context)
        self.max_capacity = cache_capacity(self.end, context)
        self.cache: RowCache | None = None  # while the prompt is read
        self.prefix_keys: list[bytes] = []  # of the chunks that the prefix cache may hold, from the first chunk on
        self.prompt_logprobs: list[TokenLogprob] = []  # from the second token on
        self.started_at = self.last_token_at = monotonic()  # its arrival, until it starts
        self.next_event_at = 0.0
        self.detokenizer = IncrementalDetokenizer(decode, params.stops)
        self.sampler = RowSampler(
            params.sampling, prompt=prompt, choice=choice, stop_ids=params.stop_ids, num_logprobs=params.num_logprobs
        )
        self._text, self._tokens = "", list[TokenLogprob]()

    @property
    def last_token(self) -> int:
        return self.detokenizer.ids[-1]

    @property
    def position(self) -> int:
        """The position of the next token, counted from the first token of the prompt."""
        return self.prompt.size + len(self.detokenizer.ids)

    @property
    def has_text(self) -> bool:
        """True if text was released since the last event."""
        return bool(self._text)

    def add_prompt_logprobs(self, logits_SV: Logits, first: int) -> None:
        """Add the log probabilities of the tokens that follow those at `first`, `first` + 1 and so on."""
        following = self.prompt[first + 1 : first + 1 + len(logits_SV)].tolist()
        for token, logits_V in zip(following, logits_SV, strict=False):
            logprobs = log_probabilities(logits_V, token, self.params.num_logprobs or 0)
            self.prompt_logprobs.append(TokenLogprob(token, *logprobs))

    def append(self, token: TokenLogprob) -> FinishReason | None:
        """Add a sampled token; returns the reason if it is the last."""
        if token.id in self.params.stop_ids:
            self._text += self.detokenizer.finish()
            return "stop"
        self._tokens.append(token)
        self._text += self.detokenizer.append(token.id)
        if self.detokenizer.stopped:
            return "stop"
        if self.position < self.end:
            return None
        self._text += self.detokenizer.finish()
        return "stop" if self.detokenizer.stopped else "length"

    def take_event(
        self, finish_reason: FinishReason | None = None, error: EkibenError | None = None
    ) -> GenerationEvent:
        """Return what was added since the last event."""
        event = GenerationEvent(
            index=self.index, text=self._text, tokens=tuple(self._tokens), finish_reason=finish_reason, error=error
        )
        self._text, self._tokens = "", []
        return event


def sample_next(rows: Sequence[SequenceState], logits_BV: Logits) -> list[TokenLogprob | Exception]:
    """Sample the next token of each row; an error belongs to the row for which it is returned."""
    try:
        return [*sample_rows(logits_BV, [row.sampler for row in rows], [row.position for row in rows])]
    except Exception as error:  # noqa: BLE001 - see above
        if len(rows) == 1:
            return [error]
        return [result for i, row in enumerate(rows) for result in sample_next([row], logits_BV[i : i + 1])]
