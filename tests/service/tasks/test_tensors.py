"""Raw tensors: each rule is violated once, for every family that has it."""

import re
from typing import Any

import numpy as np
import pytest

from service.errors import EkibenError
from service.manifest import Manifest
from service.tasks.tensors import check_values, clear_padding, shape_mismatch, value_rules
from tests.service.bundles import CONTEXT, FAMILIES, example_inputs, manifest_fields

FILES = {name: {"sha256": "0" * 64, "bytes": 1} for name in ("model.onnx", "golden.safetensors", "requests.jsonl")}


def manifest_of(family: str) -> Manifest:
    files = {**FILES, "tokenizer.json": FILES["model.onnx"]}
    return Manifest.versioned(**manifest_fields(family), files=files)


def check(family: str, tensors: dict[str, Any]) -> None:
    pointers = {name: f"/inputs/{i}" for i, name in enumerate(tensors)}
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    check_values(tensors, value_rules(shapes, manifest_of(family), pointers))


@pytest.mark.parametrize("family", FAMILIES)
def test_valid_tensors_pass(family: str) -> None:
    check(family, example_inputs(family))
    check(family, example_inputs(family, batch=8))


def changed(family: str, name: str, index: Any, value: Any) -> dict[str, Any]:
    tensors = example_inputs(family)
    tensors[name] = tensors[name].copy()
    tensors[name][index] = value
    return tensors


INVALID = {
    "no rows": ("image-classifier", {"images": np.zeros((0, 4, 4), np.uint8)}, "batch axis of 1 to 8, got 0"),
    "too many rows": ("image-generator", {"latents": np.zeros((9, 5), np.float32)}, "batch axis of 1 to 8, got 9"),
    "NaN": ("series-classifier", changed("series-classifier", "series", (2, 1, 0), np.nan), r"nan at \[2, 1, 0\]"),
    "infinity": ("image-generator", changed("image-generator", "latents", (0, 4), np.inf), r"inf at \[0, 4\]"),
    "a state of NaN": ("series-tagger", changed("series-tagger", "c", (1, 0, 0), np.nan), r"nan at \[1, 0, 0\]"),
    "no length": ("text-classifier", changed("text-classifier", "lengths", 1, 0), r"1 to 5, got 0 at \[1\]"),
    "over-long": ("text-classifier", changed("text-classifier", "lengths", 2, 6), r"1 to 5, got 6 at \[2\]"),
    "unknown token": ("text-classifier", changed("text-classifier", "ids", (0, 3), 10), r"0 to 9, got 10 at \[0, 3\]"),
    "negative token": ("language-model", changed("language-model", "ids", (1, 0), -1), r"0 to 28, got -1"),
    "past too long": ("language-model", changed("language-model", "past_lengths", 0, 7), "0 to 6, got 7"),
    "negative past": ("language-model", changed("language-model", "past_lengths", 0, -1), "0 to 6, got -1"),
    "rows differ": (
        "series-classifier",
        {**example_inputs("series-classifier"), "lengths": np.ones(2, np.int64)},
        "batch = 3 as in 'series', got 2",
    ),
    "too many steps": (
        "series-classifier",
        {"series": np.zeros((1, 13, 2), np.float32), "lengths": np.array([13])},
        "steps axis of 1 to 12, got 13",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", INVALID)
def test_invalid_tensor_is_named(name: str) -> None:
    family, tensors, message = INVALID[name]
    with pytest.raises(EkibenError, match=message) as caught:
        check(family, tensors)
    assert caught.value.slug == "invalid-request"
    assert caught.value.faults[0].pointer.startswith("/inputs/")


def test_past_and_steps_together_are_limited_by_the_context() -> None:
    tensors = example_inputs("language-model", batch=1)
    for name in tensors:
        if name.startswith("past_") and name != "past_lengths":
            tensors[name] = np.zeros((1, 2, CONTEXT, 4), np.float32)
    tensors["past_lengths"] = np.array([CONTEXT - 5])
    check("language-model", tensors)
    tensors["past_lengths"] = np.array([CONTEXT - 4])
    with pytest.raises(EkibenError, match=f"0 to {CONTEXT - 5}"):
        check("language-model", tensors)


def test_large_finite_numbers_whose_square_overflows_pass() -> None:
    check("image-generator", {"latents": np.full((1, 5), 1e30, np.float32)})


def check_ranged(tensors: dict[str, Any], low: float, high: float) -> None:
    domain = {name: {"low": low, "high": high} for name in ("series", "h", "c")}
    ranged = Manifest.versioned(**manifest_fields("series-tagger"), domain=domain, files=FILES)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    check_values(tensors, value_rules(shapes, ranged, {name: f"/inputs/{name}" for name in tensors}))


@pytest.mark.parametrize("name", ["series", "h", "c"])
@pytest.mark.parametrize("bad", [9.5, -9.5, 3e38, np.nan, np.inf, -np.inf])
def test_numbers_outside_the_domain_are_named(name: str, bad: float) -> None:
    tensors = changed("series-tagger", name, (2, 0, 1), bad)
    check_ranged(example_inputs("series-tagger"), -9, 9)
    with pytest.raises(
        EkibenError, match=rf"expected -9.0 to 9.0, got {re.escape(str(np.float32(bad)))} at \[2, 0, 1\]"
    ) as caught:
        check_ranged(tensors, -9, 9)
    assert caught.value.faults[0].pointer == f"/inputs/{name}"


def test_zeros_that_pad_may_be_outside_the_domain() -> None:
    tensors = example_inputs("series-tagger")
    tensors = {**tensors, **{name: np.full_like(tensors[name], 5.5) for name in ("series", "h", "c")}}
    lengths = tensors["lengths"]
    padding = np.arange(5) >= lengths[:, None]
    assert padding.any()
    tensors["series"][padding] = 0
    check_ranged(tensors, 5, 6)
    row = int(np.flatnonzero(padding.any(axis=1))[0])
    for at, number in (((row, lengths[row], 1), 0.5), ((row, lengths[row] - 1, 1), 0.0)):
        bad = {**tensors, "series": tensors["series"].copy()}
        bad["series"][at] = number
        with pytest.raises(EkibenError, match=rf"expected 5.0 to 6.0, got {number} at"):
            check_ranged(bad, 5, 6)


def test_shape_mismatch_names_expected_and_got() -> None:
    spec = manifest_of("image-classifier").inputs[0]
    assert shape_mismatch([7, 4, 4], spec) is None
    for shape in ([4, 4], [1, 4, 5], [1, 4, 4, 1]):
        assert shape_mismatch(shape, spec) == f"expected shape [batch, 4, 4], got {shape}"


def test_clear_padding_zeroes_outputs_beyond_each_length() -> None:
    inputs = example_inputs("series-tagger")
    outputs = {"logits": np.ones((3, 5, 3), np.float32), "next_h": np.ones((3, 1, 3), np.float32)}
    clear_padding(outputs, inputs, manifest_of("series-tagger"))
    assert outputs["logits"].sum(axis=(1, 2)).tolist() == [3 * length for length in inputs["lengths"].tolist()]
    assert outputs["next_h"].all()
