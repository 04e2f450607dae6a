"""POST /generate: a prompt is continued, or pictures are drawn.

Invariant: model version, request and seed decide the answer. A request without a seed is given one and told which, so
every answer can be had again; an item's answer does not depend on the other items of its request.
"""

import secrets
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field

from service.bundle import ImageGenerator, LanguageModel, Manifest
from service.engine.context import RequestContext
from service.engine.generation.decoder import GenerationParams, generate_tokens
from service.engine.generation.sampling import Sampling
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.tasks.body import Answer, Body, Document, refuse, wrong
from service.tasks.images import encode_png, grid, to_base64
from service.tasks.limits import check_items, check_task, check_unused
from service.tasks.texts import tokenize

MAX_SEED = 2**53 - 1  # the largest that every JSON reader keeps exact
MAX_STOPS = 4
DEFAULT_MAX_TOKENS = 64
MAX_STOP_CHARS = 64
TEXT_FIELDS = ("prompt", "max_tokens", "temperature", "top_k", "top_p", "stop", "logprobs")


class GenerateRequest(Body):
    """A prompt for a language model; a count for a model that draws."""

    prompt: Any = Field(
        default=None,
        description="text models: a text, or a list of texts",
        json_schema_extra={"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="at most so many new tokens; if not given, 64 or what the context has left"
    )
    temperature: float = Field(default=1.0, ge=0, le=10, description="0 always takes the most probable token")
    top_k: int = Field(default=0, ge=0, description="draw from the k most probable tokens only; 0 from all")
    top_p: float = Field(default=1.0, gt=0, le=1, description="draw from the most probable tokens of this joint mass")
    stop: list[Any] = Field(
        default=[],
        description=f"up to {MAX_STOPS} texts that end a completion and are not part of it",
        json_schema_extra={"items": {"type": "string"}, "maxItems": MAX_STOPS},
    )
    logprobs: bool = Field(default=False, description="give each token with its log probability")
    count: int | None = Field(default=None, ge=1, description="models that draw: how many pictures (1 if not given)")
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED, description="the same seed gives the same answer")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "text-transformer",
                "prompt": "The import statement ",
                "max_tokens": 64,
                "temperature": 0.8,
                "seed": 1,
            }
        }
    )


class TokenLogprob(Answer):
    """One token that was drawn, and the natural logarithm of its probability before temperature and cuts."""

    token: str
    logprob: float


class Completion(Answer):
    """What follows one prompt."""

    text: str
    finish_reason: Literal["stop", "length"]
    tokens: int = Field(description="how many tokens were generated")
    logprobs: list[TokenLogprob] | None = None


class GenerateAnswer(Answer):
    """Completions, or pictures; one for each item, in order."""

    model: str
    version: str = Field(description="the version of the model that answered")
    seed: int = Field(description="with it the same request gets the same answer")
    completions: list[Completion] | None = None
    images: list[str] | None = Field(default=None, description="base64 PNG")


async def generate(model: Model, runner: Runner, request: GenerateRequest, context: RequestContext) -> Document:
    """Continue every prompt, or draw `count` pictures; answers with a `GenerateAnswer`."""
    manifest = model.manifest
    check_task(manifest, "generate")
    seed = _seed(request)
    head = {"model": manifest.name, "version": manifest.version, "seed": seed}
    match manifest.parameters:
        case LanguageModel() as parameters:
            return {**head, "completions": await _complete(model, runner, parameters, request, seed, context)}
        case ImageGenerator() as parameters:
            images_BHW = await _draw(model, runner, parameters, request, seed, context)
            return {**head, "images": [to_base64(encode_png(image_HW)) for image_HW in images_BHW]}
        case _:
            raise AssertionError(f"{manifest.parameters.family} is no family of this task")


async def generate_grid(
    model: Model, runner: Runner, request: GenerateRequest, context: RequestContext
) -> tuple[bytes, int]:
    """All pictures of the request in one PNG, and their seed."""
    check_task(model.manifest, "generate")
    if not isinstance(model.manifest.parameters, ImageGenerator):
        raise refuse(
            "/model", f"expected a model that draws for `Accept: image/png`, {model.manifest.name} writes text"
        )
    seed = _seed(request)
    return encode_png(grid(await _draw(model, runner, model.manifest.parameters, request, seed, context))), seed


def _seed(request: GenerateRequest) -> int:
    return secrets.randbelow(MAX_SEED + 1) if request.seed is None else request.seed


async def _complete(
    model: Model,
    runner: Runner,
    parameters: LanguageModel,
    request: GenerateRequest,
    seed: int,
    context: RequestContext,
) -> list[Document]:
    manifest, tokenizer = model.manifest, model.tokenizer
    assert tokenizer is not None, "a text model has one"
    assert manifest.limits.max_steps is not None, "a text model has a limit"
    check_unused(["count"], request.model_fields_set, manifest, "`prompt`")
    size = manifest.limits.max_steps
    rows = await tokenize(
        _read_prompts(request.prompt, manifest),
        tokenizer,
        runner,
        context,
        vocabulary=parameters.vocabulary,
        max_steps=size - 1,
    )
    params = GenerationParams(
        max_tokens=_max_tokens(request, max(map(len, rows)), size),
        sampling=Sampling(temperature=request.temperature, top_k=request.top_k, top_p=request.top_p, seed=seed),
        stops=_read_stops(request.stop),
    )
    completions = await generate_tokens(model.session, rows, params, runner, tokenizer.decode, context=context)
    found = []
    for completion in completions:
        document: Document = {
            "text": completion.text,
            "finish_reason": completion.finish_reason,
            "tokens": len(completion.ids),
        }
        if request.logprobs:
            document["logprobs"] = [
                {"token": tokenizer.decode([token]), "logprob": logprob}
                for token, logprob in zip(completion.ids, completion.logprobs, strict=True)
            ]
        found.append(document)
    return found


def _read_prompts(prompt: Any, manifest: Manifest) -> dict[str, Any]:
    """JSON pointer -> prompt."""
    if isinstance(prompt, str):
        return {"/prompt": prompt}
    if not isinstance(prompt, list):
        raise wrong("/prompt", "a text or a list of texts", prompt)
    check_items(prompt, manifest, "/prompt")
    return {f"/prompt/{i}": text for i, text in enumerate(prompt)}


def _max_tokens(request: GenerateRequest, longest_prompt: int, context: int) -> int:
    if request.max_tokens is None:
        return DEFAULT_MAX_TOKENS  # or what the context has left, for each prompt by itself
    room = context - longest_prompt
    if request.max_tokens > room:
        raise wrong(
            "/max_tokens",
            f"1 to {room} (the context of {context} less a prompt of {longest_prompt})",
            request.max_tokens,
        )
    return request.max_tokens


def _read_stops(stops: list[Any]) -> tuple[str, ...]:
    if len(stops) > MAX_STOPS:
        raise wrong("/stop", f"at most {MAX_STOPS} texts", stops)
    for i, stop in enumerate(stops):
        if not isinstance(stop, str) or not 1 <= len(stop) <= MAX_STOP_CHARS:
            raise wrong(f"/stop/{i}", f"a text of 1 to {MAX_STOP_CHARS} characters", stop)
    return tuple(stops)


def latents(seed: int, count: int, size: int) -> npt.NDArray[np.float32]:
    """Standard normal float32 [count, size]; row i is decided by (seed, i) alone."""
    rows = [np.random.Generator(np.random.Philox(key=[seed, i])) for i in range(count)]
    return np.stack([row.standard_normal(size, np.float32) for row in rows])


async def _draw(
    model: Model,
    runner: Runner,
    parameters: ImageGenerator,
    request: GenerateRequest,
    seed: int,
    context: RequestContext,
) -> npt.NDArray[np.uint8]:
    check_unused(TEXT_FIELDS, request.model_fields_set, model.manifest, "`count` and `seed`")
    count = 1 if request.count is None else request.count
    if count > model.manifest.limits.max_items:
        raise wrong("/count", f"a count of 1 to {model.manifest.limits.max_items}", count)
    outputs = await runner.run(
        model.session, {"latents": latents(seed, count, parameters.latent_size)}, ["images"], context=context
    )
    return outputs["images"]
