"""Answers of the Keras models equal those of Keras, which runs here on the model's own file.

The endpoints, the Open Inference Protocol and scoring give the same answers.
"""

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file

from export.sources.keras.loading import load_model
from export.sources.keras.reference import run_keras
from service.bundle import current_version, open_bundle
from service.scoring.run import score
from tests.e2e.serving import ROOT
from tests.service.scoring.conftest import predictions
from training.keras_models.files import EXAMPLES, MODEL
from training.keras_models.models import HIDDEN

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tritonclient.http as triton
    from tritonclient.utils import np_to_triton_dtype

NUM_ITEMS = 60


def trained(name: str, runs: Path, bundles: Path) -> tuple[Any, dict[str, Any]]:
    """The Keras model and its first examples."""
    if not (bundles / name / "current").exists() or not (runs / name / MODEL).exists():
        pytest.skip(f"{name} has no bundle or no run here: make export")
    arrays = load_file(runs / name / EXAMPLES)
    return load_model(runs / name / MODEL), {key: array[:NUM_ITEMS] for key, array in arrays.items()}


def post(http: httpx.Client, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    response = http.post(path, json=body)
    assert response.status_code == 200, response.text
    predictions: list[dict[str, Any]] = response.json()["predictions"]
    return predictions


def test_digits_get_the_labels_that_keras_gives_them(http: httpx.Client, runs: Path, bundles: Path) -> None:
    model, items = trained("keras-mlp", runs, bundles)
    predictions = post(http, "/classify", {"model": "keras-mlp", "images": items["images"].tolist()})
    [expected] = run_keras(model, [items["images"]])
    assert [one["label"] for one in predictions] == [str(label) for label in expected.argmax(-1)]
    np.testing.assert_allclose([one["probability"] for one in predictions], expected.max(-1), atol=1e-5)


def test_series_in_two_calls_with_the_state_get_what_keras_gives_them(
    http: httpx.Client, runs: Path, bundles: Path
) -> None:
    model, items = trained("keras-lstm", runs, bundles)
    zeros = np.zeros((NUM_ITEMS, HIDDEN), np.float32)
    expected, *_ = run_keras(model, [items["series"], zeros, zeros], items["lengths"])
    for row in range(0, NUM_ITEMS, 7):
        length = int(items["lengths"][row])
        steps = items["series"][row, :length].tolist()
        [first] = post(http, "/sequence-predict", {"model": "keras-lstm", "sequences": [steps[:3]]})
        body = {"model": "keras-lstm", "sequences": [steps[3:]], "states": [first["state"]]}
        [last] = post(http, "/sequence-predict", body)
        answers, reference_TL = [*first["steps"], *last["steps"]], expected[row, :length]
        assert [step["label"] for step in answers] == [f"speaker {label + 1}" for label in reference_TL.argmax(-1)]
        np.testing.assert_allclose([step["probability"] for step in answers], reference_TL.max(-1), atol=1e-4)


def infer(http: httpx.Client, name: str, inputs: dict[str, Any]) -> Any:
    client = triton.InferenceServerClient(f"{http.base_url.host}:{http.base_url.port}")
    tensors = [triton.InferInput(key, value.shape, np_to_triton_dtype(value.dtype)) for key, value in inputs.items()]
    for tensor, value in zip(tensors, inputs.values(), strict=True):
        tensor.set_data_from_numpy(value)
    result = client.infer(name, tensors)
    client.close()
    return result


def scored(name: str, rows: list[dict[str, Any]], bundles: Path, folder: Path) -> list[dict[str, Any]]:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = score(name, [folder / "rows.jsonl"], folder / "out", bundles=bundles, device="cpu", workers=1)
    assert result.summary is not None, result.failures
    return predictions(folder / "out")


def test_digits_over_the_protocol_and_in_scoring(http: httpx.Client, runs: Path, bundles: Path, tmp_path: Path) -> None:
    model, items = trained("keras-mlp", runs, bundles)
    [expected] = run_keras(model, [items["images"]])
    np.testing.assert_allclose(
        infer(http, "keras-mlp", {"images": items["images"]}).as_numpy("probabilities"), expected, atol=1e-5
    )
    found = scored("keras-mlp", [{"image": image.tolist()} for image in items["images"]], bundles, tmp_path)
    assert [row["label"] for row in found] == [str(label) for label in expected.argmax(-1)]
    np.testing.assert_allclose([row["probability"] for row in found], expected.max(-1), atol=1e-5)


def test_series_over_the_protocol_and_in_scoring(http: httpx.Client, runs: Path, bundles: Path, tmp_path: Path) -> None:
    model, items = trained("keras-lstm", runs, bundles)
    zeros, lengths = np.zeros((NUM_ITEMS, HIDDEN), np.float32), items["lengths"]
    expected, next_h, next_c = run_keras(model, [items["series"], zeros, zeros], lengths)
    state = np.zeros((NUM_ITEMS, 1, HIDDEN), np.float32)
    result = infer(http, "keras-lstm", {"series": items["series"], "lengths": lengths, "h": state, "c": state})
    for name, states in (("next_h", next_h), ("next_c", next_c)):
        np.testing.assert_allclose(result.as_numpy(name)[:, 0], states, atol=1e-4)
    rows = [{"sequence": row[:length].tolist()} for row, length in zip(items["series"], lengths, strict=True)]
    found = scored("keras-lstm", rows, bundles, tmp_path)
    for i, length in enumerate(lengths):
        reference_TL = expected[i, :length]
        np.testing.assert_allclose(result.as_numpy("probabilities")[i, :length], reference_TL, atol=1e-4)
        assert [step["label"] for step in found[i]["steps"]] == [f"speaker {k + 1}" for k in reference_TL.argmax(-1)]
        np.testing.assert_allclose([step["probability"] for step in found[i]["steps"]], reference_TL.max(-1), atol=1e-4)


def test_a_recurrent_model_in_half_precision_is_written(runs: Path, bundles: Path, tmp_path: Path) -> None:
    """Its graph crashes onnxruntime unless an optimizer is disabled."""
    trained("keras-lstm", runs, bundles)
    shutil.copytree(bundles / "keras-lstm", tmp_path / "keras-lstm")
    run = runs / "keras-lstm"
    command = [sys.executable, "-m", "export", "keras", str(run / MODEL), "--examples", str(run / EXAMPLES)]
    command += ["--spec", str(run / "spec.toml"), "--bundles", str(tmp_path), "--precision", "fp16"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    folder = tmp_path / "keras-lstm-fp16"
    manifest = open_bundle(folder / current_version(folder)).manifest
    assert manifest.precision is not None
    assert manifest.precision.agreement >= 0.99
