"""Which pairs of reader and head make sense, and which task serves them."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from service.contract.heads import Head
from service.contract.pairs import TASKS, is_latent_generator, pair_error, required_inputs, task_of
from service.contract.readers import Reader, TensorsReader
from service.contract.tensors import TensorSpec, float32
from tests.service.bundles import FAMILIES, HEADS, READERS, TASK_OF_FAMILY, tensor_specs


def pair(reader: dict[str, Any], head: dict[str, Any]) -> tuple[Reader, Head]:
    return TypeAdapter[Reader](Reader).validate_python(reader), TypeAdapter[Head](Head).validate_python(head)


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_determine_the_tensors_of_the_graph(family: str) -> None:
    """The graphs of the tiny models were written by hand."""
    reader, head = pair(READERS[family], HEADS[family])
    specs = tensor_specs(family)
    assert pair_error(reader, head) is None
    required = required_inputs(reader, head)
    assert (required is None) == (reader.kind == "tensors")
    assert required is None or set(required) == set(specs["inputs"])
    assert set(head.outputs(reader)) <= set(specs["outputs"])
    assert task_of(reader, head, specs["inputs"]) == TASK_OF_FAMILY[family]


IMAGE = {"kind": "image", "height": 4, "width": 4, "mode": "L"}
LABELS = {"kind": "labels", "labels": ("a", "b")}
TAGS = {"kind": "token-labels", "labels": ("a", "b")}
STATE = {"kind": "series", "channels": 1, "state": {"layers": 1, "hidden": 1}}


@pytest.mark.parametrize(
    ("reader", "head", "message"),
    [
        (IMAGE, {"kind": "language-model", "layers": 1, "heads": 1, "head_size": 1}, "a language-model reads text"),
        (IMAGE, TAGS, "token-labels need a text or series reader, not image"),
        (STATE, LABELS, "a series reader with a state needs the head token-labels, not labels"),
        (STATE, {**IMAGE, "height": None}, "needs the head token-labels"),
        ({"kind": "tensors"}, {**IMAGE, "height": None}, "needs an image reader, not tensors"),
    ],
)
def test_pairs_without_sense_are_refused(reader: dict[str, Any], head: dict[str, Any], message: str) -> None:
    error = pair_error(*pair(reader, head))
    assert error is not None
    assert message in error


def test_pairs_without_a_route_of_their_own_are_served_by_predict() -> None:
    reader, head = pair(IMAGE, {"kind": "embedding", "size": 3, "normalized": True})
    assert task_of(reader, head, ()) == "predict"
    assert TASKS["table", "labels"] == "classify"


def test_only_latents_are_drawn_from_a_seed() -> None:
    reader, head = pair({"kind": "tensors"}, IMAGE)

    def is_generator(*specs: TensorSpec) -> bool:
        return is_latent_generator(reader, head, specs)

    assert isinstance(reader, TensorsReader)
    assert is_generator(float32("latents", "batch", 5))
    assert not is_generator(float32("noise", "batch", 5))
    assert not is_generator(float32("latents", "batch", "steps"))
    assert not is_generator(float32("latents", 5, 5))
    assert not is_generator(float32("latents", "batch", 5), float32("style", "batch", 5))
