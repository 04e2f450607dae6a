"""A candidate as the service holds it."""

from tests.export.conftest import Candidates


def test_the_candidate_is_served_with_its_own_session_and_tokenizer(candidates: Candidates) -> None:
    text, series = candidates("tiny-text"), candidates("tiny-rnn")
    assert served(series).tokenizer is None
    assert served(series).session is series.session
    tokenizer = served(text).tokenizer
    assert tokenizer is not None
    ids, length = text.run.test.inputs["ids"][0], text.run.test.inputs["lengths"][0]
    assert tokenizer.encode(text.run.test.texts[0]).ids == ids[:length].tolist()
