"""POST /v1/completions: continues prompts, as OpenAI's API specifies it."""

from typing import Any

from pydantic import ConfigDict, Field
from tokenizers import Tokenizer

from service.engine.context import RequestContext
from service.engine.generation.events import GenerationParams
from service.engine.generation.sampler import TokenLogprob
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.tasks.body import JsonObject
from service.tasks.faults import type_fault
from service.tasks.generation.fields import check_max_tokens, read_prompts, read_sampling
from service.tasks.generation.text import TextRequest, stop_ids, tokenize_prompts
from service.tasks.generation.token_text import token_text
from service.tasks.openai.answer import OpenAIRequest, Part
from service.tasks.openai.fields import MAX_CHOICES, OpenAIFields, engine_stops

EXAMPLE: JsonObject = {"model": "text-transformer", "prompt": "The import statement ", "max_tokens": 64, "seed": 1}


class CompletionRequest(OpenAIFields):
    """Prompts for one language model."""

    prompt: Any = Field(
        default=None,
        description="a text, a list of texts, a list of token ids, or a list of such lists",
        json_schema_extra={"anyOf": [{"type": "string"}, {"type": "array", "items": {}}]},
    )
    max_tokens: int = Field(default=16, ge=0, description="maximum number of new tokens")
    best_of: int | None = Field(
        default=None, ge=1, le=MAX_CHOICES, description="draw so many completions, return the n most probable per token"
    )
    echo: bool = Field(default=False, description="begin the answer with the prompt")
    logprobs: int | None = Field(
        default=None, ge=0, le=5, description="log probabilities of the tokens, and of that many most probable ones"
    )

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE})


async def read_completion(
    model: Model, runner: Runner, fields: CompletionRequest, seed: int, context: RequestContext
) -> OpenAIRequest:
    """Return the request for the engine. Raises EkibenError."""
    manifest, tokenizer = model.manifest, model.tokenizer
    assert tokenizer is not None, "every text model has a tokenizer"
    num_choices = fields.best_of or fields.n
    if num_choices < fields.n:
        raise type_fault("/best_of", f"at least n, {fields.n}", fields.best_of)
    if num_choices > fields.n and fields.stream:
        raise type_fault("/best_of", "n in a stream: completions that are not returned cannot be streamed", num_choices)
    prompts = read_prompts(fields.prompt, manifest, takes_ids=True)
    if len(prompts) * num_choices > manifest.limits.max_items:
        expected = f"at most {manifest.limits.max_items} completions in all"
        raise type_fault("/best_of" if fields.best_of else "/n", expected, len(prompts) * num_choices)
    rows = await tokenize_prompts(prompts, model, runner, context)
    check_max_tokens(fields.max_tokens, max(map(len, rows)), manifest, pointer="/max_tokens", minimum=0)
    needs_logprobs = fields.logprobs is not None or num_choices > fields.n
    params = GenerationParams(
        max_tokens=fields.max_tokens,
        sampling=read_sampling(fields, seed, manifest),
        stops=engine_stops(fields),
        stop_ids=stop_ids(model),
        num_logprobs=(fields.logprobs or 0) if needs_logprobs else None,
        prompt_logprobs=fields.echo and fields.logprobs is not None,
    )
    echoes = [prompt if isinstance(prompt, str) else tokenizer.decode(prompt) for prompt in prompts.values()]
    return OpenAIRequest(
        text=TextRequest(model=model, prompts=rows, pointers=list(prompts), params=params, num_choices=num_choices),
        writer=CompletionWriter(tokenizer, with_logprobs=fields.logprobs is not None),
        num_returned=fields.n,
        echoes=echoes if fields.echo else None,
        include_usage=fields.include_usage,
    )


class CompletionWriter:
    """Writes choices with `text` and, if asked for, lists of log probabilities."""

    kind = chunk_kind = "text_completion"
    id_prefix = "cmpl"

    def __init__(self, tokenizer: Tokenizer, *, with_logprobs: bool) -> None:
        self._tokenizer = tokenizer
        self._with_logprobs = with_logprobs
        self._offsets: dict[int, int] = {}  # by choice: where the text of its next token begins

    def choice(self, part: Part) -> JsonObject:
        return {
            "index": part.index,
            "text": part.text,
            "logprobs": self._logprobs(part) if self._with_logprobs else None,
            "finish_reason": part.finish_reason,
        }

    chunk_choice = choice

    def _logprobs(self, part: Part) -> JsonObject:
        texts = [token_text(self._tokenizer, token.id).text for token in part.tokens]
        offset = self._offsets.get(part.index, 0)
        offsets = []
        for text in texts:
            offsets.append(offset)
            offset += len(text)
        self._offsets[part.index] = offset
        tops = [self._top(token, text) for token, text in zip(part.tokens, texts, strict=True)]
        return {
            "tokens": texts,
            "token_logprobs": [token.logprob for token in part.tokens],
            "top_logprobs": tops,
            "text_offset": offsets,
        }

    def _top(self, token: TokenLogprob, text: str) -> dict[str, float] | None:
        """Return the log probabilities of the most probable tokens and of the token itself, by text."""
        if token.logprob is None:
            return None
        return {**{token_text(self._tokenizer, other).text: value for other, value in token.top}, text: token.logprob}
