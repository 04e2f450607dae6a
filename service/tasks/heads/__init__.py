"""The registry of heads: how output tensors become the answer for each item, by the kind of head.

A language model answers with a generation: `service.tasks.generate`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from service.engine.batching.collate import Tensors
from service.manifest import Manifest
from service.tasks.body import AnswerBody, JsonObject
from service.tasks.heads import embedding, image, labels, multilabel, predictions, tensors, token_labels, values
from service.tasks.readers.payload import Fields, Group


@dataclass(frozen=True, kw_only=True)
class Head:
    """`answers` returns one object a row, as `prediction` documents it; `options` are the fields that it uses."""

    outputs: Callable[[Manifest], Sequence[str]]
    answers: Callable[[Manifest, Tensors, Group, Fields], list[JsonObject]]
    prediction: type[AnswerBody]
    options: Callable[[Manifest], tuple[str, ...]] = lambda _: ()


HEADS: Mapping[str, Head] = {
    "labels": Head(
        outputs=lambda _: ("probabilities",),
        answers=labels.answers,
        prediction=predictions.LabelPrediction,
        options=lambda _: ("top_k",),
    ),
    "multilabel": Head(
        outputs=lambda _: ("probabilities",),
        answers=multilabel.answers,
        prediction=predictions.MultilabelPrediction,
        options=lambda _: ("threshold",),
    ),
    "values": Head(outputs=lambda _: ("values",), answers=values.answers, prediction=predictions.ValuesPrediction),
    "embedding": Head(
        outputs=lambda _: ("embedding",), answers=embedding.answers, prediction=predictions.EmbeddingPrediction
    ),
    "token-labels": Head(
        outputs=token_labels.outputs,
        answers=token_labels.answers,
        prediction=predictions.TokensPrediction,
        options=token_labels.options,
    ),
    "image": Head(outputs=image.outputs, answers=image.answers, prediction=predictions.ImagePrediction),
    "tensors": Head(outputs=tensors.outputs, answers=tensors.answers, prediction=predictions.TensorsPrediction),
}
