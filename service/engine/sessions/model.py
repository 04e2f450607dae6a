"""The resources that a task needs to answer requests with one version of a model.

Invariant: a reference to a `Model` keeps its version loaded; a replaced version is freed with its last reference.
Hold a `Model` only while an answer is being computed.
"""

from dataclasses import dataclass

from tokenizers import Tokenizer

from service.bundle import Bundle
from service.engine.sessions.session import Session
from service.errors import BundleError
from service.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Model:
    """One version that is ready to compute."""

    manifest: Manifest
    session: Session
    tokenizer: Tokenizer | None


def read_tokenizer(bundle: Bundle) -> Tokenizer | None:
    """Return the bundle's tokenizer, if any; raises BundleError if it cannot be parsed or exceeds the vocabulary."""
    if bundle.tokenizer is None:
        return None
    where = f"{bundle.manifest.name}/{bundle.manifest.version}: tokenizer.json"
    try:
        tokenizer = Tokenizer.from_str(bundle.tokenizer)
    except Exception as error:  # tokenizers raises bare Exception
        raise BundleError(f"{where}: {error}") from error
    max_id = max(tokenizer.get_vocab().values(), default=-1)
    vocabulary: int | None = getattr(bundle.manifest.parameters, "vocabulary", None)
    if vocabulary is not None and max_id >= vocabulary:
        raise BundleError(f"{where}: has token ids up to {max_id}, the model's vocabulary has {vocabulary}")
    return tokenizer
