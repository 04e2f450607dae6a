"""Labels and tokenizer are the run's own, and the tokenizer gives the ids of training."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from export.candidate import Candidate
from export.errors import ExportError
from export.gates.vocabulary.gate import check_vocabulary
from service.manifest import TOKENIZER
from tests.export.conftest import Candidates
from training.recipe import IGNORE_INDEX, Split

TEXT_MODELS = ("tiny-text", "tiny-prenorm")
Settings = dict[str, Any]


def with_labels(candidate: Candidate, labels: tuple[str, ...]) -> Candidate:
    head = candidate.manifest.head.model_copy(update={"labels": labels})
    return replace(candidate, manifest=candidate.manifest.model_copy(update={"head": head}))


def edited(candidate: Candidate, change: Callable[[Settings], object]) -> str:
    assert candidate.tokenizer is not None
    settings = json.loads(candidate.tokenizer)
    change(settings)
    return json.dumps(settings)


def rewritten(candidate: Candidate, tokenizer: str, **changes: Any) -> Candidate:
    """The candidate of a run folder whose tokenizer and hash were replaced."""
    run = candidate.source.run
    assert run is not None
    files = {**run.checkpoint.files, TOKENIZER: hashlib.sha256(tokenizer.encode()).hexdigest()}
    run = replace(run, checkpoint=replace(run.checkpoint, files=files))
    source = replace(candidate.source, run=run, tokenizer=tokenizer, **changes)
    return replace(candidate, source=source, tokenizer=tokenizer)


def refusal(candidate: Candidate) -> str:
    with pytest.raises(ExportError, match=r"^vocabulary: ") as caught:
        check_vocabulary(candidate)
    return caught.value.detail


def swap(first: int, second: int) -> Callable[[Settings], object]:
    def change(settings: Settings) -> None:
        ids = settings["model"]["vocab"]
        tokens = {i: token for token, i in ids.items()}
        ids[tokens[first]], ids[tokens[second]] = second, first

    return change


def test_only_text_models_have_token_cases(candidates: Candidates) -> None:
    assert check_vocabulary(candidates("tiny-picture")) == ()
    for name in TEXT_MODELS:
        cases = check_vocabulary(candidates(name))
        assert [(case.text, case.ids) for case in cases] == [
            (case.text, case.ids) for case in candidates(name).source.tokens
        ]


@pytest.mark.parametrize("name", ["tiny-picture", "tiny-tagger", "tiny-text"])
def test_every_pair_of_swapped_labels_is_refused(candidates: Candidates, name: str) -> None:
    labels = candidates(name).source.labels
    for i, j in combinations(range(len(labels)), 2):
        swapped = list(labels)
        swapped[i], swapped[j] = labels[j], labels[i]
        expected = f"label {i} of the manifest is {labels[j]!r}, the source has {labels[i]!r}"
        assert refusal(with_labels(candidates(name), tuple(swapped))) == expected


def test_a_missing_label_is_refused(candidates: Candidates) -> None:
    candidate = candidates("tiny-picture")
    labels = candidate.source.labels
    assert refusal(with_labels(candidate, labels[:-1])) == "the manifest has 3 labels, the source 4"


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_another_tokenizer_than_the_runs_is_refused(candidates: Candidates, name: str) -> None:
    candidate = candidates(name)
    assert "the candidate has none" in refusal(replace(candidate, tokenizer=None))
    assert "the source has none" in refusal(replace(candidate, source=replace(candidate.source, tokenizer=None)))
    swapped = edited(candidate, swap(5, 6))
    assert refusal(replace(candidate, tokenizer=swapped)) == "tokenizer.json differs from the source's"
    both = replace(candidate, source=replace(candidate.source, tokenizer=swapped), tokenizer=swapped)
    assert "was changed after the run" in refusal(both)


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_a_rewritten_run_folder_is_refused_by_its_test_split(candidates: Candidates, name: str) -> None:
    candidate = candidates(name)
    detail = refusal(rewritten(candidate, edited(candidate, swap(5, 6)), tokens=()))
    assert detail.startswith(
        "tokenizer.json: test text " if name == "tiny-text" else "tokenizer.json: the test text: token "
    )


def test_a_rewritten_run_folder_is_refused_by_its_token_cases(candidates: Candidates) -> None:
    candidate = candidates("tiny-text")
    lowercase = edited(candidate, lambda settings: settings.update(normalizer={"type": "Lowercase"}))
    check_vocabulary(rewritten(candidate, lowercase, tokens=()))
    assert "token 0 of '[PAD] [UNK] ash" in refusal(rewritten(candidate, lowercase))


def test_a_tokenizer_of_another_size_is_refused(candidates: Candidates) -> None:
    candidate = candidates("tiny-text")
    without = edited(candidate, lambda settings: settings["model"]["vocab"].pop("yew"))
    assert refusal(rewritten(candidate, without)) == (
        "tokenizer.json: 17 tokens have 17 ids, the model's vocabulary has 18"
    )
    doubled = edited(candidate, lambda settings: settings["model"]["vocab"].update(yew=5))
    assert "have 17 ids, the model's vocabulary has 18" in refusal(rewritten(candidate, doubled))


def test_a_tokenizer_that_pads_or_is_slow_is_refused(candidates: Candidates) -> None:
    candidate = candidates("tiny-text")
    padding = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0}
    padded = edited(
        candidate, lambda settings: settings.update(padding={**padding, "pad_type_id": 0, "pad_token": "[PAD]"})
    )
    assert "saves padding settings" in refusal(rewritten(candidate, padded))
    rule = {"type": "Replace", "pattern": {"Regex": "&lt;.*?&gt;"}, "content": " "}
    slow = edited(candidate, lambda settings: settings.update(normalizer=rule))
    assert "characters of '&lt;'" in refusal(rewritten(candidate, slow, tokens=()))


def test_a_test_split_without_texts_is_refused(candidates: Candidates) -> None:
    candidate = candidates("tiny-text")
    test = candidate.source.examples
    without = Split(inputs=test.inputs, targets=test.targets)
    assert "has no texts" in refusal(replace(candidate, source=replace(candidate.source, examples=without)))
    fewer = Split(inputs=test.inputs, targets=test.targets, texts=test.texts[:-1])
    assert refusal(replace(candidate, source=replace(candidate.source, examples=fewer))).endswith(
        "48 items and 47 texts"
    )


def test_a_text_that_training_has_cut_may_go_on(candidates: Candidates) -> None:
    candidate = candidates("tiny-text")
    test = candidate.source.examples
    lengths, texts = test.inputs["lengths"], list(test.texts)
    longest, shortest = int(lengths.argmax()), int(lengths.argmin())

    def longer(item: int) -> Candidate:
        changed = tuple(f"{text} yew" if i == item else text for i, text in enumerate(texts))
        split = Split(inputs=test.inputs, targets=test.targets, texts=changed)
        return replace(candidate, source=replace(candidate.source, examples=split))

    check_vocabulary(longer(longest))
    tokens = lengths[shortest]
    assert f"test text {shortest}: " in (detail := refusal(longer(shortest)))
    assert detail.endswith(f"has {tokens + 1} tokens, expected {tokens}")


def test_the_text_is_that_of_the_targets(candidates: Candidates) -> None:
    candidate = candidates("tiny-prenorm")
    test = candidate.source.examples

    def with_targets(targets: Any) -> Candidate:
        split = Split(inputs=test.inputs, targets=targets, texts=test.texts)
        return replace(candidate, source=replace(candidate.source, examples=split))

    padded = np.insert(test.targets, 0, IGNORE_INDEX, axis=1)
    check_vocabulary(with_targets(padded))
    assert "192 tokens, expected 168" in refusal(with_targets(np.delete(test.targets, 3, axis=0)))
    assert "the test text: token 0 of" in refusal(with_targets(test.targets[::-1]))
