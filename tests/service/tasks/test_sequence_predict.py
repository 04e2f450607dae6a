"""Rows of any length are answered as if alone; a state continues where it was left."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from tests.service.bundles import PARAMETERS, WORDS, onnx_model

RNG = np.random.default_rng(2)
ROWS = [RNG.normal(size=(steps, 2)).round(3).tolist() for steps in (1, 12, 3, 7)]
Ask = Callable[..., dict[str, Any]]


def graph(family: str, outputs: list[str], **inputs: Any) -> list[np.ndarray[Any, Any]]:
    """The graph without the service, one row at a time, no padding."""
    session = ort.InferenceSession(onnx_model(family).SerializeToString(), providers=["CPUExecutionProvider"])
    results: list[np.ndarray[Any, Any]] = session.run(outputs, inputs)
    return results


def alone(family: str, row: list[list[float]]) -> np.ndarray[Any, Any]:
    inputs: dict[str, Any] = {"series": np.array([row], np.float32), "lengths": np.array([len(row)])}
    if family == "series-tagger":
        inputs |= {"h": np.zeros((1, 1, 3), np.float32), "c": np.zeros((1, 1, 3), np.float32)}
    return graph(family, ["probabilities"], **inputs)[0][0]


def test_series_of_mixed_lengths_are_answered_as_alone(ask: Ask) -> None:
    labels = PARAMETERS["series-classifier"]["labels"]
    answer = ask("series-classifier", sequences=ROWS)
    for prediction, row in zip(answer["predictions"], ROWS, strict=True):
        expected = alone("series-classifier", row)
        assert prediction["label"] == labels[int(expected.argmax())]
        assert prediction["probability"] == pytest.approx(float(expected.max()), abs=1e-6)
        assert set(prediction) == {"label", "probability", "top"}


def test_texts_are_answered_as_alone_with_their_tokens(ask: Ask) -> None:
    texts = ["rice", "the train leaves at noon goal", "zebra fish"]
    answer = ask("text-classifier", texts=texts, top_k=1)
    for prediction, text in zip(answer["predictions"], texts, strict=True):
        ids = [WORDS.index(word) if word in WORDS else 0 for word in text.split()]
        expected = graph("text-classifier", ["probabilities"], ids=np.array([ids]), lengths=np.array([len(ids)]))[0][0]
        assert prediction["probability"] == pytest.approx(float(expected.max()), abs=1e-6)
        assert prediction["tokens"] == len(ids)
        assert len(prediction["top"]) == 1


def test_a_long_text_is_cut_if_asked(ask: Ask) -> None:
    [cut] = ask("text-classifier", texts=["rice " * 9], truncate=True)["predictions"]
    assert [cut] == ask("text-classifier", texts=["rice " * 6])["predictions"]


def test_the_stateful_model_answers_each_step_and_the_last(ask: Ask) -> None:
    labels = PARAMETERS["series-tagger"]["labels"]
    for prediction, row in zip(ask("series-tagger", sequences=ROWS)["predictions"], ROWS, strict=True):
        expected = alone("series-tagger", row)
        assert [step["label"] for step in prediction["steps"]] == [labels[i] for i in expected.argmax(axis=1)]
        assert [step["probability"] for step in prediction["steps"]] == pytest.approx(expected.max(axis=1), abs=1e-6)
        assert prediction["steps"][-1] == prediction["top"][0]


def test_a_state_continues_where_it_was_left(ask: Ask) -> None:
    [whole] = ask("series-tagger", sequences=[ROWS[1]])["predictions"]
    [first] = ask("series-tagger", sequences=[ROWS[1][:5]])["predictions"]
    answer = ask("series-tagger", sequences=[ROWS[2], ROWS[1][5:]], states=[None, first["state"]])
    rest = answer["predictions"][1]
    assert [step["label"] for step in first["steps"] + rest["steps"]] == [step["label"] for step in whole["steps"]]
    assert rest["probability"] == pytest.approx(whole["probability"], abs=1e-6)
    assert rest["probability"] != ask("series-tagger", sequences=[ROWS[1][5:]])["predictions"][0]["probability"]


@pytest.mark.parametrize(
    ("family", "body", "where", "detail"),
    [
        ("series-classifier", {}, "/sequences", "this field is required: tiny-series reads series of numbers"),
        ("series-classifier", {"texts": ["a"]}, "/texts", "not a field for tiny-series, which takes `sequences`"),
        ("series-classifier", {"sequences": ROWS, "states": []}, "/states", "not a field for tiny-series"),
        ("series-classifier", {"sequences": []}, "/sequences", "expected 1 to 8 items, got an empty list"),
        ("series-classifier", {"sequences": [[]]}, "/sequences/0", "expected 1 to 12 steps, got 0"),
        (
            "series-classifier",
            {"sequences": [[[1, 2]] * 13]},
            "/sequences/0",
            "expected 1 to 12 steps, got 13",
        ),
        ("series-classifier", {"sequences": [[[1, 2, 3]]]}, "/sequences/0/0", "expected a list of 2 numbers"),
        ("series-classifier", {"sequences": [[[1, "2"]]]}, "/sequences/0/0/1", "expected a number, got '2'"),
        ("series-classifier", {"sequences": ["ab"]}, "/sequences/0", "got 'ab'"),
        ("series-tagger", {"sequences": ROWS, "states": [None]}, "/states", "as many states as sequences (4)"),
        ("series-tagger", {"sequences": ROWS[:1], "states": ["x"]}, "/states/0", "a `state` of an earlier answer"),
        ("series-tagger", {"sequences": ROWS, "truncate": True}, "/truncate", "not a field for tiny-tags"),
        ("text-classifier", {}, "/texts", "this field is required: tiny-texts reads texts"),
        ("text-classifier", {"sequences": ROWS}, "/sequences", "not a field for tiny-texts, which takes `texts`"),
        ("text-classifier", {"texts": "rice"}, "/texts", "expected a valid list, got 'rice'"),
        ("text-classifier", {"texts": ["rice"] * 9}, "/texts", "expected 1 to 8 items, got a list of 9"),
        ("text-classifier", {"texts": ["rice", " "]}, "/texts/1", "at least 1 token"),
        ("text-classifier", {"texts": ["rice " * 7]}, "/texts/0", "expected at most 6 tokens, got 7"),
    ],
)
def test_what_is_wrong_is_named(
    refusal: Callable[..., tuple[str, str]], family: str, body: dict[str, Any], where: str, detail: str
) -> None:
    pointer, sentence = refusal(family, **body)
    assert pointer == where
    assert detail in sentence
