"""The reference is the file as it came; a difference from a golden output is named by its place."""

from pathlib import Path

import numpy as np
import pytest
import torch

from export.sources.onnx_file.graph import read_graph
from export.sources.onnx_file.reference import Reference, ReferenceModule, difference
from export.spec import TolerancePart
from tests.export.sources.onnx_file.graphs import linear, linear_case, written

TOLERANCE = TolerancePart()


def test_reference_runs_the_file(tmp_path: Path) -> None:
    reference, case = Reference(written(tmp_path, linear())), linear_case(3)
    found = reference.run({"X": case["X"]}, ["scores"])
    np.testing.assert_allclose(found["scores"], case["scores"], rtol=1e-5)
    with pytest.raises(ValueError, match=r"the graph fails for X \[3, 2\]: .*"):
        reference.run({"X": case["X"][:, :2]}, ["scores"])


def test_file_that_onnxruntime_does_not_load_is_refused(tmp_path: Path) -> None:
    model = linear()
    model.graph.node[0].op_type = "Nonsense"
    with pytest.raises(ValueError, match=r"onnxruntime does not load .*model\.onnx: .*Nonsense"):
        Reference(written(tmp_path, model))


def test_verdict_says_what_is_wrong(tmp_path: Path) -> None:
    reference, case = Reference(written(tmp_path, linear())), linear_case(3)
    expected = {"scores": case["scores"], "label": case["label"]}
    assert reference.mismatch({"X": case["X"]}, expected, TOLERANCE) is None
    changed = case["scores"].copy()
    changed[2, 1] += 0.5
    reason = reference.mismatch({"X": case["X"]}, {"scores": changed}, TOLERANCE)
    assert reason is not None
    assert reason.startswith("output 'scores' at [2, 1]: the golden value is ")
    assert "the graph fails" in str(reference.mismatch({"X": case["X"][:, :1]}, expected, TOLERANCE))


def test_differences_of_every_kind() -> None:
    one = np.ones((2, 2), np.float32)
    assert difference("y", one, one + 1e-6, TOLERANCE) is None
    assert difference("y", one[:, :1], one, TOLERANCE) == "output 'y' has the shape [2, 1], the golden one [2, 2]"
    numbers = np.array([1, 2])
    assert difference("y", numbers, numbers, TOLERANCE) is None
    reason = "output 'y' at [1]: the golden value is 3, the graph gives 2"
    assert difference("y", numbers, np.array([1, 3]), TOLERANCE) == reason
    texts = np.array(["a", "b"], object)
    assert difference("y", texts, np.array(["a", "b"]), TOLERANCE) is None
    assert "the golden value is c" in str(difference("y", texts, np.array(["a", "c"]), TOLERANCE))
    assert difference("y", one[:0], one[:0], TOLERANCE) is None


def test_module_gives_arguments_the_dtypes_of_the_graph(tmp_path: Path) -> None:
    path = written(tmp_path, linear())
    module, case = ReferenceModule(read_graph(path), Reference(path), {}), linear_case(3)
    found = module(X=torch.from_numpy(case["X"]).double())
    assert list(found) == ["label", "scores"]
    assert found["label"].dtype == torch.int64
    np.testing.assert_allclose(found["scores"].numpy(), case["scores"], rtol=1e-5)
