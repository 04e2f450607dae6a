"""One run folder to one bundle."""

from pathlib import Path

import torch

from export.candidate import draft
from export.graph import export_program, release
from export.prove import Report, prove
from export.write import write_bundle
from service.manifest import Manifest
from training.checkpoint import load_run


def export_run(folder: Path, bundles: Path, report: Report) -> Manifest:
    """Export, prove, write. Raises ExportError, or RunError where there is no finished run.

    Call it once in a process: torch.export keeps state, and a second export may differ from the first.
    """
    torch.set_num_threads(1)  # so that the measured differences, which the bundle holds, are the same each time
    report("load")
    run = load_run(folder)
    report("graph")
    candidate = draft(run, release(export_program(run)))
    proof = prove(candidate, report)
    report("bundle")
    return write_bundle(candidate, proof, bundles).manifest
