"""The model configuration and metadata, as Triton's clients read them."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from service.http.oip.models import EXTENSIONS, model_config, model_metadata, server_metadata
from service.manifest import Manifest
from tests.service.bundles import FAMILIES, NAMES
from tests.service.engine.fakes import manifest
from tests.service.tasks.test_tensors import manifest_of


@pytest.mark.parametrize("family", FAMILIES)
def test_dims_and_batch_size_are_those_of_the_metadata(family: str) -> None:
    """A client adds the batch axis to the dims, or cuts the first axis off the shape: both are the same tensor."""
    model = manifest_of(family)
    config, metadata = model_config(model), model_metadata(model)
    assert config["max_batch_size"] == model.limits.max_items
    for side in ("input", "output"):
        for tensor, described in zip(config[side], metadata[f"{side}s"], strict=True):
            dims = tensor["reshape"]["shape"] if "reshape" in tensor else tensor["dims"]
            assert (tensor["name"], [-1, *dims]) == (described["name"], described["shape"])
            assert tensor["data_type"] == f"TYPE_{described['datatype']}"


def test_a_number_an_item_is_reshaped() -> None:
    lengths = model_config(manifest_of("text-classifier"))["input"][1]
    assert lengths == {"name": "lengths", "data_type": "TYPE_INT64", "dims": [1], "reshape": {"shape": []}}


def tensors_manifest(*, shape: tuple[Any, ...], dtype: str = "float32", max_items: int = 4) -> Manifest:
    spec = {"name": "x", "dtype": dtype, "shape": shape}
    fields: dict[str, Any] = {
        "reader": {"kind": "tensors"},
        "head": {"kind": "tensors"},
        "inputs": [spec],
        "outputs": [{**spec, "name": "y"}],
        "limits": {"max_items": max_items},
        "tolerance": {"y": {"atol": 0, "rtol": 0, "measured": 0}},
        "domain": {},
    }
    return manifest("image-classifier", **fields)


def test_tensors_without_a_first_batch_axis_keep_all_axes() -> None:
    for model in (tensors_manifest(shape=(3, "batch")), tensors_manifest(shape=(3, 2), max_items=1)):
        config = model_config(model)
        assert (config["max_batch_size"], config["input"][0]["dims"]) == (
            0,
            model_metadata(model)["inputs"][0]["shape"],
        )
        assert "dynamic_batching" not in config


def test_texts_have_a_type_of_their_own() -> None:
    config = model_config(tensors_manifest(shape=("batch", 2), dtype="string"))
    assert config["input"] == [{"name": "x", "data_type": "TYPE_STRING", "dims": [2]}]


def test_a_text_model_also_takes_texts() -> None:
    texts = [{"name": "texts", "datatype": "BYTES", "shape": [-1]}]
    assert model_metadata(manifest_of("text-classifier"))["parameters"] == {"alternative_inputs": texts}
    assert "parameters" not in model_metadata(manifest_of("series-classifier"))


def test_the_server_names_its_extensions() -> None:
    assert server_metadata() == {"name": "ekiben", "version": "2", "extensions": list(EXTENSIONS)}


def test_the_route_of_the_configuration(client: TestClient) -> None:
    for name in NAMES.values():
        config = client.get(f"/v2/models/{name}/config").json()
        assert config["name"] == name
        version = client.get(f"/v2/models/{name}").json()["versions"][0]
        assert client.get(f"/v2/models/{name}/versions/{version}/config").json() == config
    assert client.get("/v2/models/none/config").status_code == 404
    assert client.get("/v2/models/tiny-images/versions/2/config").status_code == 404
    assert client.get("/v2/models/tiny-images/versions/").status_code == 404
