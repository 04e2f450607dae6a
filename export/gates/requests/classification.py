"""Requests to models that return labels, and the check of their labels and probabilities.

Shapes: L labels.
"""

import base64
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from export.candidate import Candidate
from export.errors import MismatchError
from export.gates.cases import Array
from export.gates.requests.checked_request import CheckedRequest, ResponseCheck, candidate_model
from export.gates.requests.label_reference import items_by_label, label_probabilities, whole_items
from service.contract.readers import SeriesReader
from service.tasks.replay import answer_request_sync

MAX_TOP_K = 1000


def image_cases(candidate: Candidate) -> Iterator[CheckedRequest]:
    """Test images and one image of noise, as PNG and as nested lists, and an image for each label."""
    images, num_labels = candidate.source.examples.inputs["images"], len(candidate.source.labels)
    noise = np.random.default_rng(3).integers(0, 256, images.shape[1:], dtype=np.uint8)
    for chosen, encode, top_k in (
        ([0], _png, 3),
        ([1], _nested_lists, 3),
        ([2, 3, 4], _png, num_labels),
        ([5, 6], _nested_lists, 1),
        ([7, 8, 9, 10, 11, 12, 13, 14], _png, 2),
        ([-1], _png, 3),
        *((items, _png, top_k) for items, top_k in _label_cases(candidate)),
    ):
        batch = np.stack([noise if i < 0 else images[i % len(images)] for i in chosen])
        yield CheckedRequest(
            body={"images": [encode(image) for image in batch], "top_k": top_k},
            check=_label_check(candidate, {"images": batch}, top_k),
        )


def _label_cases(candidate: Candidate) -> Iterator[tuple[list[int], int]]:
    """Test items in which each label ranks first, and the number of labels to ask for, in as few requests as fit."""
    items, max_items = items_by_label(candidate), candidate.manifest.limits.max_items
    top_k = min(len(candidate.source.labels), MAX_TOP_K)
    yield from ((items[i : i + max_items], top_k) for i in range(0, len(items), max_items))


def _png(image: Array) -> str:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _nested_lists(image: Array) -> list[Any]:
    return image.tolist()


def text_cases(candidate: Candidate) -> Iterator[CheckedRequest]:
    """Texts of the test split, with one for each label."""
    split, whole = candidate.source.examples, whole_items(candidate.source.examples)
    first = [whole[i % len(whole)] for i in range(12)]
    for rows, top_k in ((first[:1], 3), (first[1:3], 1), (first[3:11], 2), (first[11:], 100), *_label_cases(candidate)):
        lengths = split.inputs["lengths"][rows]
        inputs = {"ids": split.inputs["ids"][rows, : lengths.max()], "lengths": lengths}
        body = {"texts": [split.texts[i] for i in rows], "top_k": top_k, "truncate": True}
        yield CheckedRequest(body=body, check=_label_check(candidate, inputs, top_k))


def series_cases(candidate: Candidate) -> Iterator[CheckedRequest]:
    """Series of the test split, with one for each label."""
    split = candidate.source.examples
    for chosen, top_k in (([0], 3), ([1, 2], 1), (list(range(3, 9)), 2), ([9], 100), *_label_cases(candidate)):
        rows = [i % len(split) for i in chosen]
        lengths = split.inputs["lengths"][rows]
        inputs = {"series": split.inputs["series"][rows, : lengths.max()], "lengths": lengths}
        sequences = [series[:length].tolist() for series, length in zip(inputs["series"], lengths, strict=True)]
        body = {"sequences": sequences, "top_k": top_k}
        yield CheckedRequest(body=body, check=_label_check(candidate, inputs, top_k))


def stateful_cases(candidate: Candidate) -> Iterator[CheckedRequest]:
    """The series cases. With a state, their check also sends each series in two halves, the second with that state."""
    reader = candidate.manifest.reader
    if not isinstance(reader, SeriesReader) or reader.state is None:
        yield from series_cases(candidate)
        return
    model = candidate_model(candidate)
    for request in series_cases(candidate):

        def check(response: dict[str, Any], request: CheckedRequest = request) -> None:
            request.check(response)
            sequences = request.body["sequences"]
            if min(len(series) for series in sequences) > 1:
                body = {**request.body, "model": candidate.manifest.name}
                head = [series[: len(series) // 2] for series in sequences]
                tail = [series[len(series) // 2 :] for series in sequences]
                first = answer_request_sync(model, body | {"sequences": head})
                states = [prediction["state"] for prediction in first["predictions"]]
                second = answer_request_sync(model, body | {"sequences": tail, "states": states})
                for before, after in zip(first["predictions"], second["predictions"], strict=True):
                    after["steps"] = before["steps"] + after["steps"]
                request.check(second)

        yield CheckedRequest(body=request.body, check=check)


def _label_check(candidate: Candidate, inputs: dict[str, Array], top_k: int) -> ResponseCheck:
    labels = candidate.source.labels
    tolerance = candidate.manifest.tolerance["probabilities"]

    def check_entries(location: str, entries: list[dict[str, Any]], expected_L: Array, count: int) -> None:
        if len(entries) != min(count, len(labels)):
            raise MismatchError(f"{location}: {len(entries)} labels, expected {min(count, len(labels))}")
        order = np.argsort(-expected_L, kind="stable")
        for rank, entry in enumerate(entries):
            if entry["label"] not in labels:
                raise MismatchError(f"{location}: label {entry['label']!r} is none of the source's")
            expected = float(expected_L[labels.index(entry["label"])])
            allowed = tolerance.atol + tolerance.rtol * expected
            # Two labels whose probabilities are within tolerance of each other may swap their ranks.
            is_ranked = abs(expected_L[order[rank]] - expected) <= 2 * allowed
            if not abs(entry["probability"] - expected) <= allowed or not is_ranked:
                raise MismatchError(
                    f"{location}, rank {rank + 1}: label {entry['label']!r} with probability "
                    f"{entry['probability']:.7f}, {candidate.source.reference} gives it {expected:.7f} and has "
                    f"{labels[order[rank]]!r} at this rank"
                )

    def check(response: dict[str, Any]) -> None:
        expected = label_probabilities(candidate, inputs)
        if len(response["predictions"]) != len(expected):
            raise MismatchError(f"{len(response['predictions'])} predictions for {len(expected)} items")
        for i, prediction in enumerate(response["predictions"]):
            final_L = expected[i]
            if "lengths" in inputs:
                length = inputs["lengths"][i]
                if prediction.get("tokens", length) != length:
                    raise MismatchError(f"item {i}: {prediction['tokens']} tokens, training had {length}")
                if "steps" in prediction:
                    final_L = expected[i, length - 1]
                    for step, entry in enumerate(prediction["steps"]):
                        check_entries(f"item {i}, step {step}", [entry], expected[i, step], 1)
            check_entries(f"item {i}", prediction["top"], final_L, top_k)
            if prediction["top"][0] != {key: prediction[key] for key in ("label", "probability")}:
                raise MismatchError(f"item {i}: its label is not the first of its top")

    return check
