"""The fields that OpenAI's requests for completions and for chats share.

Invariant: a field is used, or changes no answer, or is refused. A field that is null counts as absent.
"""

import secrets
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ConfigDict, Field

from service.contract.tensors import FrozenModel
from service.errors import Fault
from service.tasks.body import parse_request
from service.tasks.faults import describe_value, invalid_request, json_pointer
from service.tasks.generation.fields import MAX_STOPS, SamplingFields, read_stops

MIN_SEED, MAX_SEED = -(2**63), 2**63 - 1
MAX_CHOICES = 128
# Fields that change no answer, whatever their value.
UNUSED = frozenset({"metadata", "prompt_cache_key", "safety_identifier", "store", "user"})
# Fields of other servers and models, with the values that ask for nothing; our own fields take other values, too.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "ignore_eos": (False,),
    "use_beam_search": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
    "stop_token_ids": ([],),
    "length_penalty": (1,),
    "early_stopping": (False,),
    "top_k": (-1,),
}


class StreamOptions(FrozenModel):
    """`include_usage` adds a last chunk with the number of tokens."""

    model_config = ConfigDict(strict=True)

    include_usage: bool = False
    include_obfuscation: bool = Field(default=False, description="padding is not supported: only false", le=False)


class OpenAIFields(SamplingFields):
    """The fields of both routes; top_k, min_p, repetition_penalty and min_tokens are extensions of OpenAI's."""

    temperature: float = Field(default=1.0, ge=0, le=2, description="0 selects the most probable token")
    n: int = Field(default=1, ge=1, le=MAX_CHOICES, description="completions of each prompt; all of them differ")
    stop: Any = Field(
        default=[],
        description=f"a text, or up to {MAX_STOPS} texts, that end a completion; the completion does not contain them",
        json_schema_extra={"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    )
    seed: int | None = Field(
        default=None, ge=MIN_SEED, le=MAX_SEED, description="the same seed gives the same answer; random by default"
    )
    stream: bool = Field(default=False, description="answer with server-sent events, the last of which is [DONE]")
    stream_options: StreamOptions | None = None

    @property
    def include_usage(self) -> bool:
        """True if the number of tokens follows the chunks of a stream."""
        return self.stream_options is not None and self.stream_options.include_usage


FieldsT = TypeVar("FieldsT", bound=OpenAIFields)


def parse_fields(request: type[FieldsT], content: Any) -> FieldsT:
    """Validate decoded JSON; raises EkibenError with a fault per mistake."""
    if isinstance(content, dict):
        content = {
            name: value
            for name, value in content.items()
            if value is not None and name not in UNUSED and value not in NEUTRAL.get(name, ())
        }
        faults = [
            Fault(pointer=json_pointer(name), detail=f"is not supported, got {describe_value(content[name])}")
            for name in NEUTRAL
            if name in content and name not in request.model_fields
        ]
        if faults:
            raise invalid_request(faults)
    parsed = parse_request(request, content)
    if parsed.stream_options is not None and not parsed.stream:
        raise invalid_request([Fault(pointer="/stream_options", detail="expected only with `stream`")])
    return parsed


def engine_seed(fields: OpenAIFields) -> int:
    """Return the seed as a whole number below 2**64, random if there is none."""
    return secrets.randbelow(MAX_SEED + 1) if fields.seed is None else fields.seed % 2**64


def engine_stops(fields: OpenAIFields) -> tuple[str, ...]:
    """Return the texts that end a completion. Raises EkibenError."""
    return read_stops([fields.stop] if isinstance(fields.stop, str) else fields.stop)
