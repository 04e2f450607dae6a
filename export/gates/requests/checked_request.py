"""A request body together with the check of its response, and the model object that answers it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from export.candidate import Candidate
from service.engine.sessions.model import Model

Body = dict[str, Any]
# Raises MismatchError.
ResponseCheck = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class CheckedRequest:
    """`check` compares the response to `body` with PyTorch's outputs for the same items."""

    body: Body
    check: ResponseCheck


def candidate_model(candidate: Candidate) -> Model:
    """The candidate as the service's repository would hold it."""
    return Model(
        manifest=candidate.manifest,
        session=candidate.session,
        tokenizer=None if candidate.tokenizer is None else Tokenizer.from_str(candidate.tokenizer),
    )
