"""Classes in the format of Triton, against values that are sorted by hand."""

from typing import Any

import numpy as np
import pytest

from service.http.oip.classification import classify_rows
from service.manifest import Manifest
from tests.service.engine.fakes import manifest
from tests.service.tasks.test_tensors import manifest_of

DIGITS = manifest_of("image-classifier")
A, B, C = DIGITS.labels


def classes(rows: Any, count: int, name: str = "probabilities", model: Manifest = DIGITS) -> list[list[str]]:
    texts = classify_rows(np.array(rows), count, name, model)
    assert texts.dtype == object
    return texts.tolist()  # type: ignore[no-any-return]


def test_the_highest_values_come_first_with_index_and_label() -> None:
    rows = np.float32([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]])
    assert classes(rows, 2) == [[f"0.7:1:{B}", f"0.2:2:{C}"], [f"0.5:0:{A}", f"0.25:1:{B}"]]
    assert classes(rows, 9)[0] == [f"0.7:1:{B}", f"0.2:2:{C}", f"0.1:0:{A}"]


def test_digits_give_the_same_number_back() -> None:
    rng = np.random.default_rng(5)
    values = np.exp(rng.uniform(-80, 80, (20, 3))).astype(np.float32)
    for row, texts in zip(values, classes(values, 3, "logits"), strict=True):
        read = {int(index): np.float32(value) for value, index, _ in (text.split(":", 2) for text in texts)}
        assert [read[i] for i in range(3)] == row.tolist()


def test_other_outputs_have_no_labels() -> None:
    assert classes(np.float32([[1.0, 5.0, 10.0]]), 3, "other") == [["10.0:2", "5.0:1", "1.0:0"]]
    assert classes(np.float32([[1.0, 5.0]]), 1) == [["5.0:1"]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64, np.int64, np.float16, np.float64])
def test_numbers_of_every_type_are_compared_as_such(dtype: Any) -> None:
    high = 60_000 if np.dtype(dtype).itemsize > 1 else 100
    assert classes(np.array([[0, high, 1]], dtype), 2, "x") == [[f"{dtype(high)!s}:1", f"{dtype(1)!s}:2"]]


def test_a_model_without_a_batch_axis_gives_one_list() -> None:
    spec = {"dtype": "float32", "shape": (3,)}
    model = manifest(
        "image-classifier",
        reader={"kind": "tensors"},
        head={"kind": "tensors"},
        inputs=[{"name": "x", **spec}],
        outputs=[{"name": "y", **spec}],
        limits={"max_items": 1},
        tolerance={"y": {"atol": 0, "rtol": 0, "measured": 0}},
    )
    assert classify_rows(np.float32([[1, 3, 2]]), 2, "y", model).tolist() == ["3.0:1", "2.0:2"]


def test_the_first_of_equal_values_comes_first() -> None:
    assert classes(np.zeros((1, 3), np.float32), 3, "x") == [["0.0:0", "0.0:1", "0.0:2"]]
