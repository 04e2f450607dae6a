"""POST /generate: continues prompts or generates images. POST /generate/stream sends texts as they are generated.

Invariant: model version, request and seed determine the answer. A request without a seed gets a random one, and the
answer contains it. The answer of an item does not depend on the other items of its request.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Literal

from pydantic import ConfigDict, Field

from service.contract.heads import LanguageModelHead
from service.engine.context import RequestContext
from service.engine.generation.events import GenerationParams
from service.engine.generation.sampler import TokenLogprob as EngineToken
from service.engine.generation.stream import Completion as EngineCompletion
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.tasks.body import AnswerBody, JsonObject, check_unused_fields
from service.tasks.generation.fields import (
    MAX_STOPS,
    SamplingFields,
    check_max_tokens,
    read_prompts,
    read_sampling,
    read_stops,
)
from service.tasks.generation.pictures import IMAGE_FIELDS, ImageRequest, generate_images, resolve_seed
from service.tasks.generation.text import TextRequest, event_text, stop_ids, tokenize_prompts
from service.tasks.generation.token_text import token_text

DEFAULT_MAX_TOKENS = 64
EXAMPLE: JsonObject = {
    "model": "text-transformer",
    "prompt": "The import statement",
    "max_tokens": 64,
    "temperature": 0.8,
    "seed": 1,
}


class GenerateRequest(SamplingFields, ImageRequest):
    """A prompt for a language model; what `ImageRequest` has for an image model."""

    prompt: Any = Field(
        default=None,
        description="text models: a text or a list of texts",
        json_schema_extra={"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="maximum number of new tokens; by default 64, or fewer if the context summaries"
    )
    stop: list[Any] = Field(
        default=[],
        description=f"up to {MAX_STOPS} texts that end a completion; the completion does not contain them",
        json_schema_extra={"items": {"type": "string"}, "maxItems": MAX_STOPS},
    )
    logprobs: bool = Field(default=False, description="return the log probability of each token")

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE})


class TokenLogprob(AnswerBody):
    """One sampled token, and the natural logarithm of its probability before temperature, top_k and top_p."""

    token: str
    logprob: float


class Completion(AnswerBody):
    """The continuation of one prompt."""

    text: str
    finish_reason: Literal["stop", "length"]
    tokens: int = Field(description="number of generated tokens")
    logprobs: list[TokenLogprob] | None = None


class GenerateAnswer(AnswerBody):
    """Completions or images, one per item, in order."""

    model: str
    version: str = Field(description="the version of the model that answered")
    seed: int = Field(description="the same request with this seed gets the same answer")
    completions: list[Completion] | None = None
    images: list[str] | None = Field(default=None, description="base64 PNG")


class StreamEvent(AnswerBody):
    """What a step has added to the completion with this index; the last event of each has a finish_reason."""

    index: int
    text: str
    logprobs: list[TokenLogprob] | None = None
    finish_reason: Literal["stop", "length"] | None = None
    tokens: int | None = Field(default=None, description="number of generated tokens; in the last event")


async def generate(model: Model, runner: Runner, request: GenerateRequest, context: RequestContext) -> JsonObject:
    """Continue every prompt, or generate images; returns a `GenerateAnswer`."""
    seed = resolve_seed(request)
    answer: JsonObject = {"model": model.manifest.name, "version": model.manifest.version, "seed": seed}
    if isinstance(model.manifest.head, LanguageModelHead):
        text = await _read_text(model, runner, request, seed, context)
        completions = await text.complete(text.start(runner, context, is_streamed=False))
        return {**answer, "completions": [_completion(row, text) for row in completions]}
    return {**answer, "images": await generate_images(model, runner, request, seed, context)}


async def stream_generate(
    model: Model, runner: Runner, request: GenerateRequest, seed: int, context: RequestContext
) -> AsyncGenerator[JsonObject, None]:
    """Yield each `StreamEvent` of a text model, and a `GenerateAnswer` without texts at the end."""
    text = await _read_text(model, runner, request, seed, context)
    counts = [0] * len(text.prompts)
    summaries: list[JsonObject] = [{}] * len(text.prompts)
    with text.start(runner, context, is_streamed=True) as generation:
        async for event in generation:
            counts[event.index] += len(event.tokens)
            document: JsonObject = {"index": event.index, "text": event_text(event)}
            if request.logprobs:
                document["logprobs"] = _logprobs(event.tokens, text)
            if event.finish_reason is not None:
                summaries[event.index] = {"finish_reason": event.finish_reason, "tokens": counts[event.index]}
                document |= summaries[event.index]
            if document["text"] or event.finish_reason is not None or (request.logprobs and event.tokens):
                yield document
            text.check(event)
    yield {
        "model": model.manifest.name,
        "version": model.manifest.version,
        "seed": seed,
        "completions": summaries,
    }


async def _read_text(
    model: Model, runner: Runner, request: GenerateRequest, seed: int, context: RequestContext
) -> TextRequest:
    manifest = model.manifest
    check_unused_fields(IMAGE_FIELDS, request.model_fields_set, manifest, "`prompt`")
    pointers = read_prompts(request.prompt, manifest)
    prompts = await tokenize_prompts(pointers, model, runner, context)
    if request.max_tokens is not None:
        check_max_tokens(request.max_tokens, max(map(len, prompts)), manifest, pointer="/max_tokens", minimum=1)
    params = GenerationParams(
        # The generation summaries earlier for a prompt that leaves less of the context.
        max_tokens=request.max_tokens or DEFAULT_MAX_TOKENS,
        sampling=read_sampling(request, seed, manifest),
        stops=read_stops(request.stop),
        stop_ids=stop_ids(model),
        num_logprobs=0 if request.logprobs else None,
    )
    return TextRequest(model=model, prompts=prompts, pointers=list(pointers), params=params)


def _completion(row: EngineCompletion, text: TextRequest) -> JsonObject:
    completion: JsonObject = {"text": row.text, "finish_reason": row.finish_reason, "tokens": len(row.tokens)}
    if text.params.num_logprobs is not None:
        completion["logprobs"] = _logprobs(row.tokens, text)
    return completion


def _logprobs(tokens: Sequence[EngineToken], text: TextRequest) -> list[JsonObject]:
    tokenizer = text.model.tokenizer
    assert tokenizer is not None, "every text model has a tokenizer"
    return [{"token": token_text(tokenizer, token.id).text, "logprob": token.logprob} for token in tokens]
