"""The check of one prediction of any head against the outputs of the reference for the same item."""

import base64
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from export.candidate import Candidate
from export.errors import MismatchError
from export.gates.backends import reference_backend
from export.gates.cases import Array, Case
from export.gates.requests.payloads import Item
from service.bundle import Tensors
from service.contract.heads import MultilabelHead, ValuesHead
from service.engine.verification.parity import compare

Prediction = dict[str, Any]


def expected_outputs(candidate: Candidate, inputs: Tensors) -> dict[str, Array]:
    """The outputs of the reference for one row, without the batch axis."""
    rows = {name: np.asarray(values)[None] for name, values in inputs.items()}
    outputs = reference_backend(candidate.source)(Case(name="request", inputs=rows))
    return {name: values[0] for name, values in outputs.items()}


def check_prediction(candidate: Candidate, item: Item, prediction: Prediction, options: Prediction) -> None:
    """Raises MismatchError unless the prediction is what the reference gives for the item."""
    if "tokens" in prediction and candidate.manifest.head.kind != "token-labels":
        length = int(item.inputs["lengths"])
        if prediction["tokens"] != length:
            raise MismatchError(f"{prediction['tokens']} tokens, {candidate.source.reference} had {length}")
    outputs = expected_outputs(candidate, item.inputs)
    BY_HEAD[candidate.manifest.head.kind](candidate, item, prediction, outputs, options)


def _allowed(candidate: Candidate, output: str, expected: float) -> float:
    tolerance = candidate.manifest.tolerance[output]
    return tolerance.atol + tolerance.rtol * abs(expected)


def _labels(candidate: Candidate, _: Item, prediction: Prediction, outputs: Tensors, options: Prediction) -> None:
    expected_L, top_k = outputs["probabilities"], options.get("top_k", 3)
    labels, top = candidate.source.labels, prediction["top"]
    if len(top) != min(top_k, len(labels)):
        raise MismatchError(f"{len(top)} labels, expected {min(top_k, len(labels))}")
    order = np.argsort(-expected_L, kind="stable")
    for rank, entry in enumerate(top):
        _check_entry(candidate, f"rank {rank + 1}", entry, expected_L, best=int(order[rank]))
    if top[0] != {key: prediction[key] for key in ("label", "probability")}:
        raise MismatchError("the label is not the first of its top")


def _check_entry(candidate: Candidate, place: str, entry: Prediction, expected_L: Array, *, best: int) -> None:
    labels, reference = candidate.source.labels, candidate.source.reference
    if entry["label"] not in labels:
        raise MismatchError(f"{place}: label {entry['label']!r} is none of the source's")
    expected = float(expected_L[labels.index(entry["label"])])
    allowed = _allowed(candidate, "probabilities", expected)
    # Two labels whose probabilities are within tolerance of each other may swap their ranks.
    is_ranked = abs(float(expected_L[best]) - expected) <= 2 * allowed
    if not abs(entry["probability"] - expected) <= allowed or not is_ranked:
        raise MismatchError(
            f"{place}: label {entry['label']!r} with probability {entry['probability']:.7f}, expected {expected:.7f} "
            f"and {labels[best]!r} here from {reference}"
        )


def _multilabel(candidate: Candidate, _: Item, prediction: Prediction, outputs: Tensors, options: Prediction) -> None:
    head, expected_L = candidate.source.head, outputs["probabilities"]
    assert isinstance(head, MultilabelHead)
    threshold = options.get("threshold", head.threshold)
    given = {entry["label"]: entry["probability"] for entry in prediction["labels"]}
    if unknown := set(given) - set(head.labels):
        raise MismatchError(f"label {min(unknown)!r} is none of the source's")
    if list(given.values()) != sorted(given.values(), reverse=True):
        raise MismatchError("the labels are not in the order of their probabilities")
    for label, probability in zip(head.labels, expected_L.tolist(), strict=True):
        allowed = _allowed(candidate, "probabilities", probability)
        if label in given and not abs(given[label] - probability) <= allowed:
            raise MismatchError(f"label {label!r} with probability {given[label]:.7f}, expected {probability:.7f}")
        is_near = abs(probability - threshold) <= allowed
        if (label in given) != (probability >= threshold) and not is_near:
            state = "missing" if probability >= threshold else "given"
            raise MismatchError(f"label {label!r} of probability {probability:.7f} is {state} at {threshold:g}")


def _values(candidate: Candidate, _: Item, prediction: Prediction, outputs: Tensors, __: Prediction) -> None:
    head = candidate.source.head
    assert isinstance(head, ValuesHead)
    if list(prediction["values"]) != list(head.names):
        raise MismatchError(f"values {list(prediction['values'])}, expected {list(head.names)}")
    _check_array(candidate, "values", list(prediction["values"].values()), outputs["values"])


def _embedding(candidate: Candidate, _: Item, prediction: Prediction, outputs: Tensors, __: Prediction) -> None:
    _check_array(candidate, "embedding", prediction["embedding"], outputs["embedding"])


def _tokens(candidate: Candidate, item: Item, prediction: Prediction, outputs: Tensors, _: Prediction) -> None:
    encoding, expected_TL = item.encoding, outputs["probabilities"]
    assert encoding is not None, "labels of the steps of a series are checked with its states"
    steps = [step for step in range(len(expected_TL)) if not encoding.special_tokens_mask[step]]
    if len(prediction["tokens"]) != len(steps):
        raise MismatchError(f"{len(prediction['tokens'])} tokens, expected {len(steps)}")
    for step, token in zip(steps, prediction["tokens"], strict=True):
        start, end = encoding.offsets[step]
        if (token["start"], token["end"], token["text"]) != (start, end, item.text[start:end]):
            raise MismatchError(f"token {step} is {token['text']!r} at {token['start']}, expected {start} to {end}")
        _check_entry(candidate, f"token {step}", token, expected_TL[step], best=int(expected_TL[step].argmax()))


def _image(candidate: Candidate, _: Item, prediction: Prediction, outputs: Tensors, __: Prediction) -> None:
    actual = np.asarray(Image.open(BytesIO(base64.b64decode(prediction["image"]))))
    [spec] = candidate.manifest.head.outputs(candidate.manifest.reader)
    difference = compare(outputs[spec.name], actual, atol=0, rtol=0)
    if not difference.within:
        raise MismatchError(
            f"pixels are {difference.worst:g} away from {candidate.source.reference}: {difference.detail}"
        )


def _tensors(candidate: Candidate, _: Item, prediction: Prediction, outputs: Tensors, __: Prediction) -> None:
    if set(prediction["outputs"]) != set(outputs):
        raise MismatchError(f"outputs {sorted(prediction['outputs'])}, expected {sorted(outputs)}")
    for spec in candidate.manifest.outputs:
        given, expected = prediction["outputs"][spec.name], outputs[spec.name]
        if "steps" in spec.row_shape:
            # An item in a batch with a longer one has zeros behind its end.
            axis = spec.row_shape.index("steps")
            behind = max(0, np.shape(given)[axis] - expected.shape[axis])
            expected = np.pad(expected, [(0, behind if i == axis else 0) for i in range(expected.ndim)])
        _check_array(candidate, spec.name, given, expected)


def _check_array(candidate: Candidate, output: str, given: Any, expected: Array) -> None:
    tolerance = candidate.manifest.tolerance[output]
    # A text of a row without further axes is no array.
    expected = np.asarray(expected, object) if isinstance(expected, str) else expected
    difference = compare(
        expected, np.array(given, expected.dtype).reshape(np.shape(given)), atol=tolerance.atol, rtol=tolerance.rtol
    )
    if not difference.within:
        raise MismatchError(
            f"output {output!r} is {difference.worst:.3g} away from {candidate.source.reference}: {difference.detail}"
        )


Check = Callable[[Candidate, Item, Prediction, Tensors, Prediction], None]
BY_HEAD: dict[str, Check] = {
    "labels": _labels,
    "multilabel": _multilabel,
    "values": _values,
    "embedding": _embedding,
    "token-labels": _tokens,
    "image": _image,
    "tensors": _tensors,
}
