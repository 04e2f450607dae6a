"""Saved models describe themselves: what is in them, and the command that exports them."""

import json
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from export.inspection.saved_models import inspect_folder, inspect_keras
from export.spec import parse_spec


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("BertForSequenceClassification", "sequence-classification"),
        ("BertForTokenClassification", "token-classification"),
        ("ViTForImageClassification", "image-classification"),
        ("GPT2LMHeadModel", "text-generation"),
        ("LlamaForCausalLM", "text-generation"),
        ("BertModel", "feature-extraction"),
        ("BertForMaskedLM", "TASK"),
    ],
)
def test_a_folder_has_its_task(architecture: str, task: str, tmp_path: Path) -> None:
    config = {"architectures": [architecture], "id2label": {"0": "bad", "1": "good"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    seen = inspect_folder(tmp_path)
    assert f"--task {task}\n" in seen.spec
    assert "2 labels: bad, good" in seen.text
    assert "save_pretrained" in seen.text


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder of a saved transformers model"):
        inspect_folder(tmp_path)


def write_keras(folder: Path, shape: list[Any], units: list[int]) -> Path:
    layers = [{"class_name": "InputLayer", "config": {"batch_shape": shape}}]
    layers += [{"class_name": "Dense", "config": {"units": unit}} for unit in units]
    with zipfile.ZipFile(folder / "m.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {"layers": layers}}))
    return folder / "m.keras"


@pytest.mark.parametrize(
    ("shape", "units", "expected"),
    [
        ([None, 784], [128, 10], {"reader": {"kind": "tensors"}, "head": {"kind": "labels", "labels": 10}}),
        ([None, None, 12], [], {"reader": {"kind": "series", "channels": 12}, "head": {"kind": "tensors"}}),
    ],
)
def test_a_keras_file(shape: list[Any], units: list[int], expected: dict[str, Any], tmp_path: Path) -> None:
    content = tomllib.loads(inspect_keras(write_keras(tmp_path, shape, units)).spec)
    parse_spec(content, tmp_path / "spec.toml")
    assert content == expected


def test_another_file_is_no_keras_file(tmp_path: Path) -> None:
    (tmp_path / "m.keras").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"no \.keras file"):
        inspect_keras(tmp_path / "m.keras")
