"""Models from elsewhere answer as their references: natively, over the Open Inference Protocol and in scoring.

The references are the PyTorch modules and the scikit-learn models themselves, one item at a time. Pictures and series
of different sizes share requests and files.
"""

import base64
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from export.bundle.writer import write_bundle
from export.pipeline import export_model
from service.contract.readers import TableReader
from service.manifest import Manifest
from service.scoring import execution, run
from tests.e2e.serving import ServerProcess
from tests.export.conftest import Candidates, Proofs
from tests.export.sources.onnx_file.graphs import golden, options, written
from tests.export.sources.onnx_file.test_source import TABLE, sklearn_case
from tests.export.tiny_sources import TINY
from tests.service.hosts import GRANIAN, JSON, ask, running_server
from tests.service.scoring.conftest import predictions, run_here

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tritonclient.http as triton
    from tritonclient.utils import InferenceServerException, np_to_triton_dtype

ADOPTED = ("tiny-regression", "tiny-multilabel", "tiny-table", "tiny-bi-tagger", "tiny-unet", "tiny-detector")
SKLEARN = {
    "sk-logistic": "logistic regression",
    "sk-forest": "forest of text labels",
    "sk-boosting": "boosted classifier",
}
LABELS = ("no", "yes")
NUM_ITEMS = 6
ATOL, RTOL = 1e-5, 1e-4
FIELDS = {"image": "images", "series": "sequences", "table": "rows", "tensors": "tensors"}
Array = np.ndarray[Any, Any]
Row = dict[str, Array]


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """A served model: items that export has not seen, each a batch of one, and the reference's outputs for each."""

    manifest: Manifest
    items: Sequence[Row]
    expected: Sequence[Row]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def adopted(
    bundles: Path, sources: Candidates, source_proofs: Proofs, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Adopted]:
    """Every model by name, its bundle written by export."""
    models = {}
    for name in ADOPTED:
        manifest = write_bundle(sources(name), source_proofs(name), bundles).manifest
        examples = TINY[name](np.random.default_rng(7)).examples
        items = [_item(manifest, examples, i) for i in range(NUM_ITEMS)]
        predict = sources(name).source.predict
        models[name] = Adopted(manifest=manifest, items=items, expected=[_first(predict(item)) for item in items])
    for name, kind in SKLEARN.items():
        models[name] = _sklearn(name, kind, bundles, tmp_path_factory.mktemp(name))
    return models


def _item(manifest: Manifest, examples: Mapping[str, Array], number: int) -> Row:
    """One example without its padding, its numbers inside the domain of the model."""
    item = {}
    for spec in manifest.inputs:
        array = examples[spec.name][number : number + 1]
        for position, axis in enumerate(spec.shape):
            sizes = examples.get({"steps": "lengths"}.get(str(axis), str(axis)))
            if sizes is not None:
                array = array.take(np.arange(sizes[number]), axis=position)
        if array.dtype == np.float32:
            domain = manifest.value_range(spec.name)
            array = array.clip(domain.low, domain.high)
        item[spec.name] = array
    return item


def _first(outputs: Mapping[str, Array]) -> Row:
    return {name: array[0] for name, array in outputs.items()}


def _sklearn(name: str, kind: str, bundles: Path, folder: Path) -> Adopted:
    model, graph, x = sklearn_case(kind)
    cases = [{"X": rows, "probabilities": model.predict_proba(rows).astype(np.float32)} for rows in (x, x[:3])]
    spec = TABLE + f'head = {{kind = "labels", labels = {json.dumps(LABELS)}}}'
    given = options(written(folder, graph), golden(folder, *cases), spec, name=name)
    manifest = export_model("onnx", given, bundles, lambda _: None)
    numbers = np.random.default_rng(5).uniform(-1.5, 1.5, (NUM_ITEMS, 4)).astype(np.float32)
    expected = [{"probabilities": row} for row in model.predict_proba(numbers)]
    # The classes are 0 and 1, or the texts.
    labels = [LABELS[label] if label not in LABELS else label for label in model.predict(numbers).tolist()]
    assert [LABELS[row["probabilities"].argmax()] for row in expected] == labels
    return Adopted(manifest=manifest, items=[{"numbers": row[None]} for row in numbers], expected=expected)


@pytest.fixture(scope="module")
def server(
    bundles: Path, adopted: Mapping[str, Adopted], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    with running_server(GRANIAN, bundles, tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture(params=(*ADOPTED, *SKLEARN))
def model(request: pytest.FixtureRequest, adopted: Mapping[str, Adopted]) -> Adopted:
    return adopted[request.param]


def test_native_answers_are_those_of_the_reference(model: Adopted, server: ServerProcess) -> None:
    body = json.dumps({"model": model.manifest.name, FIELDS[model.manifest.reader.kind]: _payload(model)})
    status, _, content = ask(server.port, "POST", "/predict", body, **JSON)
    assert status == 200, content
    found = json.loads(content)["predictions"]
    _assert_answers([_unwrapped(one) for one in found], model)


def test_tensors_of_the_protocol_are_those_of_the_reference(model: Adopted, server: ServerProcess) -> None:
    """Items of the same sizes share a request; series of every length do, zero-padded."""
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
    groups: dict[Any, list[int]] = {}
    for i, item in enumerate(model.items):
        groups.setdefault(() if "lengths" in item else tuple(a.shape for a in item.values()), []).append(i)
    num_groups = {"tiny-unet": 3, "tiny-detector": 3}.get(model.manifest.name, 1)
    assert len(groups) == num_groups
    for members in groups.values():
        inputs = []
        for spec in model.manifest.inputs:
            array = _padded([model.items[i][spec.name] for i in members])
            inputs.append(triton.InferInput(spec.name, array.shape, np_to_triton_dtype(array.dtype)))
            inputs[-1].set_data_from_numpy(array)
        answer = client.infer(model.manifest.name, inputs)
        for spec in model.manifest.outputs:
            for row, i in zip(answer.as_numpy(spec.name), members, strict=True):
                expected = model.expected[i][spec.name]
                valid = row[tuple(map(slice, expected.shape))]
                assert row.shape == expected.shape or not row[len(expected) :].any()
                _assert_close(valid, expected)
    client.close()


def test_a_picture_that_is_no_multiple_is_refused_with_the_axis(server: ServerProcess) -> None:
    """The tiny U-Net halves its pictures twice."""
    pixels = np.zeros((1, 10, 8), np.uint8)
    status, _, content = ask(
        server.port, "POST", "/predict", json.dumps({"model": "tiny-unet", "images": pixels.tolist()}), **JSON
    )
    [fault] = json.loads(content)["errors"]
    assert (status, fault["pointer"]) == (422, "/images/0")
    sizes = "8 to 20 in multiples of 4 x 8 to 16 in multiples of 4 pixels (height x width)"
    assert fault["detail"] == f"expected an image of {sizes}, got 10 x 8"
    given = triton.InferInput("images", pixels.shape, "UINT8")
    given.set_data_from_numpy(pixels)
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
    with pytest.raises(InferenceServerException, match="expected a height axis of 8 to 20 in multiples of 4, got 10"):
        client.infer("tiny-unet", [given])
    client.close()
    described = json.loads(ask(server.port, "GET", "/models/tiny-unet")[2])
    assert sizes.replace(" pixels", "") in json.dumps(described["requests"]["payload"])
    assert described["limits"]["axes"]["height"] == {"min": 8, "max": 20, "multiple_of": 4}


def test_scores_are_those_of_the_reference(
    model: Adopted, bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(execution.ENGINES, "here", run_here)
    rows = _rows(model)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    name = model.manifest.name
    engine: Any = "here"
    result = run.score(name, [tmp_path / "rows.jsonl"], tmp_path / "out", bundles=bundles, device="cpu", engine=engine)
    assert result.summary is not None, result.failures
    assert (result.summary["scored"], result.summary["rejected"]) == (NUM_ITEMS, 0)
    _assert_answers(predictions(tmp_path / "out"), model)


def _padded(arrays: Sequence[Array]) -> Array:
    largest = np.max([array.shape for array in arrays], axis=0)
    padding = [[(0, int(size)) for size in largest - np.array(array.shape)] for array in arrays]
    return np.concatenate([np.pad(array, pad) for array, pad in zip(arrays, padding, strict=True)])


def _payload(model: Adopted) -> Any:
    """The items as the field of a native request."""
    match model.manifest.reader.kind:
        case "tensors":
            return {spec.name: [one[spec.name][0].tolist() for one in model.items] for spec in model.manifest.inputs}
        case "table":
            return _rows(model)
    return [next(iter(row.values())) for row in _rows(model)]


def _rows(model: Adopted) -> list[dict[str, Any]]:
    """The items as the rows of a file."""
    reader = model.manifest.reader
    match reader.kind:
        case "image":
            return [{"image": item["images"][0].tolist()} for item in model.items]
        case "series":
            return [{"sequence": item["series"][0].tolist()} for item in model.items]
        case "tensors":
            return [{name: array[0].tolist() for name, array in item.items()} for item in model.items]
    assert isinstance(reader, TableReader)
    rows = []
    for item in model.items:
        numbers = zip(reader.numbers, item["numbers"][0].tolist(), strict=True)
        codes = item.get("categories", np.empty((1, 0), np.int64))[0].tolist()
        categories = [(column, column.values[code]) for column, code in zip(reader.categories, codes, strict=True)]
        rows.append({column.name: value for column, value in [*numbers, *categories]})
    return rows


def _unwrapped(prediction: dict[str, Any]) -> dict[str, Any]:
    """A native prediction with the columns of scoring."""
    found = {**prediction, **prediction.get("values", {}), **prediction.get("outputs", {})}
    return {**found, "image": base64.b64decode(found["image"])} if "image" in found else found


def _assert_answers(found: Sequence[Mapping[str, Any]], model: Adopted) -> None:
    assert len(found) == len(model.expected)
    for one, outputs in zip(found, model.expected, strict=True):
        ANSWERS[model.manifest.head.kind](model.manifest, one, outputs)


def _assert_close(found: Any, expected: Any) -> None:
    # A pixel on the edge between two levels may be rounded to either.
    atol = 1 if expected.dtype == np.uint8 else ATOL
    np.testing.assert_allclose(np.asarray(found, np.float64), expected.astype(np.float64), atol=atol, rtol=RTOL)


def _labels(manifest: Manifest, found: Mapping[str, Any], outputs: Row) -> None:
    assert found["label"] == manifest.labels[outputs["probabilities"].argmax()]
    _assert_close(found["probability"], outputs["probabilities"].max())


def _multilabel(manifest: Manifest, found: Mapping[str, Any], outputs: Row) -> None:
    scores = dict(zip(manifest.labels, outputs["probabilities"], strict=True))
    chosen = sorted((label for label in scores if scores[label] >= 0.5), key=lambda label: -scores[label])
    assert [one["label"] for one in found["labels"]] == chosen
    for one in found["labels"]:
        _assert_close(one["probability"], scores[one["label"]])


def _steps(manifest: Manifest, found: Mapping[str, Any], outputs: Row) -> None:
    scores_TL = outputs["probabilities"]
    assert [step["label"] for step in found["steps"]] == [manifest.labels[i] for i in scores_TL.argmax(-1)]
    _assert_close([step["probability"] for step in found["steps"]], scores_TL.max(-1))
    assert found["label"] == found["steps"][-1]["label"]


def _values(manifest: Manifest, found: Mapping[str, Any], outputs: Row) -> None:
    _assert_close([found[name] for name in manifest.head.names], outputs["values"])  # type: ignore[union-attr]


def _picture(_manifest: Manifest, found: Mapping[str, Any], outputs: Row) -> None:
    with Image.open(io.BytesIO(found["image"])) as image:
        _assert_close(image, outputs["new_images"])


def _tensors(manifest: Manifest, found: Mapping[str, Any], outputs: Row) -> None:
    for spec in manifest.outputs:
        _assert_close(found[spec.name], outputs[spec.name])


ANSWERS: Mapping[str, Callable[[Manifest, Mapping[str, Any], Row], None]] = {
    "labels": _labels,
    "multilabel": _multilabel,
    "token-labels": _steps,
    "values": _values,
    "image": _picture,
    "tensors": _tensors,
}
