"""Request bodies for models that label, and what PyTorch says to the same raw items."""

import base64
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image as Pillow

from export.answers import by_torch
from export.asked import Asked, Check, MismatchError, served
from export.candidate import Candidate
from export.cases import Array, Case
from service.families import SeriesTagger
from service.tasks.replay import answer_request_sync


def images(candidate: Candidate) -> Iterator[Asked]:
    pictures, labels = candidate.run.test.inputs["images"], len(candidate.run.checkpoint.labels)
    noise = np.random.default_rng(3).integers(0, 256, pictures.shape[1:], dtype=np.uint8)
    for chosen, encode, top_k in (
        ([0], _png, 3),
        ([1], _rows, 3),
        ([2, 3, 4], _png, labels),
        ([5, 6], _rows, 1),
        ([7, 8, 9, 10, 11, 12, 13, 14], _png, 2),
        ([-1], _png, 3),
    ):
        batch = np.stack([noise if i < 0 else pictures[i % len(pictures)] for i in chosen])
        yield Asked(
            body={"images": [encode(image) for image in batch], "top_k": top_k},
            check=_labelled(candidate, {"images": batch}, top_k),
        )


def _png(image: Array) -> str:
    buffer = BytesIO()
    Pillow.fromarray(image).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _rows(image: Array) -> list[Any]:
    return image.tolist()


def texts(candidate: Candidate) -> Iterator[Asked]:
    split = candidate.run.test
    for chosen, top_k in (([0], 3), ([1, 2], 1), (list(range(3, 11)), 2), ([11], 100)):
        rows = [i % len(split) for i in chosen]
        lengths = split.inputs["lengths"][rows]
        inputs = {"ids": split.inputs["ids"][rows, : lengths.max()], "lengths": lengths}
        check = _labelled(candidate, inputs, top_k)
        yield Asked(body={"texts": [split.texts[i] for i in rows], "top_k": top_k, "truncate": True}, check=check)


def series(candidate: Candidate) -> Iterator[Asked]:
    split = candidate.run.test
    for chosen, top_k in (([0], 3), ([1, 2], 1), (list(range(3, 9)), 2), ([9], 100)):
        rows = [i % len(split) for i in chosen]
        lengths = split.inputs["lengths"][rows]
        inputs = {"series": split.inputs["series"][rows, : lengths.max()], "lengths": lengths}
        sequences = [series[:length].tolist() for series, length in zip(inputs["series"], lengths, strict=True)]
        yield Asked(body={"sequences": sequences, "top_k": top_k}, check=_labelled(candidate, inputs, top_k))


def tagged(candidate: Candidate) -> Iterator[Asked]:
    """As series; and every series in two halves, the second continuing from the state of the first."""
    model = served(candidate)
    for asked in series(candidate):

        def check(answer: dict[str, Any], asked: Asked = asked) -> None:
            asked.check(answer)
            if min(len(series) for series in asked.body["sequences"]) > 1:
                halves = [len(series) // 2 for series in asked.body["sequences"]]
                pairs = list(zip(asked.body["sequences"], halves, strict=True))
                body = {**asked.body, "model": candidate.manifest.name}
                first = answer_request_sync(model, body | {"sequences": [series[:half] for series, half in pairs]})
                states = [prediction["state"] for prediction in first["predictions"]]
                rest = answer_request_sync(
                    model, body | {"sequences": [series[half:] for series, half in pairs], "states": states}
                )
                for begun, ended in zip(first["predictions"], rest["predictions"], strict=True):
                    ended["steps"] = begun["steps"] + ended["steps"]
                asked.check(rest)

        yield Asked(body=asked.body, check=check)


def _labelled(candidate: Candidate, inputs: dict[str, Array], top_k: int) -> Check:
    labels = candidate.run.checkpoint.labels
    tolerance = candidate.manifest.tolerance["probabilities"]
    if isinstance(candidate.manifest.parameters, SeriesTagger):
        parameters = candidate.manifest.parameters
        zeros = np.zeros((len(inputs["lengths"]), parameters.layers, parameters.hidden), np.float32)
        inputs = {**inputs, "h": zeros, "c": zeros}

    def entries(where: str, given: list[dict[str, Any]], expected_L: Array, count: int) -> None:
        if len(given) != min(count, len(labels)):
            raise MismatchError(f"{where}: {len(given)} labels, expected {min(count, len(labels))}")
        order = np.argsort(-expected_L, kind="stable")
        for rank, entry in enumerate(given):
            if entry["label"] not in labels:
                raise MismatchError(f"{where}: label {entry['label']!r} is none of the run's")
            expected = float(expected_L[labels.index(entry["label"])])
            allowed = tolerance.atol + tolerance.rtol * expected
            nearly_ranked = abs(expected_L[order[rank]] - expected) <= 2 * allowed
            if not abs(entry["probability"] - expected) <= allowed or not nearly_ranked:
                raise MismatchError(
                    f"{where}, rank {rank + 1}: label {entry['label']!r} with probability {entry['probability']:.7f}, "
                    f"PyTorch gives it {expected:.7f} and has {labels[order[rank]]!r} at this rank"
                )

    def check(answer: dict[str, Any]) -> None:
        reference = by_torch(candidate.run)(Case(name="request", inputs=inputs))["probabilities"]
        if len(answer["predictions"]) != len(reference):
            raise MismatchError(f"{len(answer['predictions'])} predictions for {len(reference)} items")
        for i, prediction in enumerate(answer["predictions"]):
            last_L = reference[i]
            if "lengths" in inputs:
                length = inputs["lengths"][i]
                if prediction.get("tokens", length) != length:
                    raise MismatchError(f"item {i}: {prediction['tokens']} tokens, training had {length}")
                if "steps" in prediction:
                    last_L = reference[i, length - 1]
                    for step, entry in enumerate(prediction["steps"]):
                        entries(f"item {i}, step {step}", [entry], reference[i, step], 1)
            entries(f"item {i}", prediction["top"], last_L, top_k)
            if prediction["top"][0] != {key: prediction[key] for key in ("label", "probability")}:
                raise MismatchError(f"item {i}: its label is not the first of its top")

    return check
