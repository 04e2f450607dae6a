"""The resources that a task needs to answer requests with one version of a model.

Invariant: a reference to a `Model` keeps its version loaded; a replaced version is freed with its last reference.
Hold a `Model` only while an answer is being computed.
"""

from dataclasses import dataclass

from tokenizers import Tokenizer

from service.bundle import Bundle
from service.drift.distributions import Distributions
from service.engine.sessions.session import Session
from service.engine.sessions.tokenizer import read_tokenizer
from service.engine.sessions.tokenizer_cost import measure_cost
from service.errors import BundleError
from service.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Model:
    """One version that is ready to compute.

    Texts of at most `max_inline_bytes` in UTF-8 may be tokenized on an event loop. `distributions` are those of
    held-out data, if the bundle has them.
    """

    manifest: Manifest
    session: Session
    tokenizer: Tokenizer | None
    max_inline_bytes: int = 0
    distributions: Distributions | None = None


def create_model(bundle: Bundle, session: Session, max_inline_bytes: int | None = None) -> Model:
    """Return the model of a bundle; raises BundleError if its tokenizer is invalid, too slow, or another one.

    `max_inline_bytes` is what another process of this machine has measured of this tokenizer, or None to measure it.
    """
    tokenizer, distributions = read_tokenizer(bundle), bundle.distributions
    if tokenizer is None or bundle.tokenizer is None:
        return Model(manifest=bundle.manifest, session=session, tokenizer=None, distributions=distributions)
    if max_inline_bytes is None:
        try:
            max_inline_bytes = measure_cost(tokenizer, bundle.tokenizer).max_inline_bytes
        except ValueError as error:
            raise BundleError(f"{bundle.manifest.name}/{bundle.manifest.version}: tokenizer.json: {error}") from error
    return Model(
        manifest=bundle.manifest,
        session=session,
        tokenizer=tokenizer,
        max_inline_bytes=max_inline_bytes,
        distributions=distributions,
    )
