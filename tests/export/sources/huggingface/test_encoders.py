"""Graphs of encoders give what the model gives for a batch that its own tokenizer padded."""

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

from export.sources.huggingface.encoders import Embedder, LabelClassifier, MultilabelClassifier, Regressor
from export.sources.huggingface.pooling import Mode, Pooling
from tests.export.sources.huggingface.conftest import Exports
from tests.export.sources.huggingface.folders import SIZES, bert, randomize

TEXTS = ["elm", "Oak, maple and teakwood!", "sorbs rowan . yew ash birch ?", "ivy " * 12]


@pytest.mark.parametrize("name", ["classifier", "tagger", "embedder"])
def test_the_graph_equals_the_model_on_texts_of_several_lengths(name: str, exports: Exports) -> None:
    folder, _, graph = exports(name)
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, truncation=False, return_tensors="pt")
    lengths = tokens["attention_mask"].sum(1)
    outputs = graph.run({"ids": tokens["input_ids"].numpy(), "lengths": lengths.numpy()})
    auto = {
        "classifier": AutoModelForSequenceClassification,
        "tagger": AutoModelForTokenClassification,
        "embedder": AutoModel,
    }[name]
    with torch.no_grad():
        expected = auto.from_pretrained(folder)(**tokens)
    if name == "embedder":
        mask = tokens["attention_mask"][:, :, None]
        mean = (expected.last_hidden_state * mask).sum(1) / mask.sum(1)
        np.testing.assert_allclose(outputs["embedding"], mean, atol=1e-5)
        return
    valid = tokens["attention_mask"].bool().numpy() if name == "tagger" else slice(None)
    np.testing.assert_allclose(outputs["logits"][valid], expected.logits.numpy()[valid], atol=1e-5)
    np.testing.assert_allclose(outputs["probabilities"][valid], expected.logits.softmax(-1).numpy()[valid], atol=1e-5)


def test_neither_the_ids_nor_the_number_of_padding_steps_matter(exports: Exports) -> None:
    _, _, graph = exports("classifier")
    ids = np.array([[2, 9, 12, 3]])
    single = graph.run({"ids": ids, "lengths": np.array([4])})
    for padding in (0, 7, 25):
        padded = np.full((2, 11), padding)
        padded[0, :4] = ids
        among = graph.run({"ids": padded, "lengths": np.array([4, 11])})
        np.testing.assert_allclose(among["logits"][0], single["logits"][0], atol=1e-6)


def test_a_roberta_has_the_positions_of_its_padding() -> None:
    config = transformers.RobertaConfig(**SIZES, pad_token_id=1, num_labels=3)
    model = randomize(transformers.RobertaForSequenceClassification(config))
    ids = torch.tensor([[0, 9, 12, 2, 9, 9], [0, 8, 7, 6, 5, 2]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    with torch.no_grad():
        expected = model(input_ids=torch.where(mask == 1, ids, 1), attention_mask=mask).logits
        logits, probabilities = LabelClassifier(model)(ids, mask.sum(1))
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(probabilities, expected.softmax(-1))


def test_a_decoder_classifies_by_the_last_token_that_is_no_padding() -> None:
    config = transformers.GPT2Config(vocab_size=26, n_positions=24, n_embd=16, n_layer=1, n_head=2, pad_token_id=0)
    model = randomize(transformers.GPT2ForSequenceClassification(config))
    ids = torch.tensor([[5, 9, 12, 7, 7], [5, 8, 7, 6, 11]])
    with torch.no_grad():
        single = model(input_ids=ids[:1, :3]).logits
        logits, _ = LabelClassifier(model)(ids, torch.tensor([3, 5]))
    torch.testing.assert_close(logits[:1], single)


def test_labels_that_do_not_exclude_each_other_have_probabilities_of_their_own() -> None:
    model = bert("BertForSequenceClassification", problem_type="multi_label_classification")
    with torch.no_grad():
        logits, probabilities = MultilabelClassifier(model)(torch.tensor([[2, 9, 3]]), torch.tensor([3]))
    torch.testing.assert_close(probabilities, 1 / (1 + (-logits).exp()))


def test_a_regression_gives_its_values() -> None:
    model = bert("BertForSequenceClassification")
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([[2, 9, 3]])).logits
        [values] = Regressor(model)(torch.tensor([[2, 9, 3]]), torch.tensor([3]))
    torch.testing.assert_close(values, expected)


@pytest.mark.parametrize("mode", ["mean", "cls", "max"])
@pytest.mark.parametrize("normalized", [False, True])
def test_an_embedding_is_pooled_over_the_tokens_alone(mode: Mode, normalized: bool, exports: Exports) -> None:
    folder, _, _ = exports("embedder")
    model = bert("BertModel")
    pooling = Pooling(mode=mode, normalized=normalized, transformer=folder)
    with torch.no_grad():
        hidden = model(input_ids=torch.tensor([[2, 9, 12, 3]])).last_hidden_state[0]
        [embedding] = Embedder(model, pooling)(torch.tensor([[2, 9, 12, 3, 5, 5], [2] * 6]), torch.tensor([4, 6]))
    expected = {"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.max(0).values}[mode]
    expected = expected / expected.norm() if normalized else expected
    torch.testing.assert_close(embedding[0], expected)
