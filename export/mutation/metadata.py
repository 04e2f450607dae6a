"""Mutants of what surrounds the graph: the labels of the manifest, and the tokenizer."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from export.candidate import Candidate
from export.mutation.mutant import Mutant

MAX_LABEL_PAIRS = 45
NUM_TOKEN_PAIRS = 6


def metadata_mutants(candidate: Candidate, rng: np.random.Generator) -> list[Mutant]:
    """Pairs of labels swapped, labels shifted, and changes of the tokenizer."""
    return [*_label_mutants(candidate, rng), *_tokenizer_mutants(candidate, rng)]


def _label_mutants(candidate: Candidate, rng: np.random.Generator) -> Iterator[Mutant]:
    labels: tuple[str, ...] = candidate.manifest.labels
    pairs = [(first, second) for second in range(len(labels)) for first in range(second)]
    for number in rng.permutation(len(pairs))[:MAX_LABEL_PAIRS]:
        first, second = pairs[number]
        order = list(labels)
        order[first], order[second] = order[second], order[first]
        yield Mutant(kind="labels", location=f"{first} and {second} swapped", apply=partial(_set_labels, labels=order))
    if labels:
        order = [*labels[1:], labels[0]]
        yield Mutant(kind="labels", location="shifted by one", apply=partial(_set_labels, labels=order))


def _set_labels(candidate: Candidate, *, labels: list[str]) -> Candidate:
    changed = candidate.manifest.head.model_copy(update={"labels": tuple(labels)})
    return replace(candidate, manifest=candidate.manifest.model_copy(update={"head": changed}))


def _tokenizer_mutants(candidate: Candidate, rng: np.random.Generator) -> Iterator[Mutant]:
    if candidate.tokenizer is None:
        return
    content = json.loads(candidate.tokenizer)
    tokens = list(content["model"]["vocab"])
    for _ in range(NUM_TOKEN_PAIRS):
        first, second = (tokens[i] for i in rng.choice(len(tokens), 2, replace=False))
        yield _tokenizer_mutant(f"{first!r} and {second!r} swapped", partial(_swap_ids, first=first, second=second))
    yield _tokenizer_mutant("ids shifted by one", _shift_ids)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if content.get(part) is not None:
            yield _tokenizer_mutant(f"no {part}", partial(_drop_part, part=part))
    if content["model"].get("merges"):
        yield _tokenizer_mutant("half of the merges", _drop_merges)
    if content["model"].get("unk_token"):
        yield _tokenizer_mutant("another unknown token", partial(_set_unknown, token=tokens[-1]))


def _tokenizer_mutant(location: str, change: Callable[[dict[str, Any]], None]) -> Mutant:
    def apply(candidate: Candidate) -> Candidate:
        content = json.loads(candidate.tokenizer or "")
        change(content)
        return replace(candidate, tokenizer=json.dumps(content, ensure_ascii=False))

    return Mutant(kind="tokenizer", location=location, apply=apply)


def _swap_ids(content: dict[str, Any], *, first: str, second: str) -> None:
    vocabulary = content["model"]["vocab"]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]


def _shift_ids(content: dict[str, Any]) -> None:
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {token: (i + 1) % len(vocabulary) for token, i in vocabulary.items()}


def _drop_part(content: dict[str, Any], *, part: str) -> None:
    content[part] = None


def _drop_merges(content: dict[str, Any]) -> None:
    merges = content["model"]["merges"]
    del merges[len(merges) // 2 :]


def _set_unknown(content: dict[str, Any], *, token: str) -> None:
    content["model"]["unk_token"] = token
