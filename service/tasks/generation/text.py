"""Texts of one request, on their way through the engine; every route of generation goes through here.

Invariant: a row is one choice of one prompt. Its text depends on model version, prompt, parameters, seed and the number
of the choice, not on the other rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from service.contract.heads import LanguageModelHead
from service.engine.context import RequestContext
from service.engine.generation.detokenizer import INCOMPLETE, TokenDecoder
from service.engine.generation.events import GenerationEvent, GenerationParams
from service.engine.generation.stream import Completion, Generation, RowFailedError, complete
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.errors import EkibenError, not_finite
from service.tasks.codecs.texts import tokenize
from service.tasks.generation.fields import Prompts


@dataclass(frozen=True, kw_only=True)
class TextRequest:
    """Prompts as token ids, each to be continued `num_choices` times; row p * num_choices + c is choice c of prompt p.

    `pointers` are the JSON pointers of the prompts.
    """

    model: Model
    prompts: Sequence[Sequence[int]]
    pointers: Sequence[str]
    params: GenerationParams
    num_choices: int = 1

    def start(self, runner: Runner, context: RequestContext, *, is_streamed: bool) -> Generation:
        """Start all rows; leaving the block of the generation cancels them. Raises EkibenError overloaded."""
        assert self.model.tokenizer is not None, "every text model has a tokenizer"
        return runner.generate(
            self.model.session,
            TokenDecoder(self.model.tokenizer),
            [prompt for prompt in self.prompts for _ in range(self.num_choices)],
            self.params,
            choices=list(range(self.num_choices)) * len(self.prompts),
            is_streamed=is_streamed,
            context=context,
        )

    async def complete(self, generation: Generation) -> list[Completion]:
        """Return all rows of a generation that was started. Raises the first error of a row."""
        try:
            rows = await complete(generation)
            return [replace(row, text=whole_characters(row.text)) for row in rows]
        except RowFailedError as failure:
            raise self._place(failure.index, failure.error) from None

    def check(self, event: GenerationEvent) -> None:
        """Raise the error that ends a row, with the place of its prompt."""
        if event.error is not None:
            raise self._place(event.index, event.error)

    def _place(self, row: int, error: EkibenError) -> EkibenError:
        if error.slug != "not-finite":
            return error
        manifest = self.model.manifest
        pointers = [pointer for pointer in self.pointers for _ in range(self.num_choices)]
        return not_finite(f"{manifest.name}/{manifest.version}", {row: "logits"}, pointers)


def whole_characters(text: str) -> str:
    """Return the text that ends a row without its last character if only the first bytes of that were generated."""
    return text.rstrip(INCOMPLETE)


def event_text(event: GenerationEvent) -> str:
    """Return the text of an event, in whole characters."""
    return whole_characters(event.text) if event.is_last else event.text


async def tokenize_prompts(
    prompts: Prompts, model: Model, runner: Runner, context: RequestContext, *, add_special_tokens: bool = True
) -> list[list[int]]:
    """Return the token ids of each prompt. Raises EkibenError for a text that is empty or too long."""
    texts = {pointer: prompt for pointer, prompt in prompts.items() if not isinstance(prompt, list)}
    rows = await tokenize(texts, model, runner, context, add_special_tokens=add_special_tokens) if texts else []
    ids = dict(zip(texts, rows, strict=True))
    return [prompt if isinstance(prompt, list) else ids[pointer] for pointer, prompt in prompts.items()]


def stop_ids(model: Model) -> frozenset[int]:
    """Return the token ids at which the model ends a text."""
    head = model.manifest.head
    assert isinstance(head, LanguageModelHead), "the head of text models that generate"
    return frozenset(head.eos_ids)
