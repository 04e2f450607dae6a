from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from training.data import text
from training.recipe import IGNORE_INDEX

SENTENCES = "The quick brown fox, aged 12, jumps over «the» lazy dog.\n  It's naïve; 漢字 are 😀!\n\n"
TOKENIZER = text.byte_tokenizer(SENTENCES * 3, vocabulary=300)


@settings(max_examples=30)
@given(st.text(max_size=200))
def test_every_text_is_decoded_byte_for_byte(content: str) -> None:
    """Also one of characters that the fitted text lacks."""
    assert TOKENIZER.decode(TOKENIZER.encode(content).ids) == content


@settings(max_examples=30)
@given(st.text(alphabet="ab1 \n\t.,é漢\u0301", max_size=80))
def test_a_text_may_be_cut_between_words(content: str) -> None:
    encoding = TOKENIZER.encode(content)
    for i in range(1, len(encoding)):
        if encoding.word_ids[i] != encoding.word_ids[i - 1]:
            cut = encoding.offsets[i][0]
            assert TOKENIZER.encode(content[:cut]).ids == encoding.ids[:i]
            assert TOKENIZER.encode(content[cut:]).ids == encoding.ids[i:]


def test_the_vocabulary_is_the_bytes_and_the_most_frequent_merges() -> None:
    tokenizer = text.byte_tokenizer("the then there " * 20, vocabulary=260)
    assert tokenizer.get_vocab_size() == 260
    assert tokenizer.encode(" the").ids != tokenizer.encode("the").ids
    assert len(tokenizer.encode(" the").ids) == 1
    assert len(tokenizer.encode("xyz").ids) == 3


def test_prose_is_paragraphs_of_sentences_once_each() -> None:
    sentence = "The statement evaluates the expression\n   and discards the result of it."
    table = "| a name of a column | and a name of another |\n|====|====|"
    content = [sentence, "A heading", ">>> the_code = of_an_example(with_names)", "statement ::= expression and target",
               table, "x[1] = (2, 3), {4: 5}, [6, 7], 8 + 9, x, y = 10, 11", sentence, sentence.upper()]  # fmt: skip
    one_line = " ".join(sentence.split())
    assert text.prose("\n\n".join(content)) == f"{one_line}\n{one_line.upper()}\n"


def split_of(content: str, *, start: int, context: int, repeats: np.ndarray | None = None) -> tuple[text.Split, int]:
    none = np.zeros(len(content), bool)
    return text.scored_windows(
        content, none if repeats is None else repeats, TOKENIZER, start=start, stop=len(content), context=context
    )


@settings(max_examples=30)
@given(st.integers(40, 90), st.integers(1, 60), st.integers(1, 300))
def test_every_held_out_token_is_target_once_after_its_context(context: int, start: int, size: int) -> None:
    rng = np.random.default_rng(size)
    content = "".join(rng.choice(list(SENTENCES), start + size))
    split, num_windows = split_of(content, start=start, context=context)
    assert len(split) == len(split.texts) == num_windows
    assert "".join(split.texts) == content[start:]
    before, scored = TOKENIZER.encode(content[:start]).ids, TOKENIZER.encode(content[start:]).ids
    ids, position = before + scored, len(before)
    for row, targets, part in zip(split.inputs["ids"], split.targets, split.texts, strict=True):
        columns = np.flatnonzero(targets != IGNORE_INDEX)
        assert targets[columns].tolist() == TOKENIZER.encode(part).ids
        assert len(columns) <= context // 2
        for column in columns:
            assert targets[column] == ids[position]
            assert row[: column + 1].tolist() == ids[position - column - 1 : position]
            assert column + 1 >= min(context - context // 2, position)
            position += 1
    assert position == len(ids)


def test_a_word_longer_than_half_a_context_is_refused() -> None:
    with pytest.raises(ValueError, match="a word has more than 4 tokens, half of the context: use a longer context"):
        split_of("a 漢字漢字漢字", start=1, context=8)


def random_letters(count: int, seed: int = 0) -> str:
    return "".join(map(chr, 97 + np.random.default_rng(seed).integers(0, 26, count)))


def test_repeated_passages_are_those_of_at_least_50_characters() -> None:
    train = "abcdefghijklmnopqrstuvwxyz" + random_letters(974)
    held_out = f"-{train[100:149]}-{train[300:350]}-{train[500:700]}-"
    repeats = text.repeated(train + held_out, boundary=len(train))
    assert not repeats[: len(train)].any()
    found = "".join("x" if repeat else "." for repeat in repeats[len(train) :])
    assert found == "." + "." * 49 + "." + "x" * 50 + "." + "x" * 200 + "."


def random_words(count: int, seed: int = 0) -> str:
    rng = np.random.default_rng(seed)
    return "".join(f"{''.join(rng.choice(list('abcdefgh'), 4))} " for _ in range(count))


def test_windows_that_repeat_the_training_text_are_removed(tmp_path: Path) -> None:
    train = random_words(1_760)
    repeated = train[500:550]
    content = train + random_words(140, seed=1) + repeated + random_words(90, seed=2)
    assert len(content) == 10_000
    (tmp_path / "poem.txt").write_text(content)
    data = text.load(tmp_path / "poem.txt", context=40)
    scored = "".join(data.test.texts)
    assert repeated not in scored
    # What lies before and behind the repeat is there, and nothing else.
    assert content[9_000:].startswith(data.test.texts[0])
    assert content.endswith(data.test.texts[-1])
    position = 0
    for part in data.test.texts:
        position = content[9_000:].index(part, position) + len(part)
    assert 50 <= 1_000 - len(scored) < 50 + 2 * max(map(len, data.test.texts))
    removed = int(data.note.split(" of its ")[0].split()[-1])
    assert removed in (1, 2, 3)
    assert f"{removed} of its {len(data.test) + removed} windows repeat 50 or more characters" in data.note


def test_text_whose_test_split_only_repeats_is_refused(tmp_path: Path) -> None:
    (tmp_path / "poem.txt").write_text("Over and over again. " * 100)
    with pytest.raises(ValueError, match=r"every window of characters 1,890 to 2,100 repeats 50 or more characters"):
        text.load(tmp_path / "poem.txt", context=40)


def test_load_splits_text_in_order(tmp_path: Path) -> None:
    content = random_words(2_000)
    (tmp_path / "poem.txt").write_text(content)
    data = text.load(tmp_path / "poem.txt", context=40)
    parts = data.train, data.validation, data.test
    assert ["".join(part.texts) for part in parts] == [content[:8_800], content[8_800:9_000], content[9_000:]]
    assert data.tokenizer is not None
    tokenizer = Tokenizer.from_str(data.tokenizer)
    ids = tokenizer.encode(content[:8_800]).ids
    assert len(data.train) == len(ids) - 40
    assert data.train.inputs["ids"][3].tolist() == ids[3:43]
    assert data.train.targets[3].tolist() == ids[4:44]
    assert data.config == {"vocabulary": tokenizer.get_vocab_size(), "context": 40}
    assert data.name == "poem.txt"


def test_tokenizer_is_fitted_on_training_split(tmp_path: Path) -> None:
    train, held_out = random_words(1_760), random_words(240, seed=1).translate(str.maketrans("abcdefgh", "pqrstuvw"))
    (tmp_path / "poem.txt").write_text(train + held_out)
    tokenizer = Tokenizer.from_str(text.load(tmp_path / "poem.txt", context=40).tokenizer or "")
    # Held-out text is split into bytes.
    assert len(tokenizer.encode(train).ids) < len(train) / 2
    assert len(tokenizer.encode(held_out).ids) > len(held_out) * 3 / 4


def test_embedded_text_is_the_prose_of_the_python_reference() -> None:
    data = text.load(None, context=256)
    whole = "".join("".join(part.texts) for part in (data.train, data.validation, data.test))
    assert "import statement" in whole
    assert ">>>" not in whole
    assert len(whole) > 200_000
    assert data.config["vocabulary"] == text.VOCABULARY
    # No passage of the test split stands in the training split.
    passages = {data.train.texts[0][i : i + 50] for i in range(len(data.train.texts[0]) - 49)}
    assert not any(part[i : i + 50] in passages for part in data.test.texts for i in range(len(part) - 49))


def test_real_tinyshakespeare_is_read(real: Callable[[str], Path]) -> None:
    data = text.load(real("tinyshakespeare"), context=256)
    assert data.config["vocabulary"] == text.VOCABULARY
    assert data.train.texts[0].startswith("First Citizen:\nBefore we proceed")
    # No passage of the test split stands in the training split.
    assert len("".join(data.test.texts)) == 1_115_394 - 1_115_394 * 9 // 10


def test_invalid_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "binary.txt").write_bytes(b"line\n\xff\xfe" * 999)
    with pytest.raises(ValueError, match="expected one text file, found 2 files"):
        text.load(tmp_path, context=8)
    with pytest.raises(ValueError, match=r"short\.txt: expected a text of more than 24 tokens, found 9 characters"):
        text.load(tmp_path / "short.txt", context=8)
    with pytest.raises(ValueError, match=r"binary\.txt, line 2: expected UTF-8 text"):
        text.load(tmp_path / "binary.txt", context=8)
