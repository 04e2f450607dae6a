"""What a request asks of the decode loop, and the events that it receives."""

from asyncio import AbstractEventLoop
from dataclasses import dataclass
from typing import Literal, Protocol

from service.engine.generation.sampler import Sampling, TokenLogprob
from service.errors import EkibenError

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class GenerationParams:
    """Parameters for each prompt of a request; `stops` and `stop_ids` end a completion and are not part of its text.

    `num_logprobs` asks for the log probability of each token and of that many most probable ones, `prompt_logprobs` for
    those of the prompt's tokens as well.
    """

    max_tokens: int
    sampling: Sampling
    stops: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    num_logprobs: int | None = None
    prompt_logprobs: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationEvent:
    """What has been added to a row: whole characters, and the tokens since the last event of the row.

    The last event of a row has a reason or an error. Its tokens include those of a stop string, but no stop id.
    """

    index: int
    text: str
    tokens: tuple[TokenLogprob, ...]
    finish_reason: FinishReason | None = None
    error: EkibenError | None = None

    @property
    def is_last(self) -> bool:
        return self.finish_reason is not None or self.error is not None


class EventSink(Protocol):
    """The request of a row."""

    loop: AbstractEventLoop
    is_streamed: bool  # otherwise it needs only the last event of the row

    def deliver(self, event: GenerationEvent) -> None:
        """Receive an event on the event loop."""
