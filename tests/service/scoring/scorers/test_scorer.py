"""Ranked labels as columns, and batches in order."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.engine.sessions.model import Model
from service.scoring.scorers import scorer
from service.scoring.scorers.scorer import rank_columns, run_batches
from service.tasks.heads.ranking import rank
from tests.service.scoring.inputs import images

LABELS = ("a", "b", "c")


@pytest.mark.parametrize("top_k", [1, 2, 3, 9])
@pytest.mark.parametrize("rows", [0, 1, 50])
def test_rank_columns_equals_the_ranking_of_the_service(top_k: int, rows: int) -> None:
    rng = np.random.default_rng(0)
    # Rounding makes ties.
    probabilities = np.round(rng.dirichlet(np.ones(3), rows).reshape(rows, 3), 1).astype(np.float32)
    found = rank_columns(probabilities, pa.array(LABELS), top_k)
    expected = rank(probabilities, LABELS, top_k) if rows else []
    assert found["columns"]["label"].to_pylist() == [top[0]["label"] for top in expected]
    assert found["columns"]["probability"].to_pylist() == [top[0]["probability"] for top in expected]
    assert [LABELS[i] for i in found["labels"]] == [top[0]["label"] for top in expected]
    assert ("top" in found["columns"]) == (top_k > 1)
    if top_k > 1:
        assert found["columns"]["top"].to_pylist() == expected


def test_run_batches_splits_rows_in_order(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "BATCH_ROWS", 7)
    model, given = models["image-classifier"], {"images": images(20)}
    sizes: list[int] = []

    class Session:
        def compute(self, inputs: Any, outputs: Any) -> Any:
            sizes.append(len(inputs["images"]))
            return model.session.run(inputs, outputs)

    found = run_batches(replace(model, session=Session()), "images", given["images"], "probabilities")  # type: ignore[arg-type]
    assert sizes == [7, 7, 6]
    assert np.array_equal(found, model.session.run(given, ["probabilities"])["probabilities"])
