"""A folder of sentence-transformers says how hidden states become an embedding; others are pooled by their mean."""

from pathlib import Path
from typing import Any

import pytest

from export.errors import ExportError
from export.sources.huggingface.pooling import Pooling, read_pooling
from tests.export.sources.huggingface.folders import write_json

MODULES = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]


def sentence_folder(folder: Path, modules: list[tuple[str, str]], pooling: dict[str, Any]) -> Path:
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(modules)
    ]
    write_json(folder / "modules.json", listed)
    write_json(folder / "1_Pooling" / "config.json", pooling)
    return folder


def test_without_modules_the_mean_is_not_normalized(tmp_path: Path) -> None:
    assert read_pooling(tmp_path) == Pooling(mode="mean", normalized=False, transformer=tmp_path)


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "include_prompt": True}, "mean"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode": "mean", "embedding_dimension": 8}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
    ],
)
def test_the_mode_is_that_of_the_folder(settings: dict[str, Any], mode: str, tmp_path: Path) -> None:
    assert read_pooling(sentence_folder(tmp_path, MODULES[:2], settings)).mode == mode


def test_a_normalization_and_the_most_tokens_are_read(tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path, MODULES, {"pooling_mode_mean_tokens": True})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 12, "do_lower_case": False})
    assert read_pooling(folder) == Pooling(mode="mean", normalized=True, transformer=folder, max_steps=12)


@pytest.mark.parametrize(
    ("modules", "pooling", "reason"),
    [
        ([*MODULES[:2], ("Dense", "2_Dense")], {"pooling_mode_mean_tokens": True}, "lists Transformer, Pooling, Dense"),
        (MODULES, {"pooling_mode_lasttoken": True}, "pools by lasttoken, expected mean, cls or max"),
        (MODULES, {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}, "expected mean, cls or max"),
        (MODULES, {}, "pools by nothing"),
    ],
)
def test_other_modules_are_refused(
    modules: list[tuple[str, str]], pooling: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=reason):
        read_pooling(sentence_folder(tmp_path, modules, pooling))


def test_a_folder_that_lowers_texts_itself_is_refused(tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path, MODULES, {"pooling_mode_mean_tokens": True})
    write_json(folder / "sentence_bert_config.json", {"do_lower_case": True})
    with pytest.raises(ExportError, match="lowers texts before the tokenizer does"):
        read_pooling(folder)


def test_modules_of_another_form_are_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "modules.json", {"0": "Transformer"})
    with pytest.raises(ExportError, match="expected a list of modules with type and path"):
        read_pooling(tmp_path)
