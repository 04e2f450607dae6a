"""The interface has the names, types and axes of the run."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from export.errors import ExportError
from export.sources.interface import read_interface
from service.contract.heads import LanguageModelHead, TokenLabelsHead
from service.contract.readers import SeriesReader, State, TextReader
from tests.export.conftest import Runs
from tests.export.tiny import CLASSES, WORDS

EXPECTED = {
    "tiny-picture": ("images uint8 [batch, 8, 8]", "logits float32 [batch, 4]; probabilities float32 [batch, 4]"),
    "tiny-colour": ("images uint8 [batch, 8, 8, 3]", "logits float32 [batch, 4]; probabilities float32 [batch, 4]"),
    "tiny-lstm": (
        "series float32 [batch, steps, 3]; lengths int64 [batch]",
        "logits float32 [batch, 4]; probabilities float32 [batch, 4]",
    ),
    "tiny-tagger": (
        "series float32 [batch, steps, 3]; lengths int64 [batch]; h float32 [batch, 1, 6]; c float32 [batch, 1, 6]",
        "logits float32 [batch, steps, 4]; probabilities float32 [batch, steps, 4]; "
        "next_h float32 [batch, 1, 6]; next_c float32 [batch, 1, 6]",
    ),
    "tiny-text": (
        "ids int64 [batch, steps]; lengths int64 [batch]",
        "logits float32 [batch, 4]; probabilities float32 [batch, 4]",
    ),
    "tiny-prenorm": (
        "ids int64 [batch, steps]; past_lengths int64 [batch]; "
        "past_key_0 float32 [batch, 2, past, 8]; past_value_0 float32 [batch, 2, past, 8]",
        "logits float32 [batch, steps, 29]; "
        "new_key_0 float32 [batch, 2, steps, 8]; new_value_0 float32 [batch, 2, steps, 8]",
    ),
    "tiny-gan": ("latents float32 [batch, 10]", "samples float32 [batch, 8, 8]; images uint8 [batch, 8, 8]"),
}


def test_every_family_has_its_tensors(runs: Runs) -> None:
    for name, expected in EXPECTED.items():
        interface = read_interface(runs(name))
        described = tuple(
            "; ".join(f"{spec.name} {spec.dtype} [{', '.join(map(str, spec.shape))}]" for spec in specs)
            for specs in (interface.inputs, interface.outputs)
        )
        assert described == expected, name


def test_readers_and_heads_come_from_the_model(runs: Runs) -> None:
    language, tagger = read_interface(runs("tiny-language")), read_interface(runs("tiny-tagger"))
    assert language.reader == TextReader(vocabulary=29)
    assert language.head == LanguageModelHead(layers=2, heads=2, head_size=8)
    assert tagger.reader == SeriesReader(channels=3, state=State(layers=1, hidden=6))
    assert tagger.head == TokenLabelsHead(labels=("ant", "bee", "cat", "dog"))


class Segmented(nn.Module):
    """Has tables that the ids do not reach, one of them before the table of tokens."""

    def __init__(self, *, reads_ids: bool = True) -> None:
        super().__init__()
        self.segments, self.tokens = nn.Embedding(2, 5), nn.Embedding(len(WORDS), 5)
        self.head, self.reads_ids = nn.Linear(5, CLASSES), reads_ids

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        segments = self.segments(torch.zeros_like(ids))
        x = self.tokens(ids) + segments if self.reads_ids else segments
        return self.head(x.sum(1) / lengths[:, None])


def test_the_vocabulary_is_that_of_the_embedding_which_the_ids_reach(runs: Runs) -> None:
    run = replace(runs("tiny-text"), model=Segmented())
    assert read_interface(run).reader == TextReader(vocabulary=len(WORDS))
    with pytest.raises(ExportError, match=r"manifest: the token ids reach no nn\.Embedding"):
        read_interface(replace(run, model=Segmented(reads_ids=False)))
