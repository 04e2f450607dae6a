"""A request body together with the check of its response, and the model object that answers it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from export.candidate import Candidate
from export.errors import ExportError
from service.engine.sessions.model import Model
from service.engine.sessions.tokenizer import parse_tokenizer
from service.manifest import TOKENIZER

Body = dict[str, Any]
# Raises MismatchError.
ResponseCheck = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class CheckedRequest:
    """`check` compares the response to `body` with the reference's outputs for the same items."""

    body: Body
    check: ResponseCheck


def candidate_model(candidate: Candidate) -> Model:
    """The candidate as the service's repository would hold it. Raises ExportError without a valid tokenizer."""
    return Model(manifest=candidate.manifest, session=candidate.session, tokenizer=_tokenizer(candidate))


def _tokenizer(candidate: Candidate) -> Tokenizer | None:
    vocabulary = getattr(candidate.manifest.reader, "vocabulary", None)
    if vocabulary is None:
        return None
    if candidate.tokenizer is None:
        raise ExportError("requests", f"a model of texts needs a {TOKENIZER}")
    try:
        return parse_tokenizer(candidate.tokenizer, vocabulary)
    except ValueError as error:
        raise ExportError("requests", f"{TOKENIZER}: {error}") from error
