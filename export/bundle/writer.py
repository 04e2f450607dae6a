"""Writes the bundle of a proven candidate: completely or not at all, and with the same bytes for the same run.

The files go to a temporary folder beside the bundles, are synced, checked by the service's own reader, and renamed into
place. Only then does `current` name the new version. An existing version has the same content, so it is not rewritten.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from safetensors.numpy import save as save_arrays

from export.bundle.card import card_files
from export.bundle.distributions import measure_distributions
from export.candidate import Candidate
from export.gates.golden.gate import with_rounding
from export.gates.proof import Proof
from service.bundle import Bundle, RequestCase, TokenCase, pack_golden
from service.bundle import open_bundle as open_signed_bundle
from service.data_files.data_file import DataFile
from service.manifest import (
    DISTRIBUTIONS,
    GOLDEN,
    MANIFEST,
    MODEL,
    MODEL_DATA,
    REQUESTS,
    TOKENIZER,
    TOKENS,
    FileEntry,
    Manifest,
)

# A new bundle has no signature yet, whatever the environment says.
open_bundle = partial(open_signed_bundle, require_signature=False)


def write_bundle(candidate: Candidate, proof: Proof, bundles: Path) -> Bundle:
    """Write `bundles/NAME/VERSION`, make it current, and return the bundle as `open_bundle` reads it."""
    files = {
        MODEL: candidate.model,
        GOLDEN: save_arrays(pack_golden(proof.golden)),
        REQUESTS: _json_lines(proof.requests),
        **card_files(candidate, proof),
    }
    if candidate.tokenizer is not None:
        files |= {TOKENIZER: candidate.tokenizer.encode(), TOKENS: _json_lines(proof.tokens)}
    if (distributions := measure_distributions(candidate)) is not None:
        files[DISTRIBUTIONS] = distributions.to_json().encode()
    manifest = _final_manifest(candidate, proof, files)
    folder = bundles / manifest.name / manifest.version
    if not folder.exists():
        _write_folder({**files, MANIFEST: manifest.to_json().encode()}, candidate.data, folder, bundles)
    bundle = open_bundle(folder)
    _set_current(folder.parent, manifest.version)
    return bundle


def _final_manifest(candidate: Candidate, proof: Proof, files: Mapping[str, bytes]) -> Manifest:
    """The candidate's manifest with the measured values and the hashes of the files."""
    fields = {name: getattr(candidate.manifest, name) for name in Manifest.model_fields if name != "version"}
    fields["tolerance"] = {
        name: tolerance.model_copy(update={"measured": proof.parity.largest(name).max_difference})
        for name, tolerance in with_rounding(candidate, proof.goldens.rounding).manifest.tolerance.items()
    }
    fields["domain"] = dict(proof.parity.domain)
    if candidate.source.run is None:
        metrics = {f"test_{name}": graph for name, (_, graph) in proof.metric.items()}
        provenance = candidate.manifest.provenance
        fields["provenance"] = provenance.model_copy(update={"metrics": {**metrics, **provenance.metrics}})
    fields["precision"] = proof.precision
    fields["mutation"] = proof.goldens.score
    fields["invariance"] = proof.certificate.invariance
    fields["files"] = {
        name: FileEntry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        for name, content in files.items()
    }
    if candidate.data is not None:
        fields["files"][MODEL_DATA] = FileEntry(sha256=candidate.data.sha256, bytes=candidate.data.size)
    fields["files"] = dict(sorted(fields["files"].items()))
    return Manifest.versioned(**fields)


def _json_lines(cases: Iterable[RequestCase | TokenCase]) -> bytes:
    return "".join(json.dumps(case.model_dump(), ensure_ascii=False) + "\n" for case in cases).encode()


def _write_folder(files: Mapping[str, bytes], data: DataFile | None, folder: Path, bundles: Path) -> None:
    """Write the folder under a temporary root, check it there, and rename it into place.

    The reader checks the names of the folders too, so they are the same under the temporary root.
    """
    root = bundles / f".{folder.parent.name}.{os.getpid()}"
    staging = root / folder.parent.name / folder.name
    shutil.rmtree(root, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        for name, content in files.items():
            _write_file(staging / name, content)
        if data is not None:
            # Moved, because a copy would take as much disk again; sessions of the candidate keep their mapping.
            shutil.move(data.path, staging / MODEL_DATA)
        _sync(staging)
        open_bundle(staging)
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging.rename(folder)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    _sync(folder.parent)


def _set_current(model_folder: Path, version: str) -> None:
    staging = model_folder / f".current.{os.getpid()}"
    _write_file(staging, f"{version}\n".encode())
    staging.rename(model_folder / "current")
    _sync(model_folder)


def _write_file(path: Path, content: bytes) -> None:
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
