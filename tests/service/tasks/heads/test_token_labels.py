"""Each token of a text, special ones excepted, and each step of a series has its label."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from service.engine.sessions.model import Model
from service.tasks.codecs.states import unpack_state
from service.tasks.codecs.texts import encode_each
from service.tasks.heads.token_labels import answers, label_tokens, options, outputs
from service.tasks.readers.payload import Group
from tests.service.pairs import SEQUENCES

LABELS = ("person", "place", "other")


def tokens(model: Model, text: str) -> Any:
    [encoded] = encode_each({"/texts/0": text}, model, truncate=True)
    probabilities = np.random.default_rng(2).uniform(size=(len(encoded.ids), 3)).astype(np.float32)  # type: ignore[union-attr]
    return label_tokens(encoded, probabilities, LABELS), probabilities  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["ann lives in rome", "  ann\t lives", "é😀ann 日本 rome", "ann and bob works at acme rome"]
)
def test_offsets_count_code_points_of_the_text_as_given(text: str, *, pair_models: dict[str, Model]) -> None:
    labelled, probabilities = tokens(pair_models["tiny-names"], text)
    assert [text[token["start"] : token["end"]] for token in labelled] == [token["text"] for token in labelled]
    words = text.replace("é😀ann", "é 😀 ann").split()[:6]
    assert [token["text"] for token in labelled] == words
    for token, row in zip(labelled, probabilities[1:], strict=False):
        assert token["label"] == LABELS[int(row.argmax())]
        assert token["probability"] == row.max()


def test_special_tokens_that_the_text_holds_are_tokens_of_the_text(pair_models: dict[str, Model]) -> None:
    labelled, _ = tokens(pair_models["tiny-names"], "ann [SEP] bob")
    assert [token["text"] for token in labelled] == ["ann", "[SEP]", "bob"]


def test_padding_of_a_batch_labels_no_token(predict_pair: Callable[..., Any]) -> None:
    both = predict_pair("tiny-names", texts=["ann lives in rome", "bob"])
    single = [predict_pair("tiny-names", texts=[text])[0] for text in ("ann lives in rome", "bob")]
    assert [[token["text"] for token in row["tokens"]] for row in both] == [["ann", "lives", "in", "rome"], ["bob"]]
    assert both == single


def test_a_series_has_a_label_for_each_step_and_those_after_its_last(predict_pair: Callable[..., Any]) -> None:
    first, second = predict_pair("tiny-steps", sequences=SEQUENCES, top_k=2)
    assert (len(first["steps"]), len(second["steps"])) == (2, 1)
    assert first["steps"][-1] == first["top"][0] == {key: first[key] for key in ("label", "probability")}
    assert len(first["top"]) == 2
    assert "state" not in first


def test_a_stateful_model_returns_its_state(models: dict[str, Model]) -> None:
    manifest = models["series-tagger"].manifest
    assert outputs(manifest) == ["probabilities", "next_h", "next_c"]
    h, c = np.full((2, 1, 1, 3), [[[[0.25]]], [[[0.5]]]], np.float32)
    computed = {"probabilities": np.full((1, 2, 3), 1 / 3, np.float32), "next_h": h, "next_c": c}
    [row] = answers(manifest, computed, Group({"lengths": np.array([2])}, range(1)), {"top_k": 1})
    state = unpack_state(row["state"], manifest, manifest.reader.state, "")  # type: ignore[union-attr,arg-type]
    assert state[:, 0, 0].tolist() == [0.25, 0.5]


def test_tokens_are_not_ranked(pair_models: dict[str, Model]) -> None:
    assert options(pair_models["tiny-names"].manifest) == ()
    assert options(pair_models["tiny-steps"].manifest) == ("top_k",)
    assert outputs(pair_models["tiny-names"].manifest) == ["probabilities"]
