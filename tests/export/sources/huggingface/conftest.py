"""Graphs of folders, exported once for all tests of a session. The tagger and the embedder have one layer."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from transformers import ViTImageProcessorPil

from export.source import Source
from export.sources.huggingface.source import read_folder
from tests.export.sources.huggingface.folders import bert, characters, gpt2, llama, save, vit, wordpiece
from tests.export.sources.huggingface.graphs import Graph

Exported = tuple[Path, Source, Graph]
Exports = Callable[[str], Exported]
FOLDERS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "classifier": (
        "sequence-classification",
        lambda folder: save(folder, bert("BertForSequenceClassification"), wordpiece(truncation=20, padding=20)),
    ),
    "tagger": (
        "token-classification",
        lambda folder: save(folder, bert("BertForTokenClassification", num_hidden_layers=1), wordpiece()),
    ),
    "embedder": (
        "feature-extraction",
        lambda folder: save(folder, bert("BertModel", num_hidden_layers=1), wordpiece(padding=24)),
    ),
    "vit": (
        "image-classification",
        lambda folder: save(folder, vit(), ViTImageProcessorPil(size={"height": 16, "width": 16})),
    ),
    "gpt2": ("text-generation", lambda folder: save(folder, gpt2(), characters())),
    "llama": ("text-generation", lambda folder: save(folder, llama(), characters(has_bos=True))),
}


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """A folder, its source and its graph, by name."""

    def export(name: str) -> Exported:
        task, build = FOLDERS[name]
        folder = build(tmp_path_factory.mktemp("huggingface") / name)
        source = read_folder(folder, task)
        return folder, source, Graph(source)

    return cache(export)
