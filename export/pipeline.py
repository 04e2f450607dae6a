"""The export pipeline: load one run or model, export its graph, prove the graph, write the bundle."""

import gc
import hashlib
import os
import shutil
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from export.bundle.writer import write_bundle
from export.candidate import Candidate, build_candidate
from export.errors import ExportError
from export.gates.precision import with_measured_tolerance
from export.gates.proof import ReportStage, prove
from export.graph.data_file import move_weights, share_parameters
from export.graph.exporter import export_program, strip_metadata
from export.precision.variant import variant_of
from export.source import Source
from export.sources.registry import load
from export.sources.run import run_source
from service.bundle import Bundle, open_bundle
from service.contract.precision import PrecisionName
from service.data_files.data_file import DataFile
from service.errors import BundleError
from service.manifest import MODEL, Manifest
from training.checkpoint import load_run


def export_run(folder: Path, bundles: Path, report: ReportStage, *, precision: PrecisionName | None = None) -> Manifest:
    """Export the run in `folder` and return the manifest of its bundle, or of its variant in another precision.

    Raises ExportError if a gate refuses the model, RunError if `folder` holds no finished run. Call it once per
    process: torch.export keeps state, and a second export may differ from the first.
    """
    report("load")
    return export_source(run_source(load_run(folder)), bundles, report, precision=precision)


def export_model(
    command: str, options: Namespace, bundles: Path, report: ReportStage, *, precision: PrecisionName | None = None
) -> Manifest:
    """Export the model of a way in of export.sources.registry and return the manifest of its bundle.

    Raises ValueError, one sentence, if the model cannot come in or a gate refuses it.
    """
    report("load")
    loaded = load(command, options)
    return export_source(loaded.source, bundles, report, loaded.graph, precision=precision)


def export_source(
    source: Source,
    bundles: Path,
    report: ReportStage,
    model: bytes | None = None,
    *,
    precision: PrecisionName | None = None,
) -> Manifest:
    """Prove the source's graph and write its bundle; `model` is the graph of a source without a module.

    With a `precision`, its variant is written, and the bundle in float32 too unless it is there already. Raises
    ExportError if a gate refuses the model.
    """
    # The bundle records measured differences, and their last bits depend on the number of threads.
    torch.set_num_threads(1)
    report("graph")
    with _work_folder(bundles, source.name) as folder:
        candidate = _candidate(source, folder) if model is None else build_candidate(source, model)
        if precision is None:
            return _prove_and_write(candidate, bundles, report)
        if candidate.data is not None:
            raise ExportError(
                "precision", f"{source.name} has its weights in a data file; a variant has at most 512 MiB of float32"
            )
        parent = find_parent(candidate, bundles) or _prove_and_write(candidate, bundles, report)
        report("precision")
        variant = build_candidate(*variant_of(source, candidate.model, precision, parent))
        return _prove_and_write(with_measured_tolerance(variant), bundles, report)


def _prove_and_write(candidate: Candidate, bundles: Path, report: ReportStage) -> Manifest:
    proof = prove(candidate, report)
    report("bundle")
    return write_bundle(candidate, proof, bundles).manifest


def find_parent(candidate: Candidate, bundles: Path) -> Manifest | None:
    """The manifest of a complete bundle with the graph and the contract of a candidate; None if there is none."""
    folder = bundles / candidate.manifest.name
    versions = sorted(path.parent for path in folder.glob("*/manifest.json"))
    found = [bundle for version in versions if (bundle := _readable(version)) is not None]
    digest, contract = hashlib.sha256(candidate.model).hexdigest(), _contract(candidate.manifest)
    return next(
        (
            bundle.manifest
            for bundle in found
            if bundle.manifest.files[MODEL].sha256 == digest and _contract(bundle.manifest) == contract
        ),
        None,
    )


def _readable(folder: Path) -> Bundle | None:
    try:
        return open_bundle(folder, require_signature=False)
    except BundleError:
        return None


def _contract(manifest: Manifest) -> tuple[object, ...]:
    return manifest.reader, manifest.head, manifest.inputs, manifest.outputs, manifest.limits


def _candidate(source: Source, folder: Path) -> Candidate:
    """The candidate of a traced module; a large graph has its weights in a file in the folder."""
    model, data = _export_graph(source, folder)
    if data is not None and source.module is not None:
        # The program of PyTorch refers to the weights too, and is only freed with its cycles.
        gc.collect()
        # PyTorch and onnxruntime then read one copy of the weights, whose bits were compared.
        share_parameters(source.module, model, data)
    return build_candidate(source, model, data)


def _export_graph(source: Source, folder: Path) -> tuple[bytes, DataFile | None]:
    program = export_program(source)
    data = move_weights(program.model, folder)
    return strip_metadata(program, data), data


@contextmanager
def _work_folder(bundles: Path, name: str) -> Iterator[Path]:
    """A folder on the file system of the bundles, removed at the end; it is made when a file is put there."""
    folder = bundles / f".{name}.work.{os.getpid()}"
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
