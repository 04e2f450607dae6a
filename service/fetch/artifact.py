"""Fetch bundles from an OCI artifact: one file a layer, as `oras push` makes it, or layers that are tar archives.

Invariant: every layer is hashed before it is unpacked, and only plain files below the staging folder are written.
"""

import hashlib
import json
import tarfile
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from service.bundle import current_version
from service.errors import BundleError
from service.fetch.registry import Registry
from service.fetch.source import FetchError, Pointer, Source
from service.fetch.staging import MAX_FILE_BYTES, Staging, write_checked
from service.manifest import MANIFEST

TITLE = "org.opencontainers.image.title"
WHITEOUT = ".wh."  # begins the name of a file in a layer that stands for the absence of another
MAX_LAYERS = 256
MAX_MEMBERS = 10_000


def fetch_artifact(source: Source, staging: Staging) -> list[str]:
    """Stage the bundles of the artifact; return one line about each. Raises FetchError.

    Of a model with a file `current`, that is the version that this names, and as its candidate that of `candidate`.
    """
    registry = Registry(source.place)
    content = registry.manifest(f"sha256:{source.digest}")
    found = hashlib.sha256(content).hexdigest()
    if found != source.digest:
        raise FetchError(f"{source}: its manifest: expected sha256 {source.digest}, found {found}")
    folder = staging.folder / source.digest
    for number, (digest, num_bytes, title) in enumerate(_layers(source, content)):
        label = f"{source}: {title or f'layer {number}'}"
        path = folder / "files" / _inside(label, title) if title else folder / f"layer-{number}"
        write_checked(path, registry.blob(f"sha256:{digest}"), label=label, digest=digest, num_bytes=num_bytes)
        if title is None:
            _unpack(path, folder / "files", label)
            path.unlink()
    manifests = sorted((folder / "files").rglob(MANIFEST))
    if not manifests:
        raise FetchError(f"{source}: the artifact holds no {MANIFEST}, so no bundle")
    pointers = [(manifest.parent, _pointer(source, manifest.parent)) for manifest in manifests]
    lines = []
    for bundle, pointer in pointers:
        if pointer is not None:
            name, version = staging.add(replace(source, pointer=pointer), bundle)
            lines.append(f"{name} {version}: from {source}")
    return lines


def _pointer(source: Source, bundle: Path) -> Pointer | None:
    """Return what the version in this folder becomes, or None if the files beside it name others."""
    model = bundle.parent
    if not (model / "current").exists():
        return source.pointer
    try:
        versions = {"current": current_version(model)}
        if source.pointer == "current" and (model / "candidate").exists():
            versions["candidate"] = current_version(model, "candidate")
    except BundleError as error:
        raise FetchError(f"{source}: {error}") from error
    for name, version in versions.items():
        if not (model / version / MANIFEST).exists():
            raise FetchError(f"{source}: {model.name}: `{name}` names {version}, which is not there")
    if bundle.name == versions["current"]:
        return source.pointer
    return "candidate" if bundle.name == versions.get("candidate") else None


def _layers(source: Source, content: bytes) -> list[tuple[str, int, str | None]]:
    """Return digest, size and file name of each layer; an archive has no file name."""
    try:
        manifest: Any = json.loads(content)
        if "manifests" in manifest:
            raise FetchError(f"{source}: is an index: name the digest of one of its manifests")
        layers = [
            (layer["digest"].removeprefix("sha256:"), int(layer["size"]), (layer.get("annotations") or {}).get(TITLE))
            for layer in manifest["layers"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FetchError(f"{source}: its manifest is none of an OCI image or artifact") from error
    if not 0 < len(layers) <= MAX_LAYERS:
        raise FetchError(f"{source}: expected 1 to {MAX_LAYERS} layers, found {len(layers)}")
    if title := next((title for _, _, title in layers if title is not None and title.endswith("/")), None):
        raise FetchError(f"{source}: {title}: a folder is pushed as an archive: push its files, or an image with them")
    return layers


def _unpack(archive: Path, folder: Path, label: str) -> None:
    """Write the files of a tar archive, compressed with gzip or not, below the folder, over those of earlier ones."""
    left = MAX_FILE_BYTES
    try:
        with tarfile.open(archive, "r|*") as tar:
            for number, member in enumerate(tar):
                if number >= MAX_MEMBERS:
                    raise FetchError(f"{label}: expected at most {MAX_MEMBERS} files, found more")
                path = folder / _inside(label, member.name)
                if path.name.startswith(WHITEOUT):
                    raise FetchError(
                        f"{label}: {member.name} removes what an earlier layer holds: build the image anew"
                    )
                if member.isdir():
                    continue
                file = tar.extractfile(member) if member.isreg() else None
                if file is None:
                    raise FetchError(f"{label}: {member.name} is no plain file")
                left -= member.size
                if left < 0:
                    raise FetchError(f"{label}: expected at most {MAX_FILE_BYTES} bytes, found more")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                with path.open("xb") as target:
                    while part := file.read(1 << 20):
                        target.write(part)
    except (tarfile.TarError, EOFError) as error:
        raise FetchError(f"{label}: is neither a file with a title nor a tar archive (gzip): {error}") from error
    except OSError as error:
        raise FetchError(f"{label}: {error.strerror or error}") from error


def _inside(label: str, name: str) -> Path:
    """Return the relative path; raises FetchError if it leads out of the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise FetchError(f"{label}: the path {name!r} leads out of the folder")
    return Path(path)
