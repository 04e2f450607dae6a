"""Short texts by topic: AG News, or by default paragraphs of the standard library's docstrings.

The texts of a split are what a client sends, untouched. All cleaning is the tokenizer's normalizer, so it travels with
the model in `tokenizer.json` and cannot differ between training and service.
"""

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from training.data import docstrings
from training.data.holdout import hold_out
from training.data.source import Source
from training.recipe import Data, Split

SEED = 2015  # of the cuts, whatever the training's own seed
LABELS = ("World", "Sports", "Business", "Sci/Tech")
PADDING, UNKNOWN = "[PAD]", "[UNK]"  # ids 0 and 1; no text can be cut into them
VOCABULARY = 20_000
MAX_STEPS = 128  # tokens of a text that training reads; AG News has 44 in the middle, 93 at the last hundredth
Texts = tuple[str, ...]
Targets = npt.NDArray[np.int64]


def load(path: Path | None) -> Data:
    """Real: a folder or archive with `train.csv` and `test.csv` (or `.csv.gz`) of AG News."""
    if path is None:
        parts = docstrings.split(seed=SEED)
        said = "\n".join(text for texts, _ in parts.values() for text in texts)
        return _data(
            name="Docstrings of the standard library",
            note="Paragraphs of the standard library's docstrings; a class or function is in one split alone.",
            parts={name: (tuple(texts), np.array(labels, np.int64)) for name, (texts, labels) in parts.items()},
            labels=tuple(docstrings.TOPICS),
            sha256={"docstrings": hashlib.sha256(said.encode()).hexdigest()},
        )
    source = Source(path)
    texts, targets = _csv(source, "train.csv")
    kept, held = hold_out(targets, share=0.05, seed=SEED)
    return _data(
        name="AG News",
        note=f"{len(texts):,} news texts to learn from, title and description joined by a space.",
        parts={
            "train": (tuple(texts[i] for i in kept), targets[kept]),
            "validation": (tuple(texts[i] for i in held), targets[held]),
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
    """Words that `texts` holds at least twice, the commonest first; fitted here, so on the training split alone."""
    trainer = trainers.WordLevelTrainer(
        vocab_size=VOCABULARY, min_frequency=2, special_tokens=[PADDING, UNKNOWN], show_progress=False
    )
    fitted = _words(models.WordLevel(unk_token=UNKNOWN))
    fitted.train_from_iterator(texts, trainer)
    return _words(models.WordLevel(fitted.get_vocab(), unk_token=UNKNOWN))  # now [PAD] in a text is three signs


def _words(model: models.WordLevel) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = cleaning()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), "removed", invert=True)
    return tokenizer


def cleaning() -> normalizers.Normalizer:
    """Lower case without accents, and none of the marks that AG News carries.

    `\\` stands for a new line there, `&lt;...&gt;` encloses HTML, ` #39;` is an apostrophe, and other `#NN;` and `&xx;`
    are signs of no use. Numbers lose their digits but not their length: 2004 is 0000.
    """
    return normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace("\\", " "),
            normalizers.Replace(Regex(r"&lt;.*?&gt;"), " "),
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


def _csv(source: Source, wanted: str) -> tuple[Texts, Targets]:
    name = source.need(wanted)
    return read_csv(source.text(name), where=source.where(name))


def read_csv(text: str, *, where: str) -> tuple[Texts, Targets]:
    """Rows `"class","title","description"` without a header, classes from 1; a text is title + " " + description."""
    texts: list[str] = []
    targets: list[int] = []
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in rows:
            if len(row) != 3 or row[0] not in ("1", "2", "3", "4"):
                raise ValueError(
                    f'{where}, line {rows.line_num}: expected "1-4","title","description", found {",".join(row)[:80]!r}'
                )
            targets.append(int(row[0]) - 1)
            texts.append(" ".join(part for part in row[1:] if part.strip()))
    except csv.Error as error:
        raise ValueError(f"{where}, line {rows.line_num}: not CSV: {error}") from error
    if not texts:
        raise ValueError(f"{where}: expected rows, found none")
    return tuple(texts), np.array(targets, np.int64)
