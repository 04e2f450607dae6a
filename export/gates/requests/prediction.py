"""Requests for any pair of reader and head: test items as clients send them, alone and together, with every option."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from export.candidate import Candidate
from export.errors import MismatchError
from export.gates.backends import reference_backend
from export.gates.examples.example_cases import example_cases
from export.gates.requests.answers import check_prediction
from export.gates.requests.checked_request import CheckedRequest, ResponseCheck
from export.gates.requests.label_reference import whole_items
from export.gates.requests.payloads import FIELDS, Item, item, tensors_body
from service.contract.heads import LabelsHead, MultilabelHead
from service.contract.readers import TextReader

MAX_TOP_K = 1000
# The first items of the requests, and how many each has.
GROUPS = ((0, 1), (1, 1), (2, 3), (5, 2), (7, 8))


def predict_cases(candidate: Candidate) -> Iterator[CheckedRequest]:
    """Requests of one and several items, each option of the head, and for labels an item for each label."""
    chosen = whole_items(candidate.source.examples)
    max_items = candidate.manifest.limits.max_items
    options = _options(candidate)
    for number, (first, count) in enumerate(GROUPS):
        items = [chosen[(first + i) % len(chosen)] for i in range(min(count, max_items))]
        yield _request(candidate, items, options[number % len(options)])
    if isinstance(candidate.manifest.head, LabelsHead):
        top_k = min(len(candidate.source.labels), MAX_TOP_K)
        items = first_items_by_label(candidate, chosen)
        for start in range(0, len(items), max_items):
            yield _request(candidate, items[start : start + max_items], {"top_k": top_k})


def first_items_by_label(candidate: Candidate, chosen: Sequence[int]) -> list[int]:
    """For each label the test item in which it ranks first by the largest margin; no item if it ranks first in none."""
    reference, allowed = reference_backend(candidate.source), set(chosen)
    best: dict[int, tuple[float, int]] = {}
    for batch in example_cases(candidate):
        probabilities_BL = reference(batch.case)["probabilities"]
        ranked_BL = np.sort(probabilities_BL, axis=1)
        margin_B = ranked_BL[:, -1] - (ranked_BL[:, -2] if ranked_BL.shape[1] > 1 else 0)
        for number, label, margin in zip(batch.items, probabilities_BL.argmax(1), margin_B, strict=True):
            if int(number) in allowed and margin > best.get(int(label), (-1.0, 0))[0]:
                best[int(label)] = float(margin), int(number)
    return [number for _, (_, number) in sorted(best.items())]


def _options(candidate: Candidate) -> list[dict[str, Any]]:
    match candidate.manifest.head:
        case LabelsHead(labels=labels):
            return [{"top_k": 3}, {"top_k": 1}, {"top_k": min(len(labels), MAX_TOP_K)}]
        case MultilabelHead():
            # From 0 on, every label is in the answer.
            return [{}, {"threshold": 0.0}, {"threshold": 0.75}]
        case _:
            return [{}]


def _request(candidate: Candidate, numbers: Sequence[int], options: dict[str, Any]) -> CheckedRequest:
    kind = candidate.manifest.reader.kind
    if kind == "tensors":
        tensors, rows = tensors_body(candidate, numbers)
        items = [Item(body=None, inputs=row) for row in rows]
        return CheckedRequest(body={"tensors": tensors, **options}, check=_check(candidate, items, options))
    items = [item(candidate, number) for number in numbers]
    body: dict[str, Any] = {FIELDS[kind]: [one.body for one in items], **options}
    if isinstance(candidate.manifest.reader, TextReader):
        body["truncate"] = True
    return CheckedRequest(body=body, check=_check(candidate, items, options))


def _check(candidate: Candidate, items: Sequence[Item], options: dict[str, Any]) -> ResponseCheck:
    def check(response: dict[str, Any]) -> None:
        predictions = response["predictions"]
        if len(predictions) != len(items):
            raise MismatchError(f"{len(predictions)} predictions for {len(items)} items")
        for number, (one, prediction) in enumerate(zip(items, predictions, strict=True)):
            try:
                check_prediction(candidate, one, prediction, options)
            except MismatchError as error:
                raise MismatchError(f"item {number}: {error}") from error

    return check
