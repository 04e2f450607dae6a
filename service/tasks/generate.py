"""POST /generate: continues prompts or generates images.

Invariant: model version, request and seed determine the answer. A request without a seed gets a random one, and the
answer contains it. The answer of an item does not depend on the other items of its request.
"""

import base64
import secrets
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field

from service.contract.heads import LanguageModelHead
from service.engine.context import RequestContext
from service.engine.generation.decoder import GenerationParams, NotFiniteLogitsError, generate_tokens
from service.engine.generation.sampling import Sampling
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.errors import not_finite
from service.manifest import Manifest
from service.tasks.body import AnswerBody, JsonObject, RequestBody, check_items, check_unused_fields
from service.tasks.codecs.images import encode_png, make_grid
from service.tasks.codecs.texts import tokenize
from service.tasks.faults import fault, type_fault

# The largest integer that every JSON parser represents exactly.
MAX_SEED = 2**53 - 1
MAX_STOPS = 4
MAX_STOP_CHARS = 64
TEXT_FIELDS = ("prompt", "max_tokens", "temperature", "top_k", "top_p", "stop", "logprobs")
EXAMPLE: JsonObject = {
    "model": "text-transformer",
    "prompt": "The import statement",
    "max_tokens": 64,
    "temperature": 0.8,
    "seed": 1,
}


class GenerateRequest(RequestBody):
    """A prompt for a language model; a count for an image model."""

    prompt: Any = Field(
        default=None,
        description="text models: a text or a list of texts",
        json_schema_extra={"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="maximum number of new tokens; by default 64, or fewer if the context ends"
    )
    temperature: float = Field(default=1.0, ge=0, le=10, description="0 selects the most probable token")
    top_k: int = Field(default=0, ge=0, description="sample from the k most probable tokens; 0 samples from all tokens")
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="sample from the most probable tokens that add up to this probability"
    )
    stop: list[Any] = Field(
        default=[],
        description=f"up to {MAX_STOPS} texts that end a completion; the completion does not contain them",
        json_schema_extra={"items": {"type": "string"}, "maxItems": MAX_STOPS},
    )
    logprobs: bool = Field(default=False, description="return the log probability of each token")
    count: int | None = Field(default=None, ge=1, description="image models: number of images (default 1)")
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED, description="the same seed gives the same answer")

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


async def generate(model: Model, runner: Runner, request: GenerateRequest, context: RequestContext) -> JsonObject:
    """Continue every prompt, or generate `count` images; returns a `GenerateAnswer`."""
    seed = _resolve_seed(request)
    answer = {"model": model.manifest.name, "version": model.manifest.version, "seed": seed}
    if isinstance(model.manifest.head, LanguageModelHead):
        return {**answer, "completions": await _complete(model, runner, request, seed, context)}
    images_BHW = await _generate_images(model, runner, request, seed, context)
    return {**answer, "images": [base64.b64encode(encode_png(image_HW)).decode() for image_HW in images_BHW]}


async def generate_grid(
    model: Model, runner: Runner, request: GenerateRequest, context: RequestContext
) -> tuple[bytes, int]:
    """Return all images of the request in one PNG, and their seed."""
    if isinstance(model.manifest.head, LanguageModelHead):
        raise fault("/model", f"expected an image model for `Accept: image/png`, {model.manifest.name} generates text")
    seed = _resolve_seed(request)
    images_BHW = await _generate_images(model, runner, request, seed, context)
    return encode_png(make_grid(images_BHW)), seed


def _resolve_seed(request: GenerateRequest) -> int:
    return secrets.randbelow(MAX_SEED + 1) if request.seed is None else request.seed


async def _complete(
    model: Model, runner: Runner, request: GenerateRequest, seed: int, context: RequestContext
) -> list[JsonObject]:
    head = model.manifest.head
    assert isinstance(head, LanguageModelHead), "the head of text models that generate"
    assert model.tokenizer is not None, "every text model has a tokenizer"
    decode = model.tokenizer.decode
    check_unused_fields(["count"], request.model_fields_set, model.manifest, "`prompt`")
    prompts = _read_prompts(request.prompt, model.manifest)
    rows = await tokenize(prompts, model, runner, context)
    params = GenerationParams(
        max_tokens=_max_tokens(request, max(map(len, rows)), model.manifest),
        sampling=Sampling(temperature=request.temperature, top_k=request.top_k, top_p=request.top_p, seed=seed),
        stops=_read_stops(request.stop),
        stop_ids=frozenset(head.eos_ids),
    )
    try:
        generated_rows = await generate_tokens(model.session, rows, params, runner, decode, context=context)
    except NotFiniteLogitsError as error:
        where = f"{model.manifest.name}/{model.manifest.version}"
        raise not_finite(where, {error.row: "logits"}, list(prompts)) from error
    completions: list[JsonObject] = []
    for generated in generated_rows:
        completion = {"text": generated.text, "finish_reason": generated.finish_reason, "tokens": len(generated.ids)}
        if request.logprobs:
            completion["logprobs"] = [
                {"token": decode([token]), "logprob": logprob}
                for token, logprob in zip(generated.ids, generated.logprobs, strict=True)
            ]
        completions.append(completion)
    return completions


def _read_prompts(prompt: Any, manifest: Manifest) -> dict[str, Any]:
    """Map JSON pointers to prompts."""
    if isinstance(prompt, str):
        return {"/prompt": prompt}
    if not isinstance(prompt, list):
        raise type_fault("/prompt", "a text or a list of texts", prompt)
    check_items(prompt, manifest, "/prompt")
    return {f"/prompt/{i}": text for i, text in enumerate(prompt)}


def _max_tokens(request: GenerateRequest, longest_prompt: int, manifest: Manifest) -> int:
    if request.max_tokens is None:
        # The generation ends earlier for a prompt that leaves less of the context.
        return 64
    context_size = manifest.limits.max_steps
    assert context_size is not None, "every text model has max_steps"
    if request.max_tokens > (max_new := context_size - longest_prompt):
        expected = f"1 to {max_new} (the context of {context_size} less a prompt of {longest_prompt})"
        raise type_fault("/max_tokens", expected, request.max_tokens)
    return request.max_tokens


def _read_stops(stops: list[Any]) -> tuple[str, ...]:
    if len(stops) > MAX_STOPS:
        raise type_fault("/stop", f"at most {MAX_STOPS} texts", stops)
    for i, stop in enumerate(stops):
        if not isinstance(stop, str) or not 1 <= len(stop) <= MAX_STOP_CHARS:
            raise type_fault(f"/stop/{i}", f"a text of 1 to {MAX_STOP_CHARS} characters", stop)
    return tuple(stops)


def sample_latents(seed: int, count: int, size: int) -> npt.NDArray[np.float32]:
    """Sample standard normal float32 [count, size]; only (seed, i) determines row i."""
    rows = [np.random.Generator(np.random.Philox(key=[seed, i])) for i in range(count)]
    return np.stack([row.standard_normal(size, np.float32) for row in rows])


async def _generate_images(
    model: Model, runner: Runner, request: GenerateRequest, seed: int, context: RequestContext
) -> npt.NDArray[np.uint8]:
    check_unused_fields(TEXT_FIELDS, request.model_fields_set, model.manifest, "`count` and `seed`")
    count = 1 if request.count is None else request.count
    if count > model.manifest.limits.max_items:
        raise type_fault("/count", f"a count of 1 to {model.manifest.limits.max_items}", count)
    [spec] = model.manifest.inputs  # float32 [batch, size]: see `is_latent_generator`
    size = spec.shape[1]
    assert isinstance(size, int)
    latents = sample_latents(seed, count, size)
    outputs = await runner.run(model.session, {"latents": latents}, ["images"], context=context, items="/images")
    return outputs["images"]
