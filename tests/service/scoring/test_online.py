"""1,000 inputs get bit-identical answers from HTTP, from the Open Inference Protocol and from scoring."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.engine.sessions.model import Model
from tests.service.bundles import FAMILIES
from tests.service.scoring.conftest import Score, predictions
from tests.service.scoring.inputs import FIELD, items, write_jsonl
from tests.service.scoring.online import GREEDY, by_http, by_tensors, exact

REQUESTS: dict[str, dict[str, Any]] = {"language-model": GREEDY, "image-generator": {}}


@pytest.mark.parametrize("family", FAMILIES)
def test_online_equals_offline(
    family: str, client: TestClient, score: Score, models: dict[str, Model], tmp_path: Path
) -> None:
    rows = items(family, 1000, seed=11)
    source = write_jsonl(tmp_path / "a.jsonl", {FIELD[family]: rows})
    score(family, source, tmp_path / "out", request=REQUESTS.get(family, {"top_k": 3}), shard_rows=300)
    offline = [exact(row) for row in predictions(tmp_path / "out")]
    assert_equal(offline, [exact(row) for row in by_http(client, models[family], rows)], without={"file", "row"})
    for row in offline:
        if "image" in row:
            row["pixels"] = np.asarray(Image.open(io.BytesIO(row["image"]))).tolist()
    tensors = [exact(row) for row in by_tensors(client, models[family], rows)]
    not_in_tensors = {"top", "finish_reason", "seed", "image"}
    assert_equal(offline, tensors, without={"file", "row"} | not_in_tensors)


def assert_equal(offline: list[dict[str, Any]], online: list[dict[str, Any]], *, without: set[str]) -> None:
    """Compare row by row, so that a failure names its row."""
    assert len(offline) == len(online)
    for number, (scored, answered) in enumerate(zip(offline, online, strict=True)):
        assert {name: scored[name] for name in scored.keys() - without} == answered, f"row {number}"
