"""NVIDIA's client of the Open Inference Protocol against a real server, for every family."""

import asyncio
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from service.http.oip.models import EXTENSIONS
from tests.service.bundles import FAMILIES, NAMES, example_inputs, golden_cases

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tritonclient.grpc as triton_grpc
    import tritonclient.http as triton
    import tritonclient.http.aio as triton_aio
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
    assert client.get_server_metadata()["extensions"] == list(EXTENSIONS)
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


def test_the_client_reads_configuration_index_and_statistics(client: Any) -> None:
    config = client.get_model_config("tiny-texts", "1")
    assert (config["name"], [tensor["name"] for tensor in config["input"]]) == ("tiny-texts", ["ids", "lengths"])
    index = {entry["name"] for entry in client.get_model_repository_index() if entry["state"] == "READY"}
    assert {"tiny-texts", "tiny-images"} <= index
    inputs, _ = expected_of("text-classifier")
    [before] = client.get_inference_statistics("tiny-texts")["model_stats"]
    client.infer("tiny-texts", tensors(inputs, binary=True), "1")
    [after] = client.get_inference_statistics("tiny-texts")["model_stats"]
    assert after["inference_count"] - before["inference_count"] == len(inputs["lengths"])
    assert len(client.get_inference_statistics()["model_stats"]) == len(index)


def test_the_client_unloads_and_loads(client: Any) -> None:
    client.unload_model("tiny-pictures", unload_dependents=True)
    assert not client.is_model_ready("tiny-pictures")
    client.load_model("tiny-pictures")
    assert client.is_model_ready("tiny-pictures")
    with pytest.raises(InferenceServerException, match="a bundle has its own files and configuration"):
        client.load_model("tiny-pictures", config="{}")


def test_the_client_is_told_what_is_left_out(client: Any) -> None:
    for ask in (client.get_trace_settings, client.get_log_settings, client.get_system_shared_memory_status):
        with pytest.raises(InferenceServerException, match="of Triton are left out"):
            ask()


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_the_client_asks_for_classes_and_sends_texts(binary: bool, client: Any) -> None:
    texts = np.array(["the train", "a"], object)
    tensor = triton.InferInput("texts", texts.shape, "BYTES")
    tensor.set_data_from_numpy(texts, binary_data=binary)
    requested = [triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=2)]
    classes = client.infer("tiny-texts", [tensor], outputs=requested).as_numpy("probabilities")
    numbers = client.infer("tiny-texts", [tensor]).as_numpy("probabilities")
    assert classes.shape == (2, 2)
    for row, probabilities in zip(classes, numbers, strict=True):
        read = [(text.decode() if binary else text).split(":", 2) for text in row]
        order = (-probabilities).argsort(kind="stable")[:2]
        assert [(int(index), np.float32(value)) for value, index, _ in read] == [(i, probabilities[i]) for i in order]


def test_the_aio_client_gets_the_same_answers(address: str, client: Any) -> None:
    inputs, _ = expected_of("series-classifier")
    expected = client.infer("tiny-series", tensors(inputs, binary=True))

    async def run() -> None:
        async with triton_aio.InferenceServerClient(address) as aio:
            assert await aio.is_server_ready()
            assert (await aio.get_model_config("tiny-series"))["name"] == "tiny-series"
            results = await asyncio.gather(
                *(aio.infer("tiny-series", tensors(inputs, binary=binary)) for binary in (True, False) * 8)
            )
            for result in results:
                for name in ("logits", "probabilities"):
                    assert np.array_equal(result.as_numpy(name), expected.as_numpy(name))
            with pytest.raises(InferenceServerException, match="tiny-nothing"):
                await aio.infer("tiny-nothing", tensors(inputs, binary=True))

    asyncio.run(run())


@pytest.fixture(scope="module")
def grpc_client(grpc_ports: tuple[str, str]) -> Iterator[Any]:
    client = triton_grpc.InferenceServerClient(grpc_ports[1])
    yield client
    client.close()


def grpc_tensors(inputs: Any) -> list[Any]:
    infer_inputs = []
    for name, value in inputs.items():
        infer_inputs.append(triton_grpc.InferInput(name, value.shape, DATATYPES[value.dtype.name]))
        infer_inputs[-1].set_data_from_numpy(value)
    return infer_inputs


@pytest.mark.parametrize("family", FAMILIES)
def test_the_grpc_client_gets_the_bits_of_the_http_client(
    family: str, grpc_client: Any, grpc_ports: tuple[str, str]
) -> None:
    inputs, expected = expected_of(family)
    got = grpc_client.infer(NAMES[family], grpc_tensors(inputs), request_id="a-7", client_timeout=30)
    assert got.get_response().id == "a-7"
    client = triton.InferenceServerClient(grpc_ports[0])
    over_http = client.infer(NAMES[family], tensors(inputs, binary=True))
    client.close()
    for name in expected:
        assert got.as_numpy(name).tobytes() == over_http.as_numpy(name).tobytes()
        assert got.as_numpy(name).shape == over_http.as_numpy(name).shape


def test_the_grpc_client_asks_everything_else(grpc_client: Any) -> None:
    assert grpc_client.is_server_live()
    assert grpc_client.is_server_ready()
    assert grpc_client.is_model_ready("tiny-images", "1")
    assert list(grpc_client.get_server_metadata().extensions) == list(EXTENSIONS)
    metadata = grpc_client.get_model_metadata("tiny-texts")
    assert [tensor.name for tensor in metadata.inputs] == ["ids", "lengths"]
    config = grpc_client.get_model_config("tiny-texts", as_json=True)["config"]
    assert [tensor["data_type"] for tensor in config["input"]] == ["TYPE_INT64", "TYPE_INT64"]
    assert "READY" in {entry.state for entry in grpc_client.get_model_repository_index().models}
    grpc_client.infer("tiny-images", grpc_tensors(example_inputs("image-classifier")))
    [statistics] = grpc_client.get_inference_statistics("tiny-images").model_stats
    assert (statistics.version, statistics.inference_stats.success.count > 0) == ("1", True)
    grpc_client.unload_model("tiny-pictures")
    assert not grpc_client.is_model_ready("tiny-pictures")
    grpc_client.load_model("tiny-pictures")
    assert grpc_client.is_model_ready("tiny-pictures")


def test_the_grpc_client_raises_the_error_of_the_service(grpc_client: Any) -> None:
    with pytest.raises(InferenceServerException, match="tiny-nothing") as caught:
        grpc_client.infer("tiny-nothing", grpc_tensors(example_inputs("image-classifier")))
    assert caught.value.status() == "StatusCode.NOT_FOUND"
    invalid = grpc_tensors({"images": np.zeros((1, 4, 5), np.uint8)})
    with pytest.raises(InferenceServerException, match=r"expected shape \[batch, 4, 4\], got \[1, 4, 5\]") as caught:
        grpc_client.infer("tiny-images", invalid)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    with pytest.raises(InferenceServerException, match="expected 0") as caught:
        grpc_client.infer("tiny-images", grpc_tensors(example_inputs("image-classifier")), priority=3)
    for ask in (grpc_client.get_trace_settings, grpc_client.get_system_shared_memory_status):
        with pytest.raises(InferenceServerException) as caught:
            ask()
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_the_grpc_client_asks_for_classes_and_sends_texts(grpc_client: Any) -> None:
    texts = np.array(["the train", "a"], object)
    tensor = triton_grpc.InferInput("texts", texts.shape, "BYTES")
    tensor.set_data_from_numpy(texts)
    requested = [triton_grpc.InferRequestedOutput("probabilities", class_count=1)]
    classes = grpc_client.infer("tiny-texts", [tensor], outputs=requested).as_numpy("probabilities")
    numbers = grpc_client.infer("tiny-texts", [tensor]).as_numpy("probabilities")
    for (text,), probabilities in zip(classes, numbers, strict=True):
        value, index, _ = text.decode().split(":", 2)
        assert (int(index), np.float32(value)) == (probabilities.argmax(), probabilities.max())
