from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from training.data import text
from training.recipe import IGNORE_INDEX


@given(st.text(min_size=1, max_size=60))
def test_known_characters_are_decoded_exactly(content: str) -> None:
    tokenizer = Tokenizer.from_str(text.character_tokenizer(content).to_str())
    encoded = tokenizer.encode(content)
    assert len(encoded.ids) == len(content)
    assert tokenizer.decode(encoded.ids) == content


@given(st.text(max_size=200), st.text(min_size=1, max_size=20))
def test_character_ids_equal_tokenizer_encoding(content: str, known: str) -> None:
    tokenizer = text.character_tokenizer(known)
    assert text.character_ids(content, tokenizer).tolist() == tokenizer.encode(content).ids


def test_unknown_character_is_one_token() -> None:
    tokenizer = text.character_tokenizer("ab\n")
    assert tokenizer.encode("b駅\r\na").ids == [4, 1, 1, 2, 3]
    assert tokenizer.decode([4, 1, 3]) == "b\N{REPLACEMENT CHARACTER}a"


@given(st.integers(2, 40), st.integers(1, 30), st.integers(1, 120))
def test_every_held_out_character_is_target_once_after_its_context(context: int, start: int, size: int) -> None:
    ids = np.random.default_rng(size).integers(2, 9, start + size)
    repeats = np.zeros(len(ids), bool)
    split = text.scored_windows("x" * len(ids), ids, repeats, start=start, stop=len(ids), context=context)
    scored = []
    for row, targets in zip(split.inputs["ids"], split.targets, strict=True):
        for column in np.flatnonzero(targets != IGNORE_INDEX):
            scored.append(targets[column])
            context_ids = row[: column + 1].tolist()
            position = start + len(scored) - 1
            assert context_ids == ids[position - len(context_ids) : position].tolist()
            assert len(context_ids) >= min(context - context // 2, position)
    assert scored == ids[start:].tolist()


def random_letters(count: int, seed: int = 0) -> str:
    return "".join(map(chr, 97 + np.random.default_rng(seed).integers(0, 26, count)))


def test_repeated_passages_are_those_of_at_least_50_characters() -> None:
    train = "abcdefghijklmnopqrstuvwxyz" + random_letters(974)
    held_out = f"-{train[100:149]}-{train[300:350]}-{train[500:700]}-"
    known = text.character_ids(train + held_out, text.character_tokenizer(train))
    repeats = text.repeated(known, boundary=len(train))
    assert not repeats[: len(train)].any()
    found = "".join("x" if repeat else "." for repeat in repeats[len(train) :])
    assert found == "." + "." * 49 + "." + "x" * 50 + "." + "x" * 200 + "."


def test_windows_that_repeat_the_training_text_are_removed(tmp_path: Path) -> None:
    train = "abcdefghijklmnopqrstuvwxyz" + random_letters(974)
    held_out = random_letters(20 + 64, seed=1) + train[200:250] + random_letters(16, seed=2)
    # 1,000 is 88 % of the text; the test split begins at 1,022.
    text_file = tmp_path / "poem.txt"
    text_file.write_text(train + held_out[:136])
    data = text.load(text_file, context=16)
    whole = train + held_out[:136]
    first = len(whole) * 9 // 10
    windows = [whole[i : i + 8] for i in range(first, len(whole), 8)]
    repeated_from, repeated_to = 1_000 - first + 84, 1_000 - first + 134
    expected = [
        window for i, window in enumerate(windows) if 8 * i + len(window) <= repeated_from or 8 * i >= repeated_to
    ]
    assert 0 < len(expected) < len(windows)
    assert data.test.texts == ("".join(expected),)
    assert len(data.test) == len(expected)
    assert (data.test.targets != IGNORE_INDEX).sum() == len(data.test.texts[0])
    assert f"{len(windows) - len(expected)} of its {len(windows)} windows repeat 50 or more characters" in data.note


def test_text_whose_test_split_only_repeats_is_refused(tmp_path: Path) -> None:
    (tmp_path / "poem.txt").write_text("Over and over again. " * 100)
    with pytest.raises(ValueError, match=r"every window of characters 1,890 to 2,100 repeats 50 or more characters"):
        text.load(tmp_path / "poem.txt", context=8)


def test_load_splits_text_in_order(tmp_path: Path) -> None:
    content = "abcdefghijklmnopqrstuvwxyz" + random_letters(974)
    (tmp_path / "poem.txt").write_text(content)
    data = text.load(tmp_path / "poem.txt", context=8)
    assert data.train.texts + data.validation.texts + data.test.texts == (
        content[:880],
        content[880:900],
        content[900:],
    )
    assert data.tokenizer is not None
    tokenizer = Tokenizer.from_str(data.tokenizer)
    assert len(data.train) == 880 - 8
    assert tokenizer.decode(data.train.inputs["ids"][3].tolist()) == content[3:11]
    assert tokenizer.decode(data.train.targets[3].tolist()) == content[4:12]
    assert (data.test.targets != IGNORE_INDEX).sum() == 100
    assert data.config == {"vocabulary": 28, "context": 8}
    assert data.name == "poem.txt"


def test_tokenizer_is_fitted_on_training_split(tmp_path: Path) -> None:
    (tmp_path / "poem.txt").write_text("ab" * 450 + "yz" * 50)
    data = text.load(tmp_path / "poem.txt", context=8)
    assert data.config["vocabulary"] == 4
    assert (data.test.targets[data.test.targets != IGNORE_INDEX] == 1).all()


def test_embedded_text_is_the_python_reference() -> None:
    data = text.load(None, context=64)
    whole = data.train.texts[0] + data.validation.texts[0] + data.test.texts[0]
    assert 'The "assert" statement' in whole
    assert len(data.train.texts[0]) > 300_000


def test_real_tinyshakespeare_is_read(real: Callable[[str], Path]) -> None:
    data = text.load(real("tinyshakespeare"), context=64)
    assert data.config["vocabulary"] == 65 + 2
    assert data.train.texts[0].startswith("First Citizen:\nBefore we proceed")
    # No passage of the test split stands in the training split.
    assert len(data.test.texts[0]) == 1_115_394 - 1_115_394 * 9 // 10 == (data.test.targets != IGNORE_INDEX).sum()
    assert not (data.test.targets == 1).any()


def test_invalid_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "binary.txt").write_bytes(b"line\n\xff\xfe" * 999)
    with pytest.raises(ValueError, match="expected one text file, found 2 files"):
        text.load(tmp_path, context=8)
    with pytest.raises(ValueError, match=r"short\.txt: expected a text of more than 24 characters, found 9"):
        text.load(tmp_path / "short.txt", context=8)
    with pytest.raises(ValueError, match=r"binary\.txt, line 2: expected UTF-8 text"):
        text.load(tmp_path / "binary.txt", context=8)
