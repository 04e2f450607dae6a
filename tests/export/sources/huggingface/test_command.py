"""A folder goes through all gates, and the bundle, served by the engine, answers as `transformers` does."""

import asyncio
import base64
import json
import sys
from argparse import Namespace
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from export.errors import ExportError
from export.pipeline import export_model
from export.sources.huggingface.command import load
from service.bundle import open_bundle
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.engine.sessions.session import Session
from service.engine.sessions.tokenizer import read_tokenizer
from service.errors import EkibenError
from service.tasks.replay import answer_request, replay_requests
from tests.export.sources.huggingface.conftest import FOLDERS
from tests.export.sources.huggingface.folders import LABELS, bert, pictures, save, write_json

TEXTS = ["elm", "Oak, maple and teakwood!", "sorbs rowan . yew ash birch ?", "ivy gum " * 5]
LONG = "cedar pine " * 30
# The first test of a model waits for all gates.
pytestmark = pytest.mark.timeout(1200)
Served = Callable[[str], tuple[Path, Model]]


def options(folder: Path, task: str, **others: Any) -> Namespace:
    return Namespace(**{"model": folder, "task": task, "name": None, "max_steps": None, "examples": None} | others)


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """The folder of an adopted model, and the model as the service loads it, by name."""

    def serve(name: str) -> tuple[Path, Model]:
        task, build = FOLDERS[name]
        root = tmp_path_factory.mktemp("adopted")
        folder = build(root / name)
        manifest = export_model("hf", options(folder, task), root / "bundles", lambda stage: None)
        bundle = open_bundle(root / "bundles" / manifest.name / manifest.version)
        session = Session(bundle.model, manifest=bundle.manifest, device="cpu")
        model = Model(manifest=bundle.manifest, session=session, tokenizer=read_tokenizer(bundle))
        replay_requests(model, bundle.requests)
        return folder, model

    return cache(serve)


def ask(model: Model, **body: Any) -> dict[str, Any]:
    async def answer() -> dict[str, Any]:
        runner = Runner()
        try:
            return await answer_request(model, runner, {"model": model.manifest.name, **body})
        finally:
            runner.close()

    return asyncio.run(answer())


def run(auto: Any, folder: Path, **inputs: Any) -> Any:
    with torch.no_grad():
        return auto.from_pretrained(folder)(**inputs)


def test_a_classifier_gives_its_labels_alone_in_a_batch_and_cut(adopted: Served) -> None:
    folder, model = adopted("classifier")
    tokens = AutoTokenizer.from_pretrained(folder)(
        [*TEXTS, LONG], padding=True, truncation=True, max_length=20, return_tensors="pt"
    )
    expected = run(AutoModelForSequenceClassification, folder, **tokens).logits.softmax(-1)
    with pytest.raises(EkibenError, match="expected at most 20 tokens, got 62"):
        ask(model, texts=[LONG])
    predictions = ask(model, texts=[*TEXTS, LONG], truncate=True, top_k=4)["predictions"]
    for text, prediction, row in zip([*TEXTS, LONG], predictions, expected, strict=True):
        ranked = {one["label"]: one["probability"] for one in prediction["top"]}
        np.testing.assert_allclose([ranked[label] for label in LABELS.values()], row, atol=1e-5)
        assert prediction["label"] == LABELS[int(row.argmax())]
        assert ask(model, texts=[text], truncate=True, top_k=4)["predictions"] == [prediction]


def test_a_tagger_labels_the_tokens_of_the_text(adopted: Served) -> None:
    folder, model = adopted("tagger")
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS[1], return_tensors="pt")
    row = run(AutoModelForTokenClassification, folder, **tokens).logits[0, 1:-1].softmax(-1)
    [prediction] = ask(model, texts=[TEXTS[1]])["predictions"]
    assert [token["label"] for token in prediction["tokens"]] == [LABELS[int(one.argmax())] for one in row]
    np.testing.assert_allclose([token["probability"] for token in prediction["tokens"]], row.amax(-1), atol=1e-5)
    assert [token["text"] for token in prediction["tokens"]][-3:] == ["teak", "wood", "!"]


def test_an_embedding_is_the_mean_of_the_tokens(adopted: Served) -> None:
    folder, model = adopted("embedder")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    predictions = ask(model, texts=TEXTS)["predictions"]
    for text, prediction in zip(TEXTS, predictions, strict=True):
        hidden = run(AutoModel, folder, **tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        np.testing.assert_allclose(prediction["embedding"], hidden.mean(0), atol=1e-5)


def test_a_picture_of_any_size_is_resized_as_declared(adopted: Served) -> None:
    folder, model = adopted("vit")
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    for size in ((40, 52), (61, 33)):
        picture = Image.fromarray(pictures(1, size=size)[0])
        buffer = BytesIO()
        picture.save(buffer, "PNG")
        pixels = processor(picture, return_tensors="pt")
        row = run(AutoModelForImageClassification, folder, **pixels).logits[0].softmax(-1)
        answer = ask(model, images=[base64.b64encode(buffer.getvalue()).decode()], top_k=4)
        ranked = {one["label"]: one["probability"] for one in answer["predictions"][0]["top"]}
        np.testing.assert_allclose([ranked[label] for label in LABELS.values()], row, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_language_model_continues_as_generate_does(name: str, adopted: Served) -> None:
    folder, model = adopted(name)
    tokenizer, reference = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    prompts = ["the ", "a", "zebra x", "rice and ", "quiz", "m.", "ho", "we"]
    completions = ask(model, prompt=prompts, temperature=0, max_tokens=20)["completions"]
    for prompt, completion in zip(prompts, completions, strict=True):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            settings = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 1}
            row = reference.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, ids.shape[1] :]
        count = row.tolist().index(1) if 1 in row else len(row)
        assert completion["tokens"] == count
        assert completion["finish_reason"] == ("stop" if 1 in row else "length")
        assert completion["text"] == tokenizer.decode(row[:count], skip_special_tokens=True)
        assert ask(model, prompt=prompt, temperature=0, max_tokens=20)["completions"] == [completion]


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_generation_stops_at_each_end_of_the_folder(name: str, adopted: Served) -> None:
    _, model = adopted(name)
    assert model.tokenizer is not None
    body = {"prompt": "the ", "temperature": 0, "max_tokens": 20, "logprobs": True}
    [whole] = ask(model, **body)["completions"]
    end = model.tokenizer.token_to_id(whole["logprobs"][0]["token"])
    head = model.manifest.head.model_copy(update={"eos_ids": (1, end)})
    manifest = model.manifest.model_copy(update={"head": head})
    ending = Model(manifest=manifest, session=model.session, tokenizer=model.tokenizer)
    [stopped] = ask(ending, **body)["completions"]
    assert (stopped["text"], stopped["tokens"], stopped["finish_reason"]) == ("", 0, "stop")


def test_a_refused_folder_writes_nothing(tmp_path: Path) -> None:
    folder = save(tmp_path / "bert", bert("BertForSequenceClassification"))
    with pytest.raises(ExportError, match=r"holds no tokenizer.json"):
        export_model("hf", options(folder, "sequence-classification"), tmp_path / "bundles", lambda stage: None)
    assert not (tmp_path / "bundles").exists()


def test_the_options_reach_the_source(tmp_path: Path) -> None:
    folder = FOLDERS["classifier"][1](tmp_path / "classifier")
    write_json(tmp_path / "texts.jsonl", {"text": "oak elm"})
    others = {"name": "trees", "max_steps": 9, "examples": tmp_path / "texts.jsonl"}
    loaded = load(options(folder, "sequence-classification", **others))
    assert loaded.graph is None
    assert loaded.source.name == "trees"
    assert loaded.source.limits.max_steps == 9
    assert loaded.source.examples.texts == ("oak elm",)
    assert json.loads(loaded.source.tokenizer or "")["padding"] is None


def test_without_transformers_the_way_to_install_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("export.sources.huggingface.source")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ExportError, match="transformers is not installed: `pip install --group hf`"):
        load(options(tmp_path, "sequence-classification"))
