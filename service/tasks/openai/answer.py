"""Answers of OpenAI's routes: whole, or in chunks as the texts are generated.

Invariant: the last chunk of each choice, and no other, has a finish_reason. Choices are numbered prompt by prompt.
"""

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from service.engine.context import RequestContext
from service.engine.generation.events import FinishReason
from service.engine.generation.sampler import TokenLogprob
from service.engine.generation.stream import Completion, Generation
from service.engine.runner import Runner
from service.tasks.body import JsonObject
from service.tasks.generation.text import TextRequest, event_text


@dataclass(frozen=True, kw_only=True)
class Part:
    """Text and tokens that are added to the choice with this index, and why they are its last, or None."""

    index: int
    text: str
    tokens: Sequence[TokenLogprob]
    finish_reason: FinishReason | None
    is_first: bool


class Writer(Protocol):
    """Writes the choices of one request in the format of its route."""

    kind: str  # of the answer: its `object`
    chunk_kind: str
    id_prefix: str

    def choice(self, part: Part) -> JsonObject:
        """Return a whole choice."""

    def chunk_choice(self, part: Part) -> JsonObject:
        """Return what a part adds to a choice; the parts of a choice come in order."""


@dataclass(frozen=True, kw_only=True)
class OpenAIRequest:
    """A request that is understood: of the choices of each prompt, the `num_returned` most probable are returned.

    `echoes` are the texts of the prompts if these are part of the answer, with their log probabilities if the engine
    gives those.
    """

    text: TextRequest
    writer: Writer
    num_returned: int
    echoes: Sequence[str] | None = None
    include_usage: bool = False

    async def answer(self, runner: Runner, context: RequestContext) -> JsonObject:
        """Return the whole answer. Raises EkibenError."""
        generation = self.text.start(runner, context, is_streamed=False)
        completions = await self.text.complete(generation)
        best = [row for prompt in range(len(self.text.prompts)) for row in self._best_rows(prompt, completions)]
        choices = []
        for index, row in enumerate(best):
            done = completions[row]
            part = self._part(generation, row, done.text, done.tokens, done.finish_reason, index=index, is_first=True)
            choices.append(self.writer.choice(part))
        num_generated = sum(len(completion.tokens) for completion in completions)
        return {**self._head(self.writer.kind), "choices": choices, "usage": self._usage(num_generated)}

    async def chunks(self, runner: Runner, context: RequestContext) -> AsyncGenerator[JsonObject, None]:
        """Yield the chunks of the answer. Raises EkibenError, also after some."""
        head = self._head(self.writer.chunk_kind)
        usage: JsonObject = {"usage": None} if self.include_usage else {}
        wants_tokens = self.text.params.num_logprobs is not None
        started: set[int] = set()
        num_generated = 0
        with self.text.start(runner, context, is_streamed=True) as generation:
            async for event in generation:
                num_generated += len(event.tokens)
                row, is_first = event.index, event.index not in started
                text, is_end = event_text(event), event.finish_reason is not None
                if text or is_end or (is_first and event.error is None) or (wants_tokens and event.tokens):
                    started.add(row)
                    part = self._part(
                        generation, row, text, event.tokens, event.finish_reason, index=row, is_first=is_first
                    )
                    yield {**head, "choices": [self.writer.chunk_choice(part)], **usage}
                self.text.check(event)
        if self.include_usage:
            yield {**head, "choices": [], "usage": self._usage(num_generated)}

    def _best_rows(self, prompt: int, completions: Sequence[Completion]) -> list[int]:
        """Choose the completions of one prompt to return: all, or the most probable per token, best first."""
        rows = list(range(prompt * self.text.num_choices, (prompt + 1) * self.text.num_choices))
        if self.num_returned < len(rows):
            rows.sort(key=lambda row: -_mean_logprob(completions[row].tokens))
        return rows[: self.num_returned]

    def _part(
        self,
        generation: Generation,
        row: int,
        text: str,
        tokens: Sequence[TokenLogprob],
        finish_reason: FinishReason | None,
        *,
        index: int,
        is_first: bool,
    ) -> Part:
        if is_first and self.echoes is not None:
            prompt = row // self.text.num_choices
            text = self.echoes[prompt] + text
            if self.text.params.prompt_logprobs:
                first = TokenLogprob(id=self.text.prompts[prompt][0], logprob=None, top=())
                tokens = [first, *generation.rows[row].prompt_logprobs, *tokens]
        return Part(index=index, text=text, tokens=tokens, finish_reason=finish_reason, is_first=is_first)

    def _head(self, kind: str) -> JsonObject:
        manifest = self.text.model.manifest
        return {
            "id": f"{self.writer.id_prefix}-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": manifest.name,
            "system_fingerprint": manifest.version,
        }

    def _usage(self, num_generated: int) -> JsonObject:
        num_read = sum(map(len, self.text.prompts))
        return {
            "prompt_tokens": num_read,
            "completion_tokens": num_generated,
            "total_tokens": num_read + num_generated,
        }


def _mean_logprob(tokens: Sequence[TokenLogprob]) -> float:
    """Return the mean log probability of the tokens; no tokens are certain."""
    return sum(token.logprob or 0.0 for token in tokens) / max(len(tokens), 1)
