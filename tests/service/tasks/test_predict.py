"""POST /predict answers with any reader and head, each item by itself and in order."""

import asyncio
import base64
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from service.bundle import RequestCase, open_bundle
from service.contract.heads import Head
from service.contract.readers import Reader
from service.engine.runner import Runner
from service.engine.sessions.model import Model, create_model
from service.engine.sessions.session import Session
from service.errors import EkibenError, Fault
from service.tasks.heads import HEADS
from service.tasks.model_lookup import serves
from service.tasks.predict import MAX_INLINE_BYTES, PredictRequest, accepted_fields, predict, predict_upload
from service.tasks.readers import READERS
from service.tasks.replay import answer_request_sync, compare_answers, replay_requests
from tests.service.bundles import NAMES
from tests.service.pairs import ALL_PAIRS, GREY, PAIRS, ROW, TEXTS, request_body, weights
from tests.service.requests import REQUEST_FIELDS
from tests.service.tensor_bundles import write_echo, write_second_axis, write_without_batch

Predict = Callable[..., Any]
Refusal = Callable[..., tuple[str, str]]
IMAGE = (np.arange(16, dtype=np.uint8) * 16).reshape(4, 4)


def kinds(union: Any) -> set[str]:
    """The kinds of the readers or heads in a discriminated union."""
    return {model.model_fields["kind"].default for model in union.__origin__.__args__}


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    buffer = BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_every_reader_and_head_is_registered() -> None:
    assert set(READERS) == kinds(Reader)
    assert set(HEADS) == kinds(Head) - {"language-model"}


def test_the_request_has_the_fields_of_every_reader_and_head() -> None:
    fields = {reader.field for reader in READERS.values()}
    options = {"states", "truncate", "top_k", "threshold"}
    assert set(PredictRequest.model_fields) == {"model", *fields, *options}
    one_of = PredictRequest.model_json_schema()["oneOf"]
    assert {field for case in one_of for field in case["required"]} == fields


@pytest.mark.parametrize("name", PAIRS)
def test_items_have_the_same_answer_alone_and_together(name: str, *, predict_pair: Predict) -> None:
    fields = dict(ALL_PAIRS[name].fields)
    field = READERS[ALL_PAIRS[name].reader["kind"]].field
    predictions = predict_pair(name, **fields)
    if field == "tensors":
        num_items = len(next(iter(fields[field].values())))
        items = [{key: value[i : i + 1] for key, value in fields[field].items()} for i in range(num_items)]
    else:
        items = [[item] for item in fields[field]]
    assert predictions == [predict_pair(name, **{**fields, field: item})[0] for item in items]


def test_values_are_those_of_a_numpy_reference(predict_pair: Predict) -> None:
    w = weights("tiny-prices")
    row = np.concatenate([[ROW["age"], ROW["height"]], w["embedding"][1]])
    rent, area = row @ w["w"] + w["b"]
    [prediction] = predict_pair("tiny-prices", rows=[ROW])
    assert prediction == {"values": {"rent": pytest.approx(rent, abs=1e-5), "area": pytest.approx(area, abs=1e-5)}}


def test_labels_of_a_table_are_those_of_classify(predict_pair: Predict, pair_models: dict[str, Model]) -> None:
    answer = answer_request_sync(pair_models["tiny-customers"], request_body("tiny-customers"))
    assert answer["predictions"] == predict_pair("tiny-customers", **ALL_PAIRS["tiny-customers"].fields)


@pytest.mark.parametrize("family", ["image-classifier", "series-classifier", "series-tagger", "text-classifier"])
def test_the_answer_is_that_of_the_route_of_the_task(family: str, *, models: dict[str, Model], runner: Runner) -> None:
    body = {"model": NAMES[family], **REQUEST_FIELDS[family]}
    answer = asyncio.run(predict(models[family], runner, PredictRequest(**body), runner.new_context()))
    assert answer == answer_request_sync(models[family], body)


def test_latents_become_images(models: dict[str, Model], runner: Runner) -> None:
    request = PredictRequest(model="tiny-pictures", tensors={"latents": [[0.5, 0, -1, 1, 2]] * 2})
    answer = asyncio.run(predict(models["image-generator"], runner, request, runner.new_context()))
    first, second = answer["predictions"]
    assert first == second
    assert Pillow.open(BytesIO(base64.b64decode(first["image"]))).size == (4, 4)


def test_the_threshold_of_a_request_comes_before_that_of_the_model(predict_pair: Predict) -> None:
    every = predict_pair("tiny-scenes", images=GREY, threshold=0)
    assert [len(row["labels"]) for row in every] == [5, 5]
    for given, threshold in (({}, 0.4), ({"threshold": 0.9}, 0.9)):
        expected = [[label for label in row["labels"] if label["probability"] >= threshold] for row in every]
        assert [row["labels"] for row in predict_pair("tiny-scenes", images=GREY, **given)] == expected


def test_truncate_cuts_a_text(predict_pair: Predict) -> None:
    text = "ann lives in rome and bob works at acme"
    [row] = predict_pair("tiny-vectors", texts=[text], truncate=True)
    assert row["tokens"] == 8
    assert row["embedding"] == predict_pair("tiny-vectors", texts=["ann lives in rome and bob"])[0]["embedding"]


@pytest.mark.parametrize(
    ("name", "fields", "pointer", "detail"),
    [
        ("tiny-prices", {}, "/rows", "this field is required: tiny-prices reads rows of named columns"),
        ("tiny-prices", {"rows": [ROW], "texts": ["a"]}, "/texts", "not a field for tiny-prices, which takes `rows`"),
        ("tiny-prices", {"rows": [ROW], "top_k": 1}, "/top_k", "not a field for tiny-prices, which takes `rows`"),
        ("tiny-prices", {"rows": [{**ROW, "age": -1}]}, "/rows/0/age", "expected a number of 0.0 to 120.0, got -1"),
        ("tiny-customers", {"rows": [ROW], "threshold": 0.5}, "/threshold", "which takes `rows`, `top_k`"),
        ("tiny-scenes", {"images": GREY, "threshold": 1.5}, "/threshold", "expected less than or equal to 1, got 1.5"),
        ("tiny-scenes", {"images": GREY, "threshold": "1"}, "/threshold", "expected a valid number, got '1'"),
        ("tiny-names", {"texts": TEXTS, "top_k": 1}, "/top_k", "which takes `texts`, `truncate`"),
        ("tiny-tensors", {"tensors": [1]}, "/tensors", "expected a valid dictionary, got a list of 1"),
        ("tiny-forecast", {"sequences": [[[1, 2]]], "states": [None]}, "/states", "which takes `sequences`"),
        ("tiny-scenes", {"image": GREY}, "/image", "unknown field; the fields are model, images, texts, sequences"),
    ],
)
def test_an_invalid_request_names_field_and_expectation(
    name: str, fields: dict[str, Any], pointer: str, detail: str, *, pair_refusal: Refusal
) -> None:
    got_pointer, got_detail = pair_refusal(name, **fields)
    assert got_pointer == pointer
    assert detail in got_detail


def test_fields_are_those_of_reader_and_head(models: dict[str, Model], pair_models: dict[str, Model]) -> None:
    assert accepted_fields(models["series-tagger"].manifest) == ("sequences", "states", "top_k")
    assert accepted_fields(pair_models["tiny-vectors"].manifest) == ("texts", "truncate")
    assert accepted_fields(pair_models["tiny-scenes"].manifest) == ("images", "threshold")


def test_only_language_models_are_not_served(models: dict[str, Model], pair_models: dict[str, Model]) -> None:
    assert [family for family, model in models.items() if not serves("predict", model.manifest)] == ["language-model"]
    assert all(serves("predict", model.manifest) for model in pair_models.values())


def test_a_file_gets_the_answer_of_its_pixels(
    pair_models: dict[str, Model], runner: Runner, predict_pair: Predict
) -> None:
    call = predict_upload(pair_models["tiny-scenes"], runner, png(IMAGE), {"threshold": 0.5}, runner.new_context())
    answer = asyncio.run(call)
    assert answer["predictions"] == predict_pair("tiny-scenes", images=[IMAGE.tolist()], threshold=0.5)


def test_a_file_for_a_model_that_reads_none_is_refused(pair_models: dict[str, Model], runner: Runner) -> None:
    with pytest.raises(EkibenError) as caught:
        asyncio.run(predict_upload(pair_models["tiny-prices"], runner, png(IMAGE), {}, runner.new_context()))
    assert caught.value.slug == "unsupported-media-type"
    assert caught.value.detail == "expected application/json with `rows`: tiny-prices reads no image files"


def test_images_of_different_sizes_are_answered_in_order(predict_pair: Predict) -> None:
    rng = np.random.default_rng(4)
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((3, 4), (6, 5), (3, 4), (12, 10))]
    predictions = predict_pair("tiny-masks", images=[image.tolist() for image in images])
    masks = [np.asarray(Pillow.open(BytesIO(base64.b64decode(row["image"])))) for row in predictions]
    assert [mask.shape for mask in masks] == [image.shape for image in images]
    assert predictions == [predict_pair("tiny-masks", images=[image.tolist()])[0] for image in images]
    w = weights("tiny-masks")["w"][0, 0].astype(np.float64)
    for image, mask in zip(images, masks, strict=True):
        padded = np.pad(image.astype(np.float64), 1)
        rows, columns = image.shape
        blurred = sum(w[i, j] * padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3))
        assert np.abs(mask - np.clip(blurred, 0, 255)).max() <= 0.5 + 1e-3


def test_a_detector_answers_three_sizes_in_one_request(predict_pair: Predict) -> None:
    rng = np.random.default_rng(4)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8).tolist() for size in ((3, 4), (6, 5), (9, 7))]
    predictions = predict_pair("tiny-detector", images=images)
    assert [np.shape(row["outputs"]["scores"]) for row in predictions] == [(3, 4), (6, 5), (9, 7)]
    assert [np.shape(row["outputs"]["boxes"]) for row in predictions] == [(2, 4)] * 3
    assert predictions == [predict_pair("tiny-detector", images=[image])[0] for image in images]


class FailingRunner:
    """A runner that fails on the rows of an image with a 13."""

    def __init__(self, runner: Runner) -> None:
        self.call_host = runner.call_host

    async def run(self, session: Any, inputs: Any, names: Any, *, context: Any, items: str) -> Any:
        first = next(iter(inputs.values()))
        rows = [i for i, row in enumerate(first) if (row == 13).any()]
        if not rows:
            return session.run(inputs, names)
        faults = tuple(Fault(pointer=f"{items}/{row}", detail="broken") for row in rows)
        raise EkibenError("not-finite", f"{len(rows)} broken", faults)


def failure(model: Model, runner: Runner, **fields: Any) -> EkibenError:
    request = PredictRequest(model=model.manifest.name, **fields)
    with pytest.raises(EkibenError) as caught:
        asyncio.run(predict(model, FailingRunner(runner), request, runner.new_context()))  # type: ignore[arg-type]
    return caught.value


def test_faults_of_groups_point_at_the_items_of_the_request(pair_models: dict[str, Model], runner: Runner) -> None:
    images = [[[value] * width] * 3 for width, value in ((4, 1), (5, 13), (4, 13), (5, 1), (6, 13), (7, 1))]
    error = failure(pair_models["tiny-masks"], runner, images=images)
    assert error.slug == "not-finite"
    assert [fault.pointer for fault in error.faults] == ["/images/2", "/images/1", "/images/4"]


def test_faults_of_tensors_name_the_row(pair_models: dict[str, Model], runner: Runner) -> None:
    tensors = {"points": [[1, 2], [3, 13]], "weights": [1, 2]}
    error = failure(pair_models["tiny-tensors"], runner, tensors=tensors)
    assert error.faults == (Fault(pointer="/tensors", detail="item 1: broken"),)


def test_large_outputs_are_written_on_the_host_thread(pair_models: dict[str, Model], runner: Runner) -> None:
    calls = []

    class RecordingRunner(FailingRunner):
        async def run(self, *args: Any, **kwargs: Any) -> Any:
            return {"values": np.zeros((1, MAX_INLINE_BYTES // 4 + 1), np.float32)[:, : self.size]}

        size = 2

    recording = RecordingRunner(runner)

    async def call_host(function: Any, *args: Any, context: Any) -> Any:
        calls.append(function)
        return [{"values": {}}]

    recording.call_host = call_host  # type: ignore[assignment]
    request = PredictRequest(model="tiny-prices", rows=[ROW])

    def answer() -> None:
        model = pair_models["tiny-prices"]
        asyncio.run(predict(model, recording, request, runner.new_context()))  # type: ignore[arg-type]

    answer()
    assert calls == []
    recording.size = MAX_INLINE_BYTES // 4 + 1
    answer()
    assert calls == [HEADS["values"].answers]


@pytest.mark.parametrize(
    ("write", "tensors", "expected"),
    [
        (
            write_second_axis,
            {"x": [[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 10], [11, 12]]], "add": [1, 2, 3]},
            [{"y": [9, 11]}, {"y": [14, 16]}, {"y": [19, 21]}],
        ),
        (write_without_batch, {"x": [[1, 8], [3, 4]]}, [{"y": [3, 8], "at": [1, 0]}]),
        (lambda root: write_echo(root, "string"), {"x": [["a", "", "日本"]]}, [{"y": ["a", "", "日本"]}]),
        (lambda root: write_echo(root, "bool"), {"x": [[True, False, True]] * 2}, [{"y": [True, False, True]}] * 2),
    ],
)
def test_tensors_of_any_axes_and_dtypes_are_answered(
    write: Callable[[Path], Path], tensors: Any, expected: Any, *, tmp_path: Path
) -> None:
    bundle = open_bundle(write(tmp_path))
    model = create_model(bundle, Session(bundle.model, manifest=bundle.manifest, device="cpu"))
    answer = answer_request_sync(model, {"model": bundle.manifest.name, "tensors": tensors})
    assert answer["predictions"] == [{"outputs": outputs} for outputs in expected]
    replay_requests(model, bundle.requests)


@pytest.mark.parametrize("name", PAIRS)
def test_stored_answers_are_replayed(name: str, *, pair_models: dict[str, Model]) -> None:
    model = pair_models[name]
    answer = json.loads(json.dumps(answer_request_sync(model, request_body(name))))
    replay_requests(model, [RequestCase(request=request_body(name), answer={**answer, "version": "0" * 12})])


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("tiny-prices", ("values", "rent")),
        ("tiny-vectors", ("embedding", 2)),
        ("tiny-tensors", ("outputs", "moved", 1)),
    ],
)
def test_numbers_match_within_the_tolerance_of_their_output(
    name: str, path: tuple[Any, ...], *, pair_models: dict[str, Model]
) -> None:
    model = pair_models[name]
    got = answer_request_sync(model, request_body(name))
    for change, is_equal in ((5e-6, True), (1e-2, False)):
        stored = json.loads(json.dumps(got))
        place = stored["predictions"][0]
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] += change
        assert (compare_answers(stored, got, model.manifest) is None) is is_equal


def test_whole_numbers_of_an_output_match_exactly(pair_models: dict[str, Model]) -> None:
    model = pair_models["tiny-tensors"]
    got = answer_request_sync(model, request_body("tiny-tensors"))
    stored = json.loads(json.dumps(got))
    stored["predictions"][1]["outputs"]["doubled"] += 1
    assert compare_answers(stored, got, model.manifest) == "/predictions/1/outputs/doubled: expected -7, got -8"
