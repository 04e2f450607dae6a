"""NVIDIA's client of the Open Inference Protocol against a real server, for every family."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.service.bundles import FAMILIES, NAMES, example_inputs, golden_cases

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tritonclient.http as triton
    from tritonclient.utils import InferenceServerException

DATATYPES = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Any]:
    client = triton.InferenceServerClient(address)
    yield client
    client.close()


def tensors(inputs: Any, *, binary: bool) -> list[Any]:
    infer_inputs = []
    for name, value in inputs.items():
        infer_inputs.append(triton.InferInput(name, value.shape, DATATYPES[value.dtype.name]))
        infer_inputs[-1].set_data_from_numpy(value, binary_data=binary)
    return infer_inputs


def expected_of(family: str) -> tuple[Any, dict[str, Any]]:
    """Return inputs and the outputs of the graph, with the outputs beyond the length of a row set to zero."""
    case = golden_cases(family)[1]
    outputs = dict(case.outputs)
    if family == "series-tagger":
        within = np.arange(outputs["logits"].shape[1]) < case.inputs["lengths"][:, None]
        outputs |= {name: outputs[name] * within[:, :, None] for name in ("logits", "probabilities")}
    return case.inputs, outputs


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_every_family_returns_the_outputs_of_the_graph(family: str, binary: bool, client: Any) -> None:
    inputs, expected = expected_of(family)
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in expected]
    result = client.infer(NAMES[family], tensors(inputs, binary=binary), outputs=outputs, request_id="a-7")
    assert result.get_response()["id"] == "a-7"
    assert result.get_response()["model_name"] == NAMES[family]
    for name, value in expected.items():
        got = result.as_numpy(name)
        assert got.dtype == value.dtype
        assert got.shape == value.shape
        np.testing.assert_allclose(got.astype(float), value.astype(float), atol=1e-6, rtol=1e-5)


def test_all_outputs_are_sent_as_bytes_by_default(client: Any) -> None:
    inputs, expected = expected_of("series-classifier")
    result = client.infer("tiny-series", tensors(inputs, binary=False))
    for name, value in expected.items():
        np.testing.assert_allclose(result.as_numpy(name), value, atol=1e-6)
        assert "binary_data_size" in result.get_output(name)["parameters"]


def test_the_client_reads_metadata_and_readiness(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny-images")
    assert not client.is_model_ready("tiny-nothing")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = client.get_model_metadata("tiny-images")
    version = metadata["versions"][0]
    assert client.get_model_metadata("tiny-images", version) == metadata
    assert client.is_model_ready("tiny-images", version)
    result = client.infer("tiny-images", tensors(example_inputs("image-classifier"), binary=True), version)
    assert result.get_response()["model_version"] == version


def test_the_client_raises_the_error_of_the_service(client: Any) -> None:
    wrong_shape = tensors({"images": np.zeros((1, 4, 5), np.uint8)}, binary=True)
    with pytest.raises(InferenceServerException, match=r"expected shape \[batch, 4, 4\], got \[1, 4, 5\]") as caught:
        client.infer("tiny-images", wrong_shape)
    assert caught.value.status() == "422"
    with pytest.raises(InferenceServerException, match="tiny-nothing"):
        client.infer("tiny-nothing", wrong_shape)
    with_nan = example_inputs("image-generator")
    with_nan["latents"][1, 2] = np.nan
    with pytest.raises(InferenceServerException, match=r"finite numbers, got nan at \[1, 2\]"):
        client.infer("tiny-pictures", tensors(with_nan, binary=True))


def test_a_request_with_a_timeout_is_computed(client: Any) -> None:
    inputs, expected = expected_of("text-classifier")
    result = client.infer("tiny-texts", tensors(inputs, binary=True), timeout=20_000_000)
    np.testing.assert_allclose(result.as_numpy("logits"), expected["logits"], atol=1e-6)
