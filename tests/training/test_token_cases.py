"""Token cases use every token and every rule, with ids from the test split and the vocabulary."""

import json

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from training.data.news import word_tokenizer
from training.data.text import byte_tokenizer
from training.recipe import IGNORE_INDEX, Split
from training.token_cases import GROUP, TokenCase, choose_cases, pack_cases, read_vocabulary, unpack_cases

WORDS = [f"{a}{b}" for a in "abcdefgh" for b in ("ut", "in", "or", "el")] * 2
TEXTS = tuple(" ".join(WORDS[i : i + 1 + i % 4]) for i in range(20))


def split_of(tokenizer: Tokenizer, texts: tuple[str, ...]) -> Split:
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    lengths = np.array([len(row) for row in rows])
    ids = np.array([row + [0] * (max(lengths) - len(row)) for row in rows])
    return Split(inputs={"ids": ids, "lengths": lengths}, targets=np.zeros(len(rows), np.int64), texts=texts)


def ids_of(tokenizer: Tokenizer, cases: tuple[TokenCase, ...]) -> list[tuple[int, ...]]:
    return [tuple(encoding.ids) for encoding in tokenizer.encode_batch([case.text for case in cases])]


def characters() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate("?ab c\nd")}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def byte_pairs() -> Tokenizer:
    return byte_tokenizer(" ".join(WORDS * 3), vocabulary=300)


@pytest.mark.parametrize("kind", ["words", "characters", "byte pairs"])
def test_cases_agree_with_the_tokenizer_and_cover_its_tokens(kind: str) -> None:
    tokenizer = {"words": lambda: word_tokenizer(WORDS), "characters": characters,
                 "byte pairs": byte_pairs}[kind]()  # fmt: skip
    cases = choose_cases(tokenizer.to_str(), split_of(tokenizer, TEXTS))
    assert [case.ids for case in cases] == ids_of(tokenizer, cases)
    assert len({case.text for case in cases}) == len(cases)
    vocabulary = read_vocabulary(tokenizer.to_str())
    single = {i for token, i in vocabulary.items() if tokenizer.encode(tokenizer.decode([i]) or token).ids == [i]}
    assert single <= {i for case in cases for i in case.ids}
    assert len(single) >= len(vocabulary) - (2 if kind != "byte pairs" else 130)
    assert choose_cases(tokenizer.to_str(), split_of(tokenizer, TEXTS)) == cases


def test_test_texts_have_the_ids_of_the_split() -> None:
    tokenizer = word_tokenizer(WORDS)
    split = split_of(tokenizer, TEXTS)
    changed = split.inputs["ids"].copy()
    changed[0, 0] += 1
    inputs = {**split.inputs, "ids": changed}
    cases = choose_cases(tokenizer.to_str(), Split(inputs=inputs, targets=split.targets, texts=split.texts))
    [first] = [case for case in cases if case.text == TEXTS[0]]
    assert first.ids == (changed[0, 0],)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: setattr(t, "normalizer", normalizers.Sequence([])),
        lambda t: setattr(t, "normalizer", normalizers.Lowercase()),
        lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Split(Regex(r"\w+|[^\w\s]+"), "removed", invert=True)),
        lambda t: setattr(
            t, "pre_tokenizer", pre_tokenizers.Split(Regex(r"[a-z0-9]+|[^\w\s]"), "removed", invert=True)
        ),
        lambda t: t.add_tokens(["ut"]),
        lambda t: t.add_tokens([WORDS[3]]),
    ],
)
def test_a_changed_rule_gives_other_ids(change: object) -> None:
    tokenizer = word_tokenizer([*WORDS, "!", "!", "e", "e"])
    cases = choose_cases(tokenizer.to_str(), split_of(tokenizer, TEXTS))
    changed = Tokenizer.from_str(tokenizer.to_str())
    change(changed)  # type: ignore[operator]
    assert ids_of(changed, cases) != [case.ids for case in cases]


def test_texts_of_a_language_model_have_the_ids_of_its_targets() -> None:
    tokenizer = byte_pairs()
    texts = TEXTS[1:4]
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    targets = np.full((3, 99), IGNORE_INDEX)
    for target, row in zip(targets, rows, strict=True):
        target[5 : 5 + len(row)] = row
    targets[1, 5] += 1
    split = Split(inputs={"ids": np.zeros((3, 99), np.int64)}, targets=targets, texts=texts)
    cases = {case.text: list(case.ids) for case in choose_cases(tokenizer.to_str(), split)}
    assert [cases[text] for text in texts] == [rows[0], [rows[1][0] + 1, *rows[1][1:]], rows[2]]


def test_byte_pairs_are_used_in_every_byte_and_merge() -> None:
    """Two exchanged bytes or a lost merge give other ids."""
    content = byte_pairs().to_str()
    cases = choose_cases(content, split_of(byte_pairs(), TEXTS))
    settings = json.loads(content)
    ids, merges = settings["model"]["vocab"], settings["model"]["merges"]
    alphabet = {chr(point) if 33 <= point < 127 else "" for point in range(256)} - {""}
    used = {i for case in cases for i in case.ids}
    # No text has the bytes C0, C1, and F5 to FF.
    assert len(set(range(len(ids))) - used) == 13
    assert alphabet <= set(ids)
    for i in range(0, len(merges), 7):
        fewer = {**settings, "model": {**settings["model"], "merges": merges[:i] + merges[i + 1 :]}}
        assert ids_of(Tokenizer.from_str(json.dumps(fewer)), cases) != [case.ids for case in cases]


def test_an_added_token_that_is_spelled_as_the_vocabulary_does_gives_other_ids() -> None:
    """Text rarely holds `Ġin`, the name of the token " in": only a case of the names shows this token."""
    tokenizer = byte_pairs()
    cases = choose_cases(tokenizer.to_str(), split_of(tokenizer, TEXTS))
    names = [name for name in read_vocabulary(tokenizer.to_str()) if name.startswith("Ġ") and len(name) > 1]
    assert len(names) > 5
    for name in names:
        settings = json.loads(tokenizer.to_str())
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        settings["added_tokens"] = [{"id": 7, "content": name, **flags}]
        changed = Tokenizer.from_str(json.dumps(settings))
        assert ids_of(changed, cases) != [case.ids for case in cases]


def test_many_tokens_share_a_text() -> None:
    tokenizer = word_tokenizer(WORDS)
    cases = choose_cases(tokenizer.to_str(), split_of(tokenizer, ("in",) * 2))
    assert max(len(set(case.ids)) for case in cases) >= min(GROUP, 32)


def test_a_vocabulary_may_be_a_list_and_have_added_tokens() -> None:
    content = {"model": {"vocab": [["a", -1.0], ["b", -2.0]]}, "added_tokens": [{"id": 2, "content": "<s>"}]}
    assert read_vocabulary(json.dumps(content)) == {"a": 0, "b": 1, "<s>": 2}


def test_cases_are_packed_one_to_a_line() -> None:
    cases = (TokenCase(text="é\n\u2028", ids=(1, 2)), TokenCase(text="b", ids=(3,)))
    assert pack_cases(cases).count(b"\n") == 2
    assert unpack_cases(pack_cases(cases)) == cases
    assert unpack_cases(b"") == ()
    with pytest.raises(KeyError):
        unpack_cases(b'{"text": "a"}\n')


def test_special_tokens_around_a_text_hide_no_token() -> None:
    vocabulary = {token: i for i, token in enumerate(["[CLS]", "[SEP]", "[UNK]", *dict.fromkeys(WORDS)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    cases = choose_cases(tokenizer.to_str(), split_of(tokenizer, TEXTS))
    assert {i for case in cases for i in case.ids} == set(vocabulary.values())
    assert ids_of(tokenizer, cases) == [case.ids for case in cases]
    assert all((case.ids[0], case.ids[-1]) == (0, 1) for case in cases)
