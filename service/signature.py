"""Signatures of bundles: an ed25519 signature of the manifest, by a key that the service trusts.

The manifest holds the hash of every other file, so its signature covers the whole bundle. It is the file
`signature.json` beside the manifest, which the manifest does not list.
"""

import os
import re
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import Field

from service.contract.tensors import FrozenModel

SIGNATURE = "signature.json"
MAX_SIGNATURE_BYTES = 1 << 10
TRUSTED_KEYS = "EKIBEN_TRUSTED_KEYS"
PUBLIC_KEY = "[0-9a-f]{64}"


class Signature(FrozenModel):
    """The content of `signature.json`: the public key and the signature of the manifest's bytes, as hex digits."""

    key: str = Field(pattern=f"^{PUBLIC_KEY}$")
    signature: str = Field(pattern="^[0-9a-f]{128}$")


def trusted_keys() -> frozenset[str]:
    """The keys of the environment; empty if signatures are not required. Raises ValueError.

    Every process that opens a bundle reads them here, so none can be without them. Settings ignore the case of
    variables, and so does this.
    """
    return parse_keys(next((value for name, value in os.environ.items() if name.upper() == TRUSTED_KEYS), ""))


def parse_keys(text: str) -> frozenset[str]:
    """The public keys of a comma-separated list, or of a file with one key a line. Raises ValueError."""
    if not text.strip():
        return frozenset()
    keys = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(PUBLIC_KEY, key) for key in keys):
        try:
            lines = Path(text).read_text().splitlines()
        except (OSError, UnicodeDecodeError):
            raise ValueError("expected public keys of 64 hex digits, or a readable file with one key a line") from None
        keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not keys or not all(re.fullmatch(PUBLIC_KEY, key) for key in keys):
            raise ValueError(f"expected one public key of 64 hex digits on each line of {text}")
    return frozenset(keys)


def verify(manifest: bytes, content: bytes, keys: frozenset[str]) -> None:
    """Check that `content`, a `signature.json`, signs these bytes with one of the keys. Raises ValueError."""
    signature = Signature.model_validate_json(content)
    if signature.key not in keys:
        raise ValueError(f"the key {signature.key[:12]}… is not trusted")
    try:
        public_key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature.key))
        public_key.verify(bytes.fromhex(signature.signature), manifest)
    except InvalidSignature:
        raise ValueError(f"it is no signature of this manifest by the key {signature.key[:12]}…") from None
