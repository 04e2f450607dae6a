"""The fields of requests for texts that all routes share, and their values for the engine."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from service.contract.readers import TextReader
from service.engine.generation.sampler import Sampling
from service.manifest import Manifest
from service.tasks.body import RequestBody, check_items
from service.tasks.faults import describe_value, fault, json_pointer, type_fault

MAX_STOPS = 4
MAX_STOP_CHARS = 64
MAX_BIAS = 100.0
MAX_BIASED_TOKENS = 1024
Prompts = dict[str, Any]  # by JSON pointer: a text, or a list of token ids


class SamplingFields(RequestBody):
    """How the tokens of a text are drawn."""

    temperature: float = Field(default=1.0, ge=0, le=10, description="0 selects the most probable token")
    top_k: int = Field(default=0, ge=0, description="sample from the k most probable tokens; 0 samples from all tokens")
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="sample from the most probable tokens that add up to this probability"
    )
    min_p: float = Field(
        default=0.0, ge=0, le=1, description="exclude tokens less probable than this share of the most probable one"
    )
    repetition_penalty: float = Field(
        default=1.0, gt=0, le=10, description="above 1, tokens of the prompt and the completion become less probable"
    )
    presence_penalty: float = Field(
        default=0.0, ge=-2, le=2, description="subtracted from the logit of each token of the completion"
    )
    frequency_penalty: float = Field(
        default=0.0, ge=-2, le=2, description="subtracted for each time that a token occurs in the completion"
    )
    logit_bias: dict[str, float] = Field(
        default={}, description="by token id: added to the logit of the token, -100 to 100"
    )
    min_tokens: int = Field(default=0, ge=0, description="the model cannot end a completion before so many tokens")


def read_sampling(fields: SamplingFields, seed: int, manifest: Manifest) -> Sampling:
    """Return the values for the engine; raises EkibenError for a bias that is no bias of a token of the model."""
    return Sampling(
        temperature=fields.temperature,
        top_k=fields.top_k,
        top_p=fields.top_p,
        min_p=fields.min_p,
        repetition_penalty=fields.repetition_penalty,
        presence_penalty=fields.presence_penalty,
        frequency_penalty=fields.frequency_penalty,
        logit_bias=_read_bias(fields.logit_bias, manifest) if fields.logit_bias else {},
        min_tokens=fields.min_tokens,
        seed=seed,
    )


def read_prompts(prompt: Any, manifest: Manifest, *, takes_ids: bool = False) -> Prompts:
    """Return the prompts of a request by JSON pointer; raises EkibenError. Texts are checked when they are tokenized.

    A prompt may be a list of token ids if `takes_ids`.
    """
    if isinstance(prompt, str) or (takes_ids and _is_ids(prompt)):
        prompts = {"/prompt": prompt}
    elif isinstance(prompt, list):
        check_items(prompt, manifest, "/prompt")
        prompts = {f"/prompt/{i}": item for i, item in enumerate(prompt)}
    else:
        kinds = "a text, a list of texts, token ids or lists of those" if takes_ids else "a text or a list of texts"
        raise type_fault("/prompt", kinds, prompt)
    for pointer, item in prompts.items():
        if isinstance(item, list):
            if not takes_ids:
                raise type_fault(pointer, "a text", item)
            _check_ids(item, pointer, manifest)
    return prompts


def read_stops(stops: Any) -> tuple[str, ...]:
    """Return the texts that end a completion; raises EkibenError for too many, or one that is empty or too long."""
    if not isinstance(stops, list) or len(stops) > MAX_STOPS:
        raise type_fault("/stop", f"at most {MAX_STOPS} texts", stops)
    for i, stop in enumerate(stops):
        if not isinstance(stop, str) or not 1 <= len(stop) <= MAX_STOP_CHARS:
            raise type_fault(f"/stop/{i}", f"a text of 1 to {MAX_STOP_CHARS} characters", stop)
    return tuple(stops)


def check_max_tokens(max_tokens: int, longest_prompt: int, manifest: Manifest, *, pointer: str, minimum: int) -> None:
    """Raise EkibenError if the longest prompt leaves less of the context."""
    context_size = manifest.limits.max_steps
    assert context_size is not None, "every text model has max_steps"
    if max_tokens > (max_new := context_size - longest_prompt):
        expected = f"{minimum} to {max_new} (the context of {context_size} less a prompt of {longest_prompt})"
        raise type_fault(pointer, expected, max_tokens)


def _is_ids(prompt: Any) -> bool:
    return isinstance(prompt, list) and bool(prompt) and type(prompt[0]) is int


def _check_ids(ids: list[Any], pointer: str, manifest: Manifest) -> None:
    assert isinstance(manifest.reader, TextReader), "the reader of text models"
    assert manifest.limits.max_steps is not None, "every text model has max_steps"
    vocabulary, max_ids = manifest.reader.vocabulary, manifest.limits.max_steps - 1
    if not 1 <= len(ids) <= max_ids:
        raise fault(pointer, f"expected at most {max_ids} tokens and at least 1, got {len(ids)}")
    for i, token in enumerate(ids):
        if type(token) is not int or not 0 <= token < vocabulary:
            raise type_fault(f"{pointer}/{i}", f"a token id of 0 to {vocabulary - 1}", token)


def _read_bias(biases: Mapping[str, float], manifest: Manifest) -> dict[int, float]:
    assert isinstance(manifest.reader, TextReader), "the reader of text models"
    vocabulary = manifest.reader.vocabulary
    if len(biases) > MAX_BIASED_TOKENS:
        raise fault("/logit_bias", f"expected at most {MAX_BIASED_TOKENS} tokens, got {len(biases)}")
    for token, bias in biases.items():
        pointer = json_pointer("logit_bias", token)
        if not (token.isascii() and token.isdigit() and len(token) < 19 and int(token) < vocabulary):
            raise fault(pointer, f"expected a token id of 0 to {vocabulary - 1}, got {describe_value(token)}")
        if abs(bias) > MAX_BIAS:
            raise type_fault(pointer, f"-{MAX_BIAS:g} to {MAX_BIAS:g}", bias)
    return {int(token): bias for token, bias in biases.items()}
