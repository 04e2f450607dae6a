"""Random values are those that a reader allows: of every dtype, within columns and domains."""

from dataclasses import replace

import numpy as np
import pytest

from export.candidate import Candidate
from export.gates.inputs.values import at_the_ends, random_values, within_domain
from service.contract.tensors import Dtype, TensorSpec
from service.manifest import ValueRange
from tests.export.conftest import Candidates
from tests.export.tiny_sources import make_candidate
from training.recipe import Split

EXAMPLES = {
    "bool": [True, False],
    "uint8": [3, 250],
    "int8": [-3, 7],
    "int64": [-(2**40), 5],
    "uint64": [1, 2**63],
    "float16": [0.5, -0.5],
    "float64": [1e9, -1e9],
    "string": ["a", "bc"],
}


def draw(dtype: Dtype, candidate: Candidate, shape: tuple[int, ...] = (500, 2)) -> np.ndarray:  # type: ignore[type-arg]
    spec = TensorSpec(name="features", dtype=dtype, shape=("batch", 2))
    examples = np.array([EXAMPLES[dtype]] * 4, spec.numpy_dtype)
    split = Split(inputs={"features": examples}, targets=np.empty(0, np.int64))
    source = replace(candidate.source, examples=split)
    return random_values(source, candidate.manifest, spec, shape, np.random.default_rng(0))


@pytest.mark.parametrize("dtype", EXAMPLES)
def test_tensors_of_every_dtype_are_drawn_from_what_the_examples_have(dtype: Dtype) -> None:
    values = draw(dtype, make_candidate("tiny-regression"))
    assert values.shape == (500, 2)
    assert values.dtype == TensorSpec(name="x", dtype=dtype, shape=()).numpy_dtype
    low, high = min(EXAMPLES[dtype]), max(EXAMPLES[dtype])
    if dtype.startswith("float"):
        assert np.isfinite(values).all()
        assert values.min() < low < high < values.max()
    elif dtype in {"bool", "string"}:
        assert set(values.ravel().tolist()) == set(EXAMPLES[dtype])
    else:
        assert low <= values.min() < values.max() <= high


def test_numbers_stay_in_the_domain_and_in_their_column() -> None:
    candidate = make_candidate("tiny-table")
    manifest = candidate.manifest.model_copy(update={"domain": {"numbers": ValueRange(low=-8, high=64)}})
    [numbers, categories] = manifest.inputs
    rng = np.random.default_rng(0)
    values = random_values(candidate.source, manifest, numbers, (2000, 2), rng)
    assert values.dtype == np.float32
    assert (values[:, 0].min(), values[:, 0].max()) == (0, 64)
    assert -8 <= values[:, 1].min() < 0
    codes = random_values(candidate.source, manifest, categories, (200, 1), rng)
    assert set(codes.ravel().tolist()) == {0, 1, 2, 3}
    assert within_domain(manifest, "numbers", np.float32([[-99, -99]])).tolist() == [[0, -8]]
    assert within_domain(manifest, "categories", codes) is codes


def test_outliers_are_at_the_ends_of_their_domain(candidates: Candidates) -> None:
    pictures = candidates("tiny-picture")
    spec = pictures.manifest.inputs[0]
    rows = at_the_ends(pictures.manifest, spec, np.full((3, *spec.row_shape), 7, np.uint8))
    assert [set(row.ravel().tolist()) for row in rows] == [{255}, {0}, {255}]
    numbers = make_candidate("tiny-regression")
    spec = numbers.manifest.inputs[0]
    values = np.zeros((2, *spec.row_shape), spec.numpy_dtype)
    manifest = numbers.manifest.model_copy(update={"domain": {spec.name: ValueRange(low=-1, high=8)}})
    assert [set(row.tolist()) for row in at_the_ends(manifest, spec, values)] == [{8}, {-1}]
    without = numbers.manifest.model_copy(update={"domain": {}})
    np.testing.assert_array_equal(at_the_ends(without, spec, values), values)
