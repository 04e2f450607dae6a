"""`python -m export.sign BUNDLE... --key KEY`: sign bundles, so that a service can require it.

`--new-key KEY` makes a key: the private key goes to a file that only its owner can read, the public key is printed. A
service with that public key in `EKIBEN_TRUSTED_KEYS` loads no bundle that this key has not signed.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from service.bundle import open_bundle, version_folder
from service.errors import BundleError
from service.manifest import MANIFEST, Manifest
from service.signature import SIGNATURE, Signature


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 all done, 1 a bundle or a key cannot be used, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m export.sign", description="Sign bundles with an ed25519 key.")
    parser.add_argument(
        "bundles", type=Path, nargs="*", metavar="BUNDLE", help="a bundle, or the folder of a model for its current one"
    )
    parser.add_argument("--key", type=Path, help="the private key that signs")
    parser.add_argument("--new-key", type=Path, metavar="KEY", help="write a new private key to this file")
    options = parser.parse_args(argv)
    if (options.new_key is None) == (options.key is None) or (options.key is not None) != bool(options.bundles):
        parser.error("expected bundles with --key KEY, or --new-key KEY alone")
    try:
        if options.new_key is not None:
            print(create_key(options.new_key))
            return 0
        key = read_key(options.key)
        for folder in options.bundles:
            print(f"{sign(folder, key)}: signed by {public_key(key)}")
    except (BundleError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def create_key(path: Path) -> str:
    """Write a new private key to a file that does not exist yet, and return its public key. Raises OSError."""
    key = Ed25519PrivateKey.generate()
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return public_key(key)


def read_key(path: Path) -> Ed25519PrivateKey:
    """The private key of a PEM file. Raises OSError, or ValueError for any other kind of file or key."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected an unencrypted private key in PEM form: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path}: expected an ed25519 key")
    return key


def public_key(key: Ed25519PrivateKey) -> str:
    """The public key as 64 hex digits, as `EKIBEN_TRUSTED_KEYS` expects it."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def sign(folder: Path, key: Ed25519PrivateKey) -> str:
    """Check a bundle, sign it, and return NAME/VERSION. Raises BundleError, OSError."""
    folder = version_folder(folder)
    manifest = open_bundle(folder, require_signature=False).manifest
    content = (folder / MANIFEST).read_bytes()
    if Manifest.model_validate_json(content) != manifest:
        raise BundleError(f"{folder}: {MANIFEST} changed while it was read")
    signature = Signature(key=public_key(key), signature=key.sign(content).hex())
    # A reader refuses files that it does not know, so the temporary file is outside of the bundle.
    staging = folder.parent / f".{SIGNATURE}.{os.getpid()}"
    staging.write_text(signature.model_dump_json() + "\n")
    staging.rename(folder / SIGNATURE)
    return f"{manifest.name}/{manifest.version}"


if __name__ == "__main__":
    raise SystemExit(main())
