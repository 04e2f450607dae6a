"""A request body and how its answer is checked, for the gate of `export.requests`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from export.candidate import Candidate
from service.engine.sessions.model import Model

Body = dict[str, Any]
Check = Callable[[dict[str, Any]], None]  # raises MismatchError


class MismatchError(Exception):
    """An answer that is not PyTorch's."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A body and the check of its answer."""

    body: Body
    check: Check


def served(candidate: Candidate) -> Model:
    """The candidate as the service's repository would hold it."""
    tokenizer = candidate.run.tokenizer
    return Model(
        manifest=candidate.manifest,
        session=candidate.session,
        tokenizer=None if tokenizer is None else Tokenizer.from_str(tokenizer),
    )
