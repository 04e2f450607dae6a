"""The large models of the peers benchmark can be made, and have workloads."""

import json
from pathlib import Path

import numpy as np
import pytest
import transformers

from benchmarks.peers.large_models import MAX_STEPS, NUM_LABELS, VOCABULARY, save_bert
from benchmarks.peers.workloads import LARGE_MODELS, NUM_ITEMS


def test_the_bert_has_four_layers_of_256_and_a_tokenizer_of_its_vocabulary(tmp_path: Path) -> None:
    save_bert(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert (config.num_hidden_layers, config.hidden_size, config.num_labels) == (4, 256, NUM_LABELS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == VOCABULARY
    assert tokenizer("w0 w1")["input_ids"] == [2, 4, 5, 3]


def test_ids_have_all_lengths_and_zeros_behind_them(tmp_path: Path) -> None:
    manifest = {"limits": {"max_steps": MAX_STEPS}, "reader": {"vocabulary": VOCABULARY}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    inputs, _ = LARGE_MODELS["bert-4x256"](tmp_path, np.random.default_rng(0))
    lengths = inputs["lengths"]
    assert (lengths.min(), lengths.max(), len(set(lengths.tolist()))) == (2, MAX_STEPS, NUM_ITEMS)
    assert not inputs["ids"][np.arange(MAX_STEPS) >= lengths[:, None]].any()
    assert inputs["ids"].max() == pytest.approx(VOCABULARY, abs=50)


def test_pictures_have_the_size_of_the_model(tmp_path: Path) -> None:
    inputs, _ = LARGE_MODELS["resnet-18"](tmp_path, np.random.default_rng(0))
    assert inputs["images"].shape == (NUM_ITEMS, 224, 224, 3)
    assert inputs["images"].dtype == np.uint8
