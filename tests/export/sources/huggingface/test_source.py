"""A folder becomes a source whose contract, labels and limits are those of its files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from export.errors import ExportError
from export.sources.huggingface.source import position_limit, read_folder
from service.contract.heads import EmbeddingHead, LabelsHead, LanguageModelHead, MultilabelHead, ValuesHead
from tests.export.sources.huggingface.conftest import Exports
from tests.export.sources.huggingface.folders import (
    CONTEXT,
    LABELS,
    POSITIONS,
    SIZES,
    bert,
    characters,
    gpt2,
    save,
    wordpiece,
    write_json,
)

CLASSIFIER = "sequence-classification"


def test_a_classifier_has_the_labels_and_limits_of_its_files(exports: Exports) -> None:
    _, source, _ = exports("classifier")
    assert source.head == LabelsHead(labels=tuple(LABELS.values()))
    assert source.vocabulary == 26
    assert source.limits.max_steps == 20
    assert [spec.name for spec in source.inputs] == ["ids", "lengths"]
    assert [spec.name for spec in source.outputs] == ["logits", "probabilities"]
    assert source.provenance.reference == "transformers"
    files = {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"}
    assert set(source.provenance.data) == files
    assert source.name == "classifier"


def test_a_language_model_has_its_cache_and_its_ends(exports: Exports) -> None:
    _, source, _ = exports("llama")
    assert source.head == LanguageModelHead(layers=2, heads=2, head_size=4, bos_id=0, eos_ids=(1,))
    assert source.limits.max_steps == CONTEXT
    assert source.inputs[2].shape == ("batch", 2, "past", 4)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"problem_type": "multi_label_classification"}, MultilabelHead(labels=tuple(LABELS.values()))),
        ({"problem_type": "regression"}, ValuesHead(names=tuple(LABELS.values()), units=("",) * 4)),
        ({"id2label": {0: "stars"}}, ValuesHead(names=("stars",), units=("",))),
    ],
)
def test_the_head_follows_the_problem_type(settings: dict[str, Any], expected: Any, tmp_path: Path) -> None:
    config = transformers.BertConfig(**SIZES, **({"id2label": LABELS} | settings))
    folder = save(tmp_path / "bert", transformers.BertForSequenceClassification(config), wordpiece())
    source = read_folder(folder, CLASSIFIER)
    assert source.head == expected
    outputs = source.predict({"ids": np.array([[2, 9, 3]]), "lengths": np.array([3])})
    assert [outputs[spec.name].shape[1:] for spec in source.outputs] == [spec.shape[1:] for spec in source.outputs]


@pytest.mark.parametrize("name", ["classifier", "vit", "gpt2", "llama"])
def test_the_reference_in_float64_agrees_with_that_in_float32(name: str, exports: Exports) -> None:
    _, source, _ = exports(name)
    assert source.predict_float64 is not None
    inputs = {spec.name: source.examples.inputs[spec.name][:4] for spec in source.inputs if spec.name != "past_lengths"
              and not spec.name.startswith("past_")}  # fmt: skip
    exact = source.predict_float64(inputs)
    for output, array in source.predict(inputs).items():
        assert exact[output].dtype == np.float64
        np.testing.assert_allclose(array, exact[output], atol=2e-5)


def test_a_pooled_encoder_gives_an_embedding(exports: Exports) -> None:
    _, source, _ = exports("embedder")
    assert source.head == EmbeddingHead(size=24, normalized=False)
    assert source.limits.max_steps == POSITIONS


def test_the_most_tokens_are_the_smallest_limit(tmp_path: Path) -> None:
    folder = save(tmp_path / "bert", bert("BertModel"), wordpiece(truncation=21))
    write_json(folder / "modules.json", [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ])  # fmt: skip
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode_cls_token": True})
    assert read_folder(folder, "feature-extraction").limits.max_steps == 21
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 17})
    assert read_folder(folder, "feature-extraction").limits.max_steps == 17
    assert read_folder(folder, "feature-extraction", max_steps=9, name="nine").limits.max_steps == 9
    with pytest.raises(ExportError, match="--max-steps is 18, the model takes at most 17 tokens"):
        read_folder(folder, "feature-extraction", max_steps=18)


def test_positions_of_roberta_start_behind_its_padding() -> None:
    config = transformers.RobertaConfig(**SIZES, pad_token_id=1)
    assert position_limit(transformers.RobertaModel(config)) == POSITIONS - 2
    assert position_limit(gpt2()) == CONTEXT


def test_two_equal_labels_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "bert", bert("BertForSequenceClassification"), wordpiece())
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"id2label": {"0": "ant", "1": "bee", "2": "ant", "3": "dog"}})
    with pytest.raises(ExportError, match="id2label has the label 'ant' twice"):
        read_folder(folder, CLASSIFIER)


def test_an_encoder_with_a_decoder_has_no_embedding(tmp_path: Path) -> None:
    config = transformers.T5Config(vocab_size=26, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    folder = save(tmp_path / "t5", transformers.T5Model(config), wordpiece())
    with pytest.raises(ExportError, match=r"T5Model has an encoder and a decoder.*python -m export module"):
        read_folder(folder, "feature-extraction")


def test_examples_of_a_file_go_to_the_gates(tmp_path: Path) -> None:
    folder = save(tmp_path / "My GPT-2", gpt2(), characters())
    (tmp_path / "texts.jsonl").write_text('{"text": "a text"}\n')
    source = read_folder(folder, "text-generation", examples_path=tmp_path / "texts.jsonl")
    assert source.examples.texts == ("a text",)
    assert source.provenance.dataset == "texts.jsonl"
    assert "texts.jsonl" in source.provenance.data
    assert source.name == "my-gpt-2"
