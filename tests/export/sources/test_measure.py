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
    arrays = {name: np.array(value, np.float32) for name, value in {"probabilities": scores, **outputs}.items()}
    np.savez(tmp_path / "e.npz", x=X)
    spec = parse_spec({"reader": {"kind": "tensors"}, "head": {"kind": "labels", "labels": 2}}, tmp_path / "s.toml")
    payload = read_payload(spec, tmp_path / "e.npz")
    head = LabelsHead(labels=("a", "b"))
    if message is None:
        check_scores(head, payload, lambda _: arrays)
    else:
        with pytest.raises(ValueError, match=message):
            check_scores(head, payload, lambda _: arrays)
