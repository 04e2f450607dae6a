"""A folder gives its model in float32, or one sentence that says what is amiss and how to go on."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from export.errors import ExportError
from export.sources.huggingface.loading import load_model, read_json
from tests.export.sources.huggingface.folders import bert, gpt2, save, write_json

TASK = "sequence-classification"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "bert", bert("BertForSequenceClassification"))


def test_the_model_has_the_weights_of_the_folder_in_float32(folder: Path) -> None:
    bert("BertForSequenceClassification").half().save_pretrained(folder)
    model = load_model(folder, TASK)
    assert not model.training
    saved = load_file(folder / "model.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, saved[name].float())


def test_tied_weights_stay_one_parameter(tmp_path: Path) -> None:
    model = load_model(save(tmp_path / "gpt2", gpt2()), "text-generation")
    assert model.lm_head.weight is model.transformer.wte.weight


def test_loading_prints_and_warns_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    with warnings.catch_warnings(record=True) as caught:
        load_model(folder, TASK)
    assert not caught
    assert capfd.readouterr() == ("", "")


def test_a_pickle_is_refused_with_the_way_out(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ExportError, match=r"pytorch_model.bin, a pickle.*save_pretrained"):
        load_model(folder, TASK)


@pytest.mark.parametrize(
    ("name", "reason"), [("config.json", "holds no config.json"), ("model.safetensors", "holds no model.safetensors")]
)
def test_a_missing_file_is_named(folder: Path, name: str, reason: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ExportError, match=reason):
        load_model(folder, TASK)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="is no folder"):
        load_model(tmp_path / "nothing", TASK)


def test_weights_that_would_be_drawn_at_random_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "bert", bert("BertModel"))
    with pytest.raises(ExportError, match=r"lacks classifier.bias, classifier.weight, which sequence-classification"):
        load_model(folder, TASK)


def test_weights_without_a_place_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"adapter.weight": torch.ones(2)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match=r"has no place for the weights adapter.weight"):
        load_model(folder, TASK)


def test_an_encoder_needs_no_pooler_and_no_head(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    remaining = {name: tensor for name, tensor in weights.items() if "pooler" not in name}
    save_file(remaining, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_model(folder, "feature-extraction").config.model_type == "bert"


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", settings | {"hidden_size": 32})
    with pytest.raises(ExportError, match=r"^load: .*bert"):
        load_model(folder, TASK)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model_type": "no-such-model", "architectures": None}, "transformers cannot load"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "the weights are quantised"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_one_sentence(folder: Path, settings: dict[str, object], reason: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | settings)
    with pytest.raises(ExportError, match=reason) as caught:
        load_model(folder, TASK)
    assert "\n" not in str(caught.value)


def test_a_model_for_another_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"transformers cannot load.*python -m export module"):
        load_model(save(tmp_path / "gpt2", gpt2()), "image-classification")


def test_a_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ExportError, match=r"config.json: no JSON"):
        read_json(tmp_path, "config.json")
    assert read_json(tmp_path, "absent.json") == {}
