"""The vocabulary gate: the labels and the tokenizer are the run's own, byte for byte, and give the ids of training.

The hash in the checkpoint shows a tokenizer that changed after training. The token cases of the run and its test split
show it whatever the hashes say: they store texts with the ids that the tokenizer of training gave them. The token cases
go into the bundle, and the service compares them before it is ready.
"""

import hashlib
from dataclasses import replace

from tokenizers import Tokenizer

from export.candidate import Candidate
from export.errors import ExportError
from export.gates.vocabulary.linear_time import check_linear_time
from service.bundle import TokenCase
from service.contract.heads import LanguageModelHead
from service.contract.readers import TextReader
from service.engine.sessions.tokenizer import describe_difference, encode_texts, parse_tokenizer
from service.manifest import TOKENIZER
from training.recipe import IGNORE_INDEX, Split
from training.token_cases import choose_cases


def check_vocabulary(candidate: Candidate) -> tuple[TokenCase, ...]:
    """Return the token cases of a text model, none for others. Raises ExportError."""
    _check_labels(candidate)
    reader = candidate.manifest.reader
    if not isinstance(reader, TextReader):
        return ()
    _check_bytes(candidate)
    assert candidate.tokenizer is not None
    try:
        tokenizer = parse_tokenizer(candidate.tokenizer, reader.vocabulary)
        if candidate.source.run is not None:
            _check_ids(tokenizer, reader.vocabulary)
    except ValueError as error:
        raise ExportError("vocabulary", f"{TOKENIZER}: {error}") from error
    if candidate.source.run is None:
        _check_whole_texts(candidate, tokenizer)
    elif not candidate.source.examples.texts:
        raise ExportError("vocabulary", "the test split has no texts to compare the tokenizer with")
    else:
        check_test_ids = _check_text if isinstance(candidate.manifest.head, LanguageModelHead) else _check_texts
        check_test_ids(candidate, tokenizer)
    cases = candidate.source.tokens or choose_cases(candidate.tokenizer, _known_texts(candidate))
    rows = encode_texts(tokenizer, [case.text for case in cases])
    for case, ids in zip(cases, rows, strict=True):
        if ids != list(case.ids):
            raise ExportError("vocabulary", f"{TOKENIZER}: {describe_difference(case.text, case.ids, ids)}")
    try:
        check_linear_time(tokenizer, candidate.tokenizer)
    except ValueError as error:
        raise ExportError("vocabulary", f"{TOKENIZER}: {error}") from error
    return tuple(TokenCase(text=case.text, ids=case.ids) for case in cases)


def _check_labels(candidate: Candidate) -> None:
    labels, expected_labels = candidate.manifest.labels, candidate.source.labels
    if len(labels) != len(expected_labels):
        raise ExportError("vocabulary", f"the manifest has {len(labels)} labels, the source {len(expected_labels)}")
    for i, (label, expected) in enumerate(zip(labels, expected_labels, strict=True)):
        if label != expected:
            raise ExportError("vocabulary", f"label {i} of the manifest is {label!r}, the source has {expected!r}")


def _check_bytes(candidate: Candidate) -> None:
    source = candidate.source
    if candidate.tokenizer is None or source.tokenizer is None:
        holder = "candidate" if candidate.tokenizer is None else "source"
        raise ExportError("vocabulary", f"a model of texts needs a {TOKENIZER}, the {holder} has none")
    if candidate.tokenizer != source.tokenizer:
        raise ExportError("vocabulary", f"{TOKENIZER} differs from the source's")
    run, sha256 = source.run, hashlib.sha256(source.tokenizer.encode()).hexdigest()
    if run is not None and sha256 != run.checkpoint.files.get(TOKENIZER):
        raise ExportError("vocabulary", f"{TOKENIZER} was changed after the run: the checkpoint has another sha256")


def _check_ids(tokenizer: Tokenizer, vocabulary: int) -> None:
    """The tokens have the ids from 0 to the size of the model's vocabulary, each once."""
    ids = set(tokenizer.get_vocab().values())
    if len(ids) != tokenizer.get_vocab_size() or ids != set(range(vocabulary)):
        raise ValueError(
            f"{tokenizer.get_vocab_size()} tokens have {len(ids)} ids, the model's vocabulary has {vocabulary}"
        )


def _check_texts(candidate: Candidate, tokenizer: Tokenizer) -> None:
    """Every test text has the ids on which the model was evaluated."""
    split = candidate.source.examples
    if len(split.texts) != len(split):
        raise ExportError("vocabulary", f"the test split has {len(split)} items and {len(split.texts)} texts")
    lengths = split.inputs["lengths"].tolist()
    longest = max(lengths)
    rows = encode_texts(tokenizer, split.texts)
    for i, (text, ids) in enumerate(zip(split.texts, rows, strict=True)):
        expected = split.inputs["ids"][i, : lengths[i]].tolist()
        # Training cuts the longest texts, and gives a text without tokens one id.
        may_differ = lengths[i] == longest or expected == [1]
        if may_differ and not isinstance(ids, Exception) and (ids[: lengths[i]] or [1]) == expected:
            continue
        if ids != expected:
            raise ExportError("vocabulary", f"{TOKENIZER}: test text {i}: {describe_difference(text, expected, ids)}")


def _known_texts(candidate: Candidate) -> Split:
    """The examples, without the texts of a model from elsewhere, of which a long one may have been cut anywhere."""
    examples = candidate.source.examples
    return examples if candidate.source.run is not None else replace(examples, texts=())


def _check_whole_texts(candidate: Candidate, tokenizer: Tokenizer) -> None:
    """Every text of a model from elsewhere has the ids of its example, unless that is as long as any may be."""
    split, longest = candidate.source.examples, candidate.manifest.limits.max_steps or 1
    if len(split.texts) != len(split):
        return
    lengths = candidate.source.item_lengths().tolist()
    for i, (text, ids) in enumerate(zip(split.texts, encode_texts(tokenizer, split.texts), strict=True)):
        expected = split.inputs["ids"][i, : lengths[i]].tolist()
        if lengths[i] < min(longest, max(lengths)) and ids != expected:
            raise ExportError("vocabulary", f"{TOKENIZER}: text {i}: {describe_difference(text, expected, ids)}")


def _check_text(candidate: Candidate, tokenizer: Tokenizer) -> None:
    """The targets of all windows are the ids of the test text."""
    split = candidate.source.examples
    encoded = list[int]()
    for text, row in zip(split.texts, encode_texts(tokenizer, split.texts), strict=True):
        if isinstance(row, Exception):
            raise ExportError("vocabulary", f"{TOKENIZER}: {describe_difference(text, [], row)}")
        encoded += row
    targets = split.targets[split.targets != IGNORE_INDEX].tolist()
    if encoded != targets:
        detail = describe_difference("".join(split.texts), targets, encoded)
        raise ExportError("vocabulary", f"{TOKENIZER}: the test text: {detail}")
