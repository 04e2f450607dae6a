"""A candidate: an exported graph with its run and the manifest under which the service would serve it.

Every gate takes a candidate and either returns what it measured or raises `ExportError`. No file is written before the
last gate has passed.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import onnx
import onnxruntime
import torch
from pydantic import ValidationError

from export.errors import ExportError
from export.graph.interface import read_interface
from export.graph.recurrent import OPSET
from service.bundle import first_validation_error
from service.engine.sessions.session import Session
from service.errors import BundleError
from service.manifest import (
    GOLDEN,
    MODEL,
    REQUESTS,
    TOKENIZER,
    FileEntry,
    Invariance,
    Manifest,
    Provenance,
    RequestLimits,
    Tolerance,
)
from training.checkpoint import Run
from training.families import FAMILIES


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What the bundle would hold, and the run that it must equal.

    `model` holds the bytes of the graph, `tokenizer` the content of tokenizer.json, if any. `manifest` has placeholders
    for the files and for all measured values.
    """

    run: Run
    model: bytes
    manifest: Manifest
    tokenizer: str | None = None

    @cached_property
    def session(self) -> Session:
        """The service's own session for this model, on the CPU. Raises ExportError if the service rejects the model."""
        try:
            return Session(self.model, manifest=self.manifest, device="cpu")
        except BundleError as error:
            raise ExportError("structure", str(error)) from error

    def with_invariance(self, invariance: Invariance) -> "Candidate":
        """The candidate, served with this batching strategy."""
        return replace(self, manifest=self.manifest.model_copy(update={"invariance": invariance}))


def build_candidate(run: Run, model: bytes) -> Candidate:
    """The candidate before any measurement. Raises ExportError if the run's values make no valid manifest."""
    files = (MODEL, GOLDEN, REQUESTS, *(() if run.tokenizer is None else (TOKENIZER,)))
    interface, recipe, checkpoint = read_interface(run), run.recipe, run.checkpoint
    versions = {"torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    try:
        manifest = Manifest.versioned(
            name=run.folder.resolve().name,
            task=FAMILIES[recipe.family].task,
            summary=recipe.summary,
            inputs=interface.inputs,
            outputs=interface.outputs,
            parameters=interface.parameters,
            limits=RequestLimits(max_items=recipe.max_items, max_steps=recipe.max_steps),
            tolerance={
                output.name: Tolerance(atol=recipe.tolerance.atol, rtol=recipe.tolerance.rtol, measured=0.0)
                for output in interface.outputs
            },
            invariance=Invariance(level="tolerance", measured=0.0, how="not measured yet"),
            # The bundle writer replaces these hashes with those of the written files.
            files=dict.fromkeys(files, FileEntry(sha256="0" * 64, bytes=0)),
            control_flow=recipe.control_flow,
            provenance=Provenance(
                recipe=recipe.name,
                commit=checkpoint.commit,
                seed=checkpoint.seed,
                steps=checkpoint.steps,
                dataset=checkpoint.data["name"],
                data=checkpoint.data["sha256"],
                metrics=checkpoint.metrics,
                versions=checkpoint.versions | versions,
                opset=OPSET,
            ),
        )
    except ValidationError as error:
        raise ExportError("manifest", first_validation_error(error)) from error
    return Candidate(run=run, model=model, manifest=manifest, tokenizer=run.tokenizer)
