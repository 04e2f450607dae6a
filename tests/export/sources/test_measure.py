"""The metric is that of an independent count over the examples."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.sources.measure import check_scores, measure
from export.sources.payload import read_payload
from export.spec import parse_spec
from service.contract.heads import EmbeddingHead, Head, LabelsHead, MultilabelHead, TokenLabelsHead, ValuesHead

X = np.random.default_rng(0).random((70, 2)).astype(np.float32)


def measured(folder: Path, head: Head, spec: dict[str, Any], targets: Any, output: str) -> dict[str, float]:
    np.savez(folder / "e.npz", x=X, y=targets)
    payload = read_payload(
        parse_spec({"reader": {"kind": "tensors"}, "head": spec}, folder / "s.toml"), folder / "e.npz"
    )
    return measure(head, payload, lambda inputs: {output: inputs["x"]})


def test_labels(tmp_path: Path) -> None:
    targets = np.arange(70) % 2
    found = measured(tmp_path, LabelsHead(labels=("a", "b")), {"kind": "labels", "labels": 2}, targets, "probabilities")
    assert found == {"test_accuracy": pytest.approx((X.argmax(1) == targets).mean())}


def test_several_labels_count_each(tmp_path: Path) -> None:
    targets = (np.arange(140) % 3 == 0).reshape(70, 2)
    head = MultilabelHead(labels=("a", "b"), threshold=0.3)
    found = measured(tmp_path, head, {"kind": "multilabel", "labels": 2}, targets, "probabilities")
    assert found == {"test_accuracy": pytest.approx(((X >= 0.3) == targets).mean())}


def test_values_have_an_error(tmp_path: Path) -> None:
    head, spec = ValuesHead(names=("a", "b"), units=("", "")), {"kind": "values", "names": ["a", "b"]}
    found = measured(tmp_path, head, spec, X + 0.5, "values")
    assert found == {"test_mean_absolute_error": pytest.approx(0.5, abs=1e-6)}


def test_steps_behind_the_end_do_not_count(tmp_path: Path) -> None:
    series, lengths = np.random.default_rng(1).normal(size=(9, 4, 2)).astype(np.float32), np.arange(9) % 4 + 1
    # A file may hold any target behind the end of a row.
    targets = np.where(np.arange(4) < lengths[:, None], series.argmax(2), series.argmin(2))
    np.savez(tmp_path / "e.npz", series=series, lengths=lengths, targets=targets)
    spec = {"reader": {"kind": "series", "channels": 2}, "head": {"kind": "token-labels", "labels": 2}}
    payload = read_payload(parse_spec(spec, tmp_path / "s.toml"), tmp_path / "e.npz")
    found = measure(TokenLabelsHead(labels=("a", "b")), payload, lambda inputs: {"probabilities": inputs["series"]})
    assert found == {"test_accuracy": 1.0}


def test_other_heads_have_no_metric(tmp_path: Path) -> None:
    head = EmbeddingHead(size=2, normalized=False)
    assert measured(tmp_path, head, {"kind": "embedding"}, np.arange(70), "embedding") == {}


@pytest.mark.parametrize(
    ("scores", "outputs", "message"),
    [
        ([[0.2, 0.8]], {}, None),
        ([[0.2, 0.9]], {}, "is no probability; set activation"),
        ([[-3.0, 4.0]], {}, "holds -3 to 4 and is no probability"),
        ([[0.4, 0.6]], {"logits": [[0.1, 0.9]]}, "holds probabilities already"),
        ([[0.4, 0.6]], {"logits": [[-0.1, 0.3]]}, None),
    ],
)
def test_scores_are_probabilities_once(
    scores: list[list[float]], outputs: dict[str, Any], message: str | None, tmp_path: Path
) -> None:
    assert_checked(LabelsHead(labels=("a", "b")), scores, outputs, message, tmp_path)


@pytest.mark.parametrize(
    ("scores", "outputs", "message"),
    [
        ([[0.2, 0.9]], {}, None),
        ([[0.2, 1.5]], {}, "holds 0.2 to 1.5 and is no probability"),
        ([[0.55, 0.7]], {"logits": [[0.2, 0.9]]}, "a sigmoid would change it"),
        ([[0.45, 0.7]], {"logits": [[-0.2, 0.9]]}, None),
    ],
)
def test_scores_of_several_labels_are_probabilities_once(
    scores: list[list[float]], outputs: dict[str, Any], message: str | None, tmp_path: Path
) -> None:
    assert_checked(MultilabelHead(labels=("a", "b")), scores, outputs, message, tmp_path)


def assert_checked(head: Head, scores: Any, outputs: dict[str, Any], message: str | None, folder: Path) -> None:
    arrays = {name: np.array(value, np.float32) for name, value in {"probabilities": scores, **outputs}.items()}
    reader: dict[str, Any] = {"kind": "tensors"}
    if isinstance(head, TokenLabelsHead):
        np.savez(folder / "e.npz", series=np.zeros((9, 2, 1), np.float32), lengths=np.arange(9) % 2 + 1)
        arrays = {name: np.repeat(array[None], 9, 0) for name, array in arrays.items()}
        reader = {"kind": "series", "channels": 1}
    else:
        np.savez(folder / "e.npz", x=X)
    spec = parse_spec({"reader": reader, "head": {"kind": head.kind, "labels": 2}}, folder / "s.toml")
    payload = read_payload(spec, folder / "e.npz")
    if message is None:
        check_scores(head, payload, lambda _: arrays)
    else:
        with pytest.raises(ValueError, match=message):
            check_scores(head, payload, lambda _: arrays)


@pytest.mark.parametrize(
    ("scores", "outputs", "message"),
    [
        ([[0.2, 0.8], [0.5, 0.5]], {}, None),
        ([[0.2, 0.8], [-2, 5]], {}, "head token-labels holds -2 to 5 and is no probability"),
        ([[0.4, 0.6], [0.5, 0.5]], {"logits": [[0.1, 0.9], [0, 1]]}, "a softmax would change them"),
    ],
)
def test_scores_of_steps_are_probabilities_once(
    scores: list[list[float]], outputs: dict[str, Any], message: str | None, tmp_path: Path
) -> None:
    assert_checked(TokenLabelsHead(labels=("a", "b")), scores, outputs, message, tmp_path)
