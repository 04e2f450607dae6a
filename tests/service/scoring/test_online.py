"""The same raw inputs by HTTP, by the Open Inference Protocol and by scoring: the same bits."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.engine.model import Model
from service.tasks.series import pad_series
from tests.service.bundles import NAMES
from tests.service.scoring.conftest import Score, predictions
from tests.service.scoring.inputs import FIELD, items, write_jsonl

ITEMS = 8  # the tiny models take no more in a request
COUNTS = {
    "image-classifier": 1000,
    "text-classifier": 336,
    "series-classifier": 336,
    "series-tagger": 336,
    "language-model": 64,
    "image-generator": 64,
}
RECURRENT = {"text-classifier", "series-classifier", "series-tagger"}
BODIES = {"image-classifier": "images", "text-classifier": "texts", "series-classifier": "sequences"}


def post(client: TestClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def in_turn(rows: Sequence[Any]) -> list[Sequence[Any]]:
    return [rows[begin : begin + ITEMS] for begin in range(0, len(rows), ITEMS)]


def by_http(client: TestClient, family: str, rows: list[Any]) -> list[dict[str, Any]]:
    model = {"model": NAMES[family]}
    found: list[dict[str, Any]] = []
    match family:
        case "language-model":
            for part in in_turn(rows):
                answer = post(client, "/generate", {**model, "prompt": part, "max_tokens": 5, "seed": 0})
                found += [{**row, "seed": 0} for row in answer["completions"]]
        case "image-generator":
            for seed in rows:
                answer = post(client, "/generate", {**model, "count": 1, "seed": seed})
                found.append({"image": base64.b64decode(answer["images"][0]), "seed": seed})
        case _:
            path = "/classify" if family == "image-classifier" else "/sequence-predict"
            for part in in_turn(rows):
                body = {**model, BODIES.get(family, "sequences"): part, "top_k": 3}
                found += post(client, path, body)["predictions"]
    return found


def comparable(value: Any, model: Model) -> Any:
    """Bits, but for a recurrent graph without a strategy of invariance: it differs in the last one if it runs alone."""
    if (
        getattr(model.manifest.invariance, "strategy", "none") != "none"
        or model.manifest.parameters.family not in RECURRENT
    ):
        return value
    if isinstance(value, float):
        return pytest.approx(value, abs=1e-6)
    if isinstance(value, dict):
        return {name: comparable(item, model) for name, item in value.items()}
    return [comparable(item, model) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("family", COUNTS)
def test_online_equals_offline(
    family: str, client: TestClient, score: Score, models: dict[str, Model], tmp_path: Path
) -> None:
    rows = items(family, COUNTS[family], seed=11)
    source = write_jsonl(tmp_path / "a.jsonl", {FIELD[family]: rows})
    request = {"language-model": {"max_tokens": 5}, "image-generator": {}}.get(family, {"top_k": 3})
    score(family, source, tmp_path / "out", request=request, shard_rows=100)
    offline = [
        {name: row[name] for name in row if name not in {"file", "row"}} for row in predictions(tmp_path / "out")
    ]
    assert offline == comparable(by_http(client, family, rows), models[family])


@pytest.mark.parametrize("family", ["image-classifier", "series-classifier"])
def test_the_open_inference_protocol_equals_offline(
    family: str, client: TestClient, score: Score, models: dict[str, Model], tmp_path: Path
) -> None:
    rows = items(family, COUNTS[family], seed=11)
    score(family, write_jsonl(tmp_path / "a.jsonl", {FIELD[family]: rows}), tmp_path / "out", shard_rows=100)
    online: list[np.float32] = []
    for part in in_turn(rows):
        if family == "image-classifier":
            tensors: dict[str, Any] = {"images": np.array(part, np.uint8)}
        else:
            padded, lengths = pad_series([np.array(row, np.float32) for row in part])
            tensors = {"series": padded, "lengths": lengths}
        inputs = [
            {"name": name, "shape": tensor.shape, "datatype": DATATYPES[tensor.dtype.name], "data": tensor.tolist()}
            for name, tensor in tensors.items()
        ]
        body = {"inputs": inputs, "outputs": [{"name": "probabilities"}]}
        [output] = post(client, f"/v2/models/{NAMES[family]}/infer", body)["outputs"]
        online += np.array(output["data"], np.float32).reshape(output["shape"]).max(axis=1).tolist()
    offline = [row["probability"] for row in predictions(tmp_path / "out")]
    assert offline == comparable(online, models[family])


DATATYPES = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}
