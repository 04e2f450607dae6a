"""Predictions do not depend on other rows or padding; a state continues an earlier request."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from service.tasks.sequence_predict import SequencePredictRequest
from tests.service.bundles import HEADS, WORDS, onnx_model

RNG = np.random.default_rng(2)
ROWS = [RNG.normal(size=(steps, 2)).round(3).tolist() for steps in (1, 12, 3, 7)]
RunTask = Callable[..., dict[str, Any]]


def run_graph(family: str, outputs: list[str], **inputs: Any) -> list[np.ndarray[Any, Any]]:
    """Run the graph directly on one unpadded row."""
    session = ort.InferenceSession(onnx_model(family).SerializeToString(), providers=["CPUExecutionProvider"])
    results: list[np.ndarray[Any, Any]] = session.run(outputs, inputs)
    return results


def run_single_row(family: str, row: list[list[float]]) -> np.ndarray[Any, Any]:
    inputs: dict[str, Any] = {"series": np.array([row], np.float32), "lengths": np.array([len(row)])}
    if family == "series-tagger":
        inputs |= {"h": np.zeros((1, 1, 3), np.float32), "c": np.zeros((1, 1, 3), np.float32)}
    return run_graph(family, ["probabilities"], **inputs)[0][0]


def test_request_has_three_labels_by_default_and_documents_its_items() -> None:
    assert SequencePredictRequest(model="m").top_k == 3
    fields = SequencePredictRequest.model_json_schema()["properties"]
    assert fields["texts"]["items"] == {"type": "string"}
    assert fields["sequences"]["items"]["items"]["items"] == {"type": "number"}
    assert fields["states"]["items"] == {"type": "string", "nullable": True}


def test_series_of_mixed_lengths_match_the_graph_on_each_row_alone(run_task: RunTask) -> None:
    labels = HEADS["series-classifier"]["labels"]
    answer = run_task("series-classifier", sequences=ROWS)
    for prediction, row in zip(answer["predictions"], ROWS, strict=True):
        expected = run_single_row("series-classifier", row)
        assert prediction["label"] == labels[int(expected.argmax())]
        assert prediction["probability"] == pytest.approx(float(expected.max()), abs=1e-6)
        assert set(prediction) == {"label", "probability", "top"}


def test_texts_match_the_graph_on_each_row_alone(run_task: RunTask) -> None:
    texts = ["rice", "the train leaves at noon goal", "zebra fish"]
    answer = run_task("text-classifier", texts=texts, top_k=1)
    for prediction, text in zip(answer["predictions"], texts, strict=True):
        ids = [WORDS.index(word) if word in WORDS else 0 for word in text.split()]
        expected = run_graph("text-classifier", ["probabilities"], ids=np.array([ids]), lengths=np.array([len(ids)]))[
            0
        ][0]
        assert prediction["probability"] == pytest.approx(float(expected.max()), abs=1e-6)
        assert prediction["tokens"] == len(ids)
        assert len(prediction["top"]) == 1


def test_truncate_cuts_a_long_text(run_task: RunTask) -> None:
    [cut] = run_task("text-classifier", texts=["rice " * 9], truncate=True)["predictions"]
    assert [cut] == run_task("text-classifier", texts=["rice " * 6])["predictions"]


def test_stateful_model_predicts_every_step(run_task: RunTask) -> None:
    labels = HEADS["series-tagger"]["labels"]
    for prediction, row in zip(run_task("series-tagger", sequences=ROWS)["predictions"], ROWS, strict=True):
        expected = run_single_row("series-tagger", row)
        assert [step["label"] for step in prediction["steps"]] == [labels[i] for i in expected.argmax(axis=1)]
        assert [step["probability"] for step in prediction["steps"]] == pytest.approx(expected.max(axis=1), abs=1e-6)
        assert prediction["steps"][-1] == prediction["top"][0]


def test_state_continues_an_earlier_request(run_task: RunTask) -> None:
    [whole] = run_task("series-tagger", sequences=[ROWS[1]])["predictions"]
    [first] = run_task("series-tagger", sequences=[ROWS[1][:5]])["predictions"]
    answer = run_task("series-tagger", sequences=[ROWS[2], ROWS[1][5:]], states=[None, first["state"]])
    rest = answer["predictions"][1]
    assert [step["label"] for step in first["steps"] + rest["steps"]] == [step["label"] for step in whole["steps"]]
    assert rest["probability"] == pytest.approx(whole["probability"], abs=1e-6)
    assert rest["probability"] != run_task("series-tagger", sequences=[ROWS[1][5:]])["predictions"][0]["probability"]


@pytest.mark.parametrize(
    ("family", "body", "pointer", "detail"),
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
def test_invalid_request_names_field_and_expectation(
    refusal: Callable[..., tuple[str, str]], family: str, body: dict[str, Any], pointer: str, detail: str
) -> None:
    got_pointer, got_detail = refusal(family, **body)
    assert got_pointer == pointer
    assert detail in got_detail
