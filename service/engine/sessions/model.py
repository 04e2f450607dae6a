"""What a task needs to answer with one version of a model.

A `Model` that somebody holds is the lease on its version: a version that was replaced is freed when the last one is
dropped, and not before. So hold it while an answer is made, and nowhere else.
"""

from dataclasses import dataclass

from tokenizers import Tokenizer

from service.bundle import Bundle, Manifest
from service.engine.sessions.session import Session
from service.errors import BundleError


@dataclass(frozen=True, kw_only=True)
class Model:
    """One version, ready to compute."""

    manifest: Manifest
    session: Session
    tokenizer: Tokenizer | None


def read_tokenizer(bundle: Bundle) -> Tokenizer | None:
    """The bundle's tokenizer; raises BundleError if there is one that cannot be read or knows more than the model."""
    if bundle.tokenizer is None:
        return None
    where = f"{bundle.manifest.name}/{bundle.manifest.version}: tokenizer.json"
    try:
        tokenizer = Tokenizer.from_str(bundle.tokenizer)
    except Exception as error:  # tokenizers raises bare Exception
        raise BundleError(f"{where}: {error}") from error
    highest = max(tokenizer.get_vocab().values(), default=-1)
    vocabulary: int | None = getattr(bundle.manifest.parameters, "vocabulary", None)
    if vocabulary is not None and highest >= vocabulary:
        raise BundleError(f"{where}: it gives token ids up to {highest}, the model knows {vocabulary}")
    return tokenizer
