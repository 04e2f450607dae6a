"""Short texts by topic: AG News, or by default paragraphs of the standard library's docstrings.

The texts of a split are raw, as a client sends them. The tokenizer's normalizer does all cleaning, so training and
service share it through `tokenizer.json`.
"""

import csv
import hashlib
import io
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from training.data import docstrings
from training.data.holdout import hold_out
from training.data.source import Source
from training.recipe import Data, Split

# The seed of the splits, independent of the seed of the run.
SEED = 2015
LABELS = ("World", "Sports", "Business", "Sci/Tech")
VOCABULARY = 20_000

# Tokens 0 and 1. The tokenizer splits punctuation off, so no text contains them.
PADDING, UNKNOWN = "[PAD]", "[UNK]"

# An HTML tag of AG News. It holds no other "&lt;": otherwise each of many unclosed ones would be searched to the end of
# the text, and a text of "&lt;" alone would take quadratic time.
TAG = r"&lt;(?:(?!&lt;).)*?&gt;"

# Training reads this many tokens of a text. AG News texts have 44 tokens in the median, 93 at the 99th percentile.
MAX_STEPS = 128

Texts = tuple[str, ...]
Targets = npt.NDArray[np.int64]


def load(path: Path | None) -> Data:
    """Real: a folder or archive with `train.csv` and `test.csv` (or `.csv.gz`) of AG News."""
    if path is None:
        parts = docstrings.split(seed=SEED)
        version = ".".join(platform.python_version_tuple()[:2])
        corpus = "\n".join(text for texts, _ in parts.values() for text in texts)
        return _data(
            name=f"stdlib-docstrings (Python {version})",
            note="Paragraphs of the docstrings of Python's standard library; all paragraphs of a file are in the same "
            "split. Not for news or any other text: the labels are topics of that library.",
            parts={name: (tuple(texts), np.array(labels, np.int64)) for name, (texts, labels) in parts.items()},
            # Nobody is to take a topic of a library for one of the news.
            labels=tuple(f"Python {topic}" for topic in docstrings.TOPICS),
            sha256={"docstrings": hashlib.sha256(corpus.encode()).hexdigest()},
        )
    source = Source(path)
    texts, targets = _csv(source, "train.csv")
    train_items, validation_items = hold_out(targets, share=0.05, seed=SEED)
    return _data(
        name=source.name,
        note=f"{len(texts):,} news texts for training and validation: title and description, joined by a space. Not "
        "for other topics, languages or years.",
        parts={
            "train": (tuple(texts[i] for i in train_items), targets[train_items]),
            "validation": (tuple(texts[i] for i in validation_items), targets[validation_items]),
            "test": _csv(source, "test.csv"),
        },
        labels=LABELS,
        sha256=source.sha256,
    )


def _data(
    *, name: str, note: str, parts: dict[str, tuple[Texts, Targets]], labels: Sequence[str], sha256: dict[str, str]
) -> Data:
    tokenizer = word_tokenizer(parts["train"][0])
    splits = {part: _split(tokenizer, texts, targets) for part, (texts, targets) in parts.items()}
    return Data(
        name=name,
        note=note,
        **splits,
        labels=tuple(labels),
        sha256=sha256,
        tokenizer=tokenizer.to_str(),
        config={"vocabulary": tokenizer.get_vocab_size(), "labels": len(labels)},
    )


def word_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """A tokenizer of the words that occur at least twice in `texts`, most frequent first."""
    trainer = trainers.WordLevelTrainer(
        vocab_size=VOCABULARY, min_frequency=2, special_tokens=[PADDING, UNKNOWN], show_progress=False
    )
    fitted = _word_level(models.WordLevel(unk_token=UNKNOWN))
    fitted.train_from_iterator(texts, trainer)
    # The fitted tokenizer would read "[PAD]" in a text as the padding token; a new one has no special tokens.
    return _word_level(models.WordLevel(fitted.get_vocab(), unk_token=UNKNOWN))


def _word_level(model: models.WordLevel) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = text_normalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), "removed", invert=True)
    return tokenizer


def text_normalizer() -> normalizers.Normalizer:
    """Lowercase, remove accents, and remove the markup of AG News.

    In AG News, `\\` is a line break, `&lt;...&gt;` an HTML tag, ` #39;` an apostrophe; other `#NN;` and `&xx;` are
    dropped. Every digit becomes 0: 2004 is read as 0000.
    """
    return normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace("\\", " "),
            normalizers.Replace(Regex(TAG), " "),
            normalizers.Replace(Regex(r" ?(#0?39;|&#0?39;|#14[56];)"), "'"),
            normalizers.Replace(Regex(r"&?#\d+;|&[a-z]+;"), " "),
            normalizers.Replace(Regex(r"\d"), "0"),
        ]
    )


def _split(tokenizer: Tokenizer, texts: Texts, targets: Targets) -> Split:
    rows = [encoding.ids[:MAX_STEPS] or [1] for encoding in tokenizer.encode_batch(list(texts))]
    lengths = np.array([len(row) for row in rows], np.int64)
    ids = np.zeros((len(rows), lengths.max()), np.int64)
    for padded, row in zip(ids, rows, strict=True):
        padded[: len(row)] = row
    return Split(inputs={"ids": ids, "lengths": lengths}, targets=targets, texts=texts)


def _csv(source: Source, file_name: str) -> tuple[Texts, Targets]:
    name = source.require(file_name)
    return read_csv(source.read_text(name), location=source.location(name))


def read_csv(text: str, *, location: str) -> tuple[Texts, Targets]:
    """Texts and targets from rows `"class","title","description"` without a header; classes start at 1.

    A text is its title and description, joined by a space.
    """
    texts: list[str] = []
    targets: list[int] = []
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in rows:
            if len(row) != 3 or row[0] not in ("1", "2", "3", "4"):
                found = ",".join(row)[:80]
                raise ValueError(
                    f'{location}, line {rows.line_num}: expected "1-4","title","description", found {found!r}'
                )
            targets.append(int(row[0]) - 1)
            texts.append(" ".join(part for part in row[1:] if part.strip()))
    except csv.Error as error:
        raise ValueError(f"{location}, line {rows.line_num}: not CSV: {error}") from error
    if not texts:
        raise ValueError(f"{location}: expected rows, found none")
    return tuple(texts), np.array(targets, np.int64)
