"""What calls take and return."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

Json = dict[str, Any]
Array = npt.NDArray[Any]


class Options(TypedDict, total=False):
    """Options of readers and heads; see `docs/http.md`."""

    top_k: int
    threshold: float
    truncate: bool


class Items(Options, total=False):
    """One of these fields holds the items of a request."""

    images: Sequence[Any]
    texts: Sequence[str]
    sequences: Sequence[Any]
    rows: Sequence[Mapping[str, Any]]
    tensors: Mapping[str, Any]
    states: Sequence[Any]


class ManyItems(Options, total=False):
    """One of these fields holds the items of as many requests as they take."""

    images: Iterable[Any]
    texts: Iterable[str]
    sequences: Iterable[Any]
    rows: Iterable[Mapping[str, Any]]


class Sampling(TypedDict, total=False):
    """Parameters of text generation; see `docs/generation.md`."""

    max_tokens: int
    min_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[str, float]
    stop: Sequence[str]
    seed: int
    logprobs: bool


class Latents(TypedDict, total=False):
    """Parameters of image generation."""

    count: int
    seed: int
    seed_to: int
    steps: int
    truncation: float


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """One prediction for each item, in order, as `docs/http.md` describes it."""

    model: str
    version: str
    predictions: list[Json]


@dataclass(frozen=True, kw_only=True)
class Completion:
    text: str
    finish_reason: str
    tokens: int
    logprobs: list[Json] | None = None


@dataclass(frozen=True, kw_only=True)
class Completions:
    """One completion for each prompt; `seed` repeats them."""

    model: str
    version: str
    seed: int
    completions: list[Completion]


@dataclass(frozen=True, kw_only=True)
class Images:
    """PNG files; `seed` repeats them."""

    model: str
    version: str
    seed: int
    images: list[bytes]


@dataclass(frozen=True, kw_only=True)
class TextEvent:
    """More text of the completion of prompt `index`; the last one has `finish_reason` and the number of `tokens`."""

    index: int
    text: str
    logprobs: list[Json] | None = None
    finish_reason: str | None = None
    tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class StreamEnd:
    """The last event of a stream; `completions` says how each ended."""

    model: str
    version: str
    seed: int
    completions: list[Json]


@dataclass(frozen=True, kw_only=True)
class Tensors:
    """The outputs of a model by name, with the dtypes and shapes of the service."""

    model: str
    version: str
    outputs: dict[str, npt.NDArray[np.generic]]
