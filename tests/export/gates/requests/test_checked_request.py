"""The service's model object of a candidate."""

from dataclasses import replace

import pytest

from export.errors import ExportError
from export.gates.requests.checked_request import candidate_model
from tests.export.conftest import Candidates


def test_the_model_has_the_session_and_tokenizer_of_the_candidate(candidates: Candidates) -> None:
    text, series = candidates("tiny-text"), candidates("tiny-rnn")
    assert candidate_model(series).tokenizer is None
    assert candidate_model(series).session is series.session
    tokenizer = candidate_model(text).tokenizer
    assert tokenizer is not None
    ids, length = text.source.examples.inputs["ids"][0], text.source.examples.inputs["lengths"][0]
    assert tokenizer.encode(text.source.examples.texts[0]).ids == ids[:length].tolist()


def test_a_text_model_without_a_valid_tokenizer_is_refused(candidates: Candidates) -> None:
    text = candidates("tiny-text")
    with pytest.raises(ExportError, match=r"requests: a model of texts needs a tokenizer\.json"):
        candidate_model(replace(text, tokenizer=None))
    with pytest.raises(ExportError, match=r"requests: tokenizer\.json: "):
        candidate_model(replace(text, tokenizer="{}"))
    larger = candidates("tiny-language").tokenizer
    with pytest.raises(ExportError, match=r"requests: tokenizer\.json: .*18"):
        candidate_model(replace(text, tokenizer=larger))
