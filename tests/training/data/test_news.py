import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from training.data import news
from training.recipe import Data

CLEANED = {
    "Fears for T N pension": "fears for t n pension",
    "degree #39;s work": "degree ' s work",
    "players&#39; offer": "players ' offer",
    r"A second\team": "a second team",
    '&lt;A HREF="x?a=1"&gt;the&lt;/A&gt; report': "the report",
    "&lt;b&gt;bold&lt;/b&gt; &lt;i&gt; text": "bold text",
    "&lt; unclosed &lt;b&gt; tag": "unclosed tag",
    "costs  #36;10 million": "costs 00 million",
    "AT&amp;T in 2004": "at t in 0000",
    "Café Übung": "cafe ubung",
    "3-2 win!": "0 - 0 win !",
}


@pytest.mark.parametrize("raw", CLEANED)
def test_tokenizer_cleans_text(raw: str) -> None:
    tokenizer = news.word_tokenizer(list(CLEANED) * 2)
    assert tokenizer.encode(raw).tokens == CLEANED[raw].split()
    assert Tokenizer.from_str(tokenizer.to_str()).encode(raw).tokens == CLEANED[raw].split()


def test_padding_is_token_0_and_unknown_is_token_1() -> None:
    tokenizer = news.word_tokenizer(["known known words words words"])
    assert tokenizer.encode("words known strange").ids == [2, 3, 1]
    assert 0 not in tokenizer.encode("[PAD] words").ids
    assert tokenizer.get_vocab()["[PAD]"] == 0


def write(folder: Path, name: str, rows: list[str]) -> None:
    (folder / f"{name}.gz").write_bytes(gzip.compress("\n".join(rows).encode() + b"\n"))


def test_csv_rows_become_raw_texts(tmp_path: Path) -> None:
    train = [f'"{i % 4 + 1}","Title {i}","Words number {i} here"' for i in range(40)]
    write(tmp_path, "train.csv", train)
    write(tmp_path, "test.csv", ['"2","","He said ""no"" #39;s"', r'"4","A, B","line\two"', '"1","only a title"," "'])
    data = news.load(tmp_path)
    assert data.test.texts == ('He said "no" #39;s', r"A, B line\two", "only a title")
    assert data.test.targets.tolist() == [1, 3, 0]
    assert len(data.train) + len(data.validation) == 40
    assert data.labels[1] == "Sports"


def assert_consistent(data: Data) -> None:
    """Check that ids are the encoded texts and that the vocabulary is that of the training split."""
    assert data.tokenizer is not None
    tokenizer = Tokenizer.from_str(data.tokenizer)
    for split in (data.train, data.validation, data.test):
        for i in range(0, len(split), max(1, len(split) // 50)):
            ids, length = split.inputs["ids"][i], split.inputs["lengths"][i]
            expected = tokenizer.encode(split.texts[i]).ids[: news.MAX_STEPS] or [1]
            assert ids[:length].tolist() == expected
            assert not ids[length:].any()
    assert data.train.inputs["ids"].max() == data.config["vocabulary"] - 1
    assert max(data.test.inputs["ids"].max(), data.validation.inputs["ids"].max()) < data.config["vocabulary"]


def test_embedded_texts_are_consistent_and_splits_disjoint() -> None:
    data = news.load(None)
    assert_consistent(data)
    assert len(data.labels) == data.config["labels"] == 4
    assert not set(data.test.texts) & set(data.train.texts)


def test_real_ag_news_is_read(real: Callable[[str], Path]) -> None:
    source = news.Source(real("ag_news"))
    texts, targets = news._csv(source, "train.csv")
    assert np.bincount(targets).tolist() == [2_675] * 4
    assert texts[0].startswith("Many engineers lack a four-year degree More than one-fifth")
    assert texts[1].startswith("Clemson Wins in 2OT")
    texts, targets = news._csv(source, "test.csv")
    assert len(texts) == 7_600
    assert targets[:3].tolist() == [2, 3, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"1","a","b"\n"0","a","b"\n', 'x.csv, line 2: expected "1-4"'),
        ('"1","a"\n', "x.csv, line 1: expected"),
        ('"1","a","b"\n"2","a","b', "x.csv, line 2: not CSV"),
        ("", "expected rows, found none"),
    ],
)
def test_invalid_row_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        news.read_csv(text, location="x.csv")


def test_labels_of_the_docstrings_are_not_taken_for_those_of_news() -> None:
    data = news.load(None)
    assert data.labels == ("Python concurrency", "Python graphics", "Python internet", "Python numbers")
    assert "Not for news" in data.note
