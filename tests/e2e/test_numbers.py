"""Extreme numbers in the trained models: an answer is finite, or an error names the item, over HTTP and in scoring."""

import json
import math
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.bundle import current_version
from service.engine.sessions.model import Model
from service.scoring.input.rows import Rows
from service.scoring.model import load_bundle
from service.scoring.scorers.sequences import SeriesScorer

SCALES = (1e-45, 1e-40, 1e-20, 1e3, 1e20, 1e30, 1e37, 1e38)
LARGEST = np.finfo(np.float32).max
DTYPES = {"UINT8": np.uint8, "INT64": np.int64, "FP32": np.float32}


def extreme(shape: tuple[int, ...], seed: int) -> list[np.ndarray[Any, Any]]:
    """Arrays of one huge or tiny number, of both signs alternating, and of random numbers of every scale."""
    rng = np.random.default_rng(seed)
    signs = np.where(np.arange(math.prod(shape)) % 2, 1, -1).reshape(shape)
    filled = [np.full(shape, number) for number in (3e38, -3e38, LARGEST, 1e-40, -1.4e-45, -0.0)]
    scaled = [np.clip(rng.normal(size=shape) * scale, -LARGEST, LARGEST) for scale in SCALES]
    return [array.astype(np.float32) for array in (*filled, 3e38 * signs, 1e-40 * signs, *scaled)]


def check(response: httpx.Response, pointer: str) -> None:
    """A 200 has finite numbers alone; an error names the item."""

    def no_constant(name: str) -> Any:
        raise AssertionError(f"{name} is no JSON")

    document = json.loads(response.content, parse_constant=no_constant)
    if response.status_code == 200:
        assert "null" not in response.text
        return
    assert (response.status_code, document["code"]) in {(422, "invalid-request"), (500, "not-finite")}, document
    assert document["errors"][0]["pointer"].startswith(pointer)


def check_domain(response: httpx.Response, model: dict[str, Any], name: str, array: np.ndarray[Any, Any]) -> None:
    """What is outside the domain of the bundle is refused, and nothing inside it."""
    if name in model["domain"]:
        low, high = model["domain"][name]["low"], model["domain"][name]["high"]
        inside = low <= array.min() and array.max() <= high
        assert (response.status_code == 422) is not inside, (model["name"], name, array.min(), array.max())


@pytest.fixture(scope="module")
def models(http: httpx.Client) -> list[dict[str, Any]]:
    return [http.get(f"/models/{model['name']}").json() for model in http.get("/models").json()["models"]]


def models_with(models: list[dict[str, Any]], *families: str) -> list[dict[str, Any]]:
    found = [model for model in models if model["pair"] in families]
    if not found:
        pytest.skip(f"no model of {families}")
    return found


def test_extreme_series_have_a_finite_answer_or_none(http: httpx.Client, models: list[dict[str, Any]]) -> None:
    for model in models_with(models, "series -> labels", "series -> token-labels"):
        shape = (min(6, model["limits"]["max_steps"]), model["reader"]["channels"])
        good = np.zeros(shape).tolist()
        for array in extreme(shape, 0):
            body = {"model": model["name"], "sequences": [good, array.astype(float).tolist()]}
            response = http.post("/sequence-predict", json=body)
            check(response, "/sequences/1")
            check_domain(response, model, "series", array)
        check(http.post("/sequence-predict", json={"model": model["name"], "sequences": [good]}), "none")


def test_denormal_series_are_answered_like_zeros(http: httpx.Client, models: list[dict[str, Any]]) -> None:
    """Numbers of 1e-40 change no float32 sum with the weights of a trained model by more than its last bits."""
    for model in models_with(models, "series -> labels", "series -> token-labels"):
        shape = (6, model["reader"]["channels"])
        rows = [np.full(shape, number).tolist() for number in (0.0, 1e-40, -1e-45)]
        answer = http.post("/sequence-predict", json={"model": model["name"], "sequences": rows})
        assert answer.status_code == 200, answer.text
        zero, *denormal = [prediction["probability"] for prediction in answer.json()["predictions"]]
        assert denormal == pytest.approx([zero, zero], abs=1e-6)


def tensors(model: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs of two rows and the smallest sizes; a past of three."""
    sizes = {"batch": 2, "steps": 2, "past": 3}
    types = {"uint8": np.uint8, "int64": np.int64, "float32": np.float32}
    inputs = {
        spec["name"]: np.zeros([sizes.get(axis, axis) for axis in spec["shape"]], types[spec["dtype"]])
        for spec in model["inputs"]
    }
    for name in {"lengths", "past_lengths"} & set(inputs):
        inputs[name] += 2
    return inputs


@pytest.mark.parametrize("binary", [False, True])
def test_extreme_tensors_have_finite_outputs_or_none(
    binary: bool, http: httpx.Client, models: list[dict[str, Any]]
) -> None:
    for model in models:
        inputs = tensors(model)
        names = [name for name, value in inputs.items() if value.dtype == np.float32][:3]
        for name in names:
            for array in extreme(inputs[name].shape[1:], 1):
                changed = {**inputs, name: np.stack([inputs[name][0], array])}
                response = check_tensors(http, model["name"], changed, binary=binary)
                check_domain(response, model, name, changed[name])
        check_tensors(http, model["name"], inputs, binary=binary)


def check_tensors(
    http: httpx.Client, name: str, inputs: dict[str, np.ndarray[Any, Any]], *, binary: bool
) -> httpx.Response:
    datatypes = {np.dtype(dtype): datatype for datatype, dtype in DTYPES.items()}
    entries = [
        {"name": key, "shape": value.shape, "datatype": datatypes[value.dtype]}
        | ({"parameters": {"binary_data_size": value.nbytes}} if binary else {"data": value.ravel().tolist()})
        for key, value in inputs.items()
    ]
    document = {"inputs": entries, "parameters": {"binary_data_output": binary}}
    head = json.dumps(document).encode()
    content = head + (b"".join(value.tobytes() for value in inputs.values()) if binary else b"")
    headers = {"inference-header-content-length": str(len(head))} if binary else {}
    response = http.post(f"/v2/models/{name}/infer", content=content, headers=headers)
    size = int(response.headers.get("inference-header-content-length", len(response.content)))
    if response.status_code != 200 or size == len(response.content):
        check(response, "")
        return response
    for output in json.loads(response.content[:size])["outputs"]:
        start, size = size, size + output["parameters"]["binary_data_size"]
        assert np.isfinite(np.frombuffer(response.content[start:size], DTYPES[output["datatype"]])).all()
    return response


@pytest.fixture(scope="module")
def series_models(bundles: Path) -> list[Model]:
    folders = [path.parent for path in bundles.glob("*/current") if path.parent.name.startswith("vowels")]
    return [load_bundle(folder / current_version(folder), "cpu") for folder in folders]


def test_extreme_rows_are_scored_finite_or_rejected(series_models: list[Model]) -> None:
    for model in series_models:
        scorer = SeriesScorer(model, {"sequence": "sequence"}, {})
        rows = [np.zeros((6, 12), np.float32), *extreme((6, 12), 2), np.full((6, 12), np.nan), np.full((6, 12), 1e300)]
        scored = scorer.score(Rows(numbers=range(len(rows)), columns={"sequence": rows}))
        assert sorted([*scored.indexes, *scored.faults]) == list(range(len(rows)))
        assert {len(rows) - 1, len(rows) - 2} <= set(scored.faults)
        assert all("finite" in reason or "expected a number of" in reason for reason in scored.faults.values())
        assert np.isfinite(scored.columns["probability"].to_numpy()).all()
        assert 0 in scored.indexes
