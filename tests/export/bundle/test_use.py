"""A card says in words what a model takes and answers."""

import pytest

from export.bundle.use import describe_head, describe_use
from export.candidate import build_candidate
from export.sources.run import run_source
from service.contract.heads import LanguageModelHead, ValuesHead
from tests.export.conftest import Runs
from tests.export.tiny_sources import make_source

SENTENCES = {
    "tiny-regression": "Takes tensors: `features`. Answers 2 numbers: `price` in EUR, `size`.",
    "tiny-multilabel": "Takes pictures of 8 × 8 pixels (height × width), mode L. "
    "Answers each of 5 labels whose probability is at least 0.5.",
    "tiny-resized": "Takes pictures of any size, scaled to 10 at the shortest edge (bilinear) and cut to 8 × 8 at the "
    "centre, mode L. Answers the most probable of 3 labels.",
    "tiny-table": "Takes rows of 3 columns: `age` (number from 0 to 120), `colour` (one of 4 values), `weight` "
    "(number). Answers the most probable of 3 labels.",
    "tiny-bi-tagger": "Takes series of 3 numbers a step. Answers one of 3 labels for each token or step.",
    "tiny-embedding": "Answers a vector of 6 numbers, of length 1.",
    "tiny-unbatched": "`POST /predict` with one item.\n\n"
    "Takes tensors: `matrix`, `flags` (rows from 2 to 9). Answers its output tensors.",
}


@pytest.mark.parametrize("name", SENTENCES)
def test_readers_and_heads_are_told_in_words(name: str) -> None:
    _, source = make_source(name)
    assert SENTENCES[name] in describe_use(build_candidate(source, b"").manifest)


def test_texts_states_and_pictures_are_told(runs: Runs) -> None:
    for name, text in {
        "tiny-text": "Takes texts, in the 18 tokens of its tokenizer.",
        "tiny-tagger": "Takes series of 3 numbers a step, with a state of 1 × 6.",
        "tiny-gan": "Answers a picture of 8 × 8 pixels (height × width), mode L.",
        "tiny-language": "Answers the continuation of a text.",
    }.items():
        assert text in describe_use(build_candidate(run_source(runs(name)), b"").manifest)


def test_single_things_have_no_plural_and_ends_are_named() -> None:
    assert describe_head(ValuesHead(names=("a",), units=("",))) == "1 number: `a`"
    head = LanguageModelHead(layers=1, heads=1, head_size=2, eos_ids=(3, 5))
    assert describe_head(head) == "the continuation of a text, which ends at the token 3 or 5"
