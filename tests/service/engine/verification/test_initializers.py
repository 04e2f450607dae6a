"""Tensors are read from, and written into, the bytes of an ONNX file."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from service.engine.verification.initializers import stored_tensors, tensor_values, with_values
from tests.service.bundles import FAMILIES, onnx_model


@pytest.mark.parametrize("family", FAMILIES)
def test_values_are_those_that_the_onnx_package_reads(family: str) -> None:
    model = onnx_model(family)
    content = model.SerializeToString()
    tensors = stored_tensors(content, "float32", "int64")
    expected = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert {tensor.name for tensor in tensors} == set(expected)
    for tensor in tensors:
        np.testing.assert_array_equal(tensor_values(content, tensor), expected[tensor.name])
    assert [tensor.offset for tensor in tensors] == sorted(tensor.offset for tensor in tensors)


def test_only_tensors_of_the_given_types_are_returned() -> None:
    content = onnx_model("series-classifier").SerializeToString()
    assert {tensor.name for tensor in stored_tensors(content, "int64")} == {"zero"}


def test_a_patch_changes_one_tensor_and_nothing_else() -> None:
    content = onnx_model("image-classifier").SerializeToString()
    tensor = next(tensor for tensor in stored_tensors(content, "float32") if tensor.name == "w")
    patched = with_values(content, tensor, tensor_values(content, tensor) + 1)
    assert len(patched) == len(content)
    before, after = (
        {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(model).graph.initializer}
        for model in (content, patched)
    )
    np.testing.assert_array_equal(after["w"], before["w"] + 1)
    np.testing.assert_array_equal(after["b"], before["b"])


def test_values_of_another_size_are_refused() -> None:
    content = onnx_model("image-classifier").SerializeToString()
    tensor = stored_tensors(content, "float32")[0]
    with pytest.raises(ValueError, match=f"tensor '{tensor.name}' has {tensor.size} bytes, got 4"):
        with_values(content, tensor, np.zeros(1))
