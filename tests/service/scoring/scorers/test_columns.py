"""Answers as columns equal the answers of the service."""

import numpy as np
import pyarrow as pa
import pytest

from service.scoring.scorers.columns import nested_lists, rank_columns
from service.tasks.heads.ranking import rank

LABELS = ("a", "b", "c")


@pytest.mark.parametrize("top_k", [1, 2, 3, 9])
@pytest.mark.parametrize("rows", [0, 1, 50])
def test_rank_columns_equals_the_ranking_of_the_service(top_k: int, rows: int) -> None:
    rng = np.random.default_rng(0)
    # Rounding makes ties.
    probabilities = np.round(rng.dirichlet(np.ones(3), rows).reshape(rows, 3), 1).astype(np.float32)
    found = rank_columns(probabilities, pa.array(LABELS), top_k)
    expected = rank(probabilities, LABELS, top_k) if rows else []
    assert found.columns["label"].to_pylist() == [top[0]["label"] for top in expected]
    assert found.columns["probability"].to_pylist() == [top[0]["probability"] for top in expected]
    assert [LABELS[i] for i in found.labels] == [top[0]["label"] for top in expected]
    assert ("top" in found.columns) == (top_k > 1)
    if top_k > 1:
        assert found.columns["top"].to_pylist() == expected


@pytest.mark.parametrize("shape", [(3,), (3, 2), (0, 2), (2, 3, 4)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "bool", "object"])
def test_arrays_become_nested_lists(shape: tuple[int, ...], dtype: str) -> None:
    values = np.arange(np.prod(shape)).reshape(shape).astype(str if dtype == "object" else dtype).astype(dtype)
    assert nested_lists(values).to_pylist() == values.tolist()
