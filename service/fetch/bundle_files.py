"""Fetch one bundle file by file, from a store that holds its folder."""

import hashlib

from service.bundle import MAX_MANIFEST_BYTES
from service.fetch.source import DeniedError, FetchError, Source
from service.fetch.staging import Staging, parse_manifest, write_checked
from service.fetch.stores import Store, open_store
from service.manifest import MANIFEST
from service.signature import MAX_SIGNATURE_BYTES, SIGNATURE, trusted_keys


def fetch_files(source: Source, staging: Staging) -> list[str]:
    """Stage the bundle unless it is there; return one line about it. Raises FetchError.

    The manifest comes first: its hash is the digest of the source, and it lists all other files.
    """
    store = open_store(source.place)
    content = _read_small(store, source, MANIFEST, MAX_MANIFEST_BYTES)
    if content is None:
        raise FetchError(f"{source}: there is no {MANIFEST}: name the folder of one version of a bundle")
    found = hashlib.sha256(content).hexdigest()
    if found != source.digest:
        raise FetchError(f"{source}: {MANIFEST}: expected sha256 {source.digest}, found {found}")
    manifest = parse_manifest(source, content)
    label = f"{manifest.name} {manifest.version}"
    if staging.holds(source, manifest.name, manifest.version):
        return [f"{label}: is there already, and whole"]
    folder = staging.folder / source.digest
    write_checked(folder / MANIFEST, [content], label=f"{source}: {MANIFEST}", digest=source.digest)
    for name, entry in manifest.files.items():
        write_checked(
            folder / name,
            store.read(name),
            label=f"{source}: {name}",
            digest=entry.sha256,
            num_bytes=entry.bytes,
        )
    signature = _read_signature(store, source)
    if signature is not None:
        (folder / SIGNATURE).write_bytes(signature)
    staging.add(source, folder)
    num_bytes = sum(entry.bytes for entry in manifest.files.values())
    return [f"{label}: {len(manifest.files)} files, {num_bytes / 1e6:.1f} MB, from {source}"]


def _read_signature(store: Store, source: Source) -> bytes | None:
    """Return the signature, or None if there is none, or if it is refused and not needed."""
    try:
        return _read_small(store, source, SIGNATURE, MAX_SIGNATURE_BYTES)
    except DeniedError:
        if trusted_keys():
            raise
        return None


def _read_small(store: Store, source: Source, name: str, max_bytes: int) -> bytes | None:
    """Return a file that is read into memory, or None if there is none."""
    content = b""
    try:
        for part in store.read(name):
            content += part
            if len(content) > max_bytes:
                raise FetchError(f"{source}: {name}: expected at most {max_bytes} bytes, found more")
    except FileNotFoundError:
        return None
    return content
