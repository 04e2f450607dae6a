"""A proven candidate becomes a bundle folder: whole or not at all, and the same bytes for the same run.

Files are written to a temporary sibling, synced, checked by the service's own reader, and renamed into place; only then
does `current` name them. A version that is there already is left as it is: it has the same content.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.numpy import save as save_arrays

from export.candidate import Candidate
from export.card import card_files
from export.prove import Proof
from service.bundle import Bundle, RequestCase, open_bundle, pack_golden
from service.manifest import GOLDEN, MANIFEST, MODEL, REQUESTS, TOKENIZER, FileEntry, Manifest


def write_bundle(candidate: Candidate, proof: Proof, bundles: Path) -> Bundle:
    """Write `bundles/NAME/VERSION` and make it current; what is returned was read back by `open_bundle`."""
    files = {
        MODEL: candidate.model,
        GOLDEN: save_arrays(pack_golden(proof.golden)),
        REQUESTS: "".join(map(_line, proof.requests)).encode(),
        **card_files(candidate, proof),
    }
    if candidate.run.tokenizer is not None:
        files[TOKENIZER] = candidate.run.tokenizer.encode()
    manifest = seal(candidate, proof, files)
    folder = bundles / manifest.name / manifest.version
    if not folder.exists():
        _place({**files, MANIFEST: manifest.to_json().encode()}, folder, bundles)
    bundle = open_bundle(folder)
    _point(folder.parent, manifest.version)
    return bundle


def seal(candidate: Candidate, proof: Proof, files: Mapping[str, bytes]) -> Manifest:
    """The candidate's manifest with what was measured, and its files."""
    fields = {name: getattr(candidate.manifest, name) for name in Manifest.model_fields if name != "version"}
    fields["tolerance"] = {
        name: tolerance.model_copy(update={"measured": proof.parity.worst(name).worst})
        for name, tolerance in candidate.manifest.tolerance.items()
    }
    fields["invariance"] = proof.certificate.invariance
    fields["files"] = {name: _file(content) for name, content in sorted(files.items())}
    return Manifest.versioned(**fields)


def _file(content: bytes) -> FileEntry:
    return FileEntry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def _line(case: RequestCase) -> str:
    return json.dumps({"request": case.request, "answer": case.answer}, ensure_ascii=False) + "\n"


def _place(files: Mapping[str, bytes], folder: Path, bundles: Path) -> None:
    """Write beside the bundles, under the same names so that the reader can check it there, then move."""
    workshop = bundles / f".{folder.parent.name}.{os.getpid()}"
    draft = workshop / folder.parent.name / folder.name
    shutil.rmtree(workshop, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        for name, content in files.items():
            _write(draft / name, content)
        _sync(draft)
        open_bundle(draft)
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    _sync(folder.parent)


def _point(home: Path, version: str) -> None:
    draft = home / f".current.{os.getpid()}"
    _write(draft, f"{version}\n".encode())
    draft.rename(home / "current")
    _sync(home)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
