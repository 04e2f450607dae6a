"""An exported graph that has to prove itself: its run, its bytes, and the manifest that it would be served with.

Every gate takes a candidate and either returns what it measured or raises `ExportError`; nothing is written before the
last gate is passed.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import onnx
import onnxruntime
import torch
from pydantic import ValidationError

from export.interface import interface
from export.recurrent import OPSET
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


class ExportError(ValueError):
    """A model that must not be served. The message names the gate, the worst tensor, the case and the difference."""

    def __init__(self, gate: str, detail: str) -> None:
        super().__init__(f"{gate}: {detail}")
        self.gate = gate
        self.detail = detail


@dataclass(frozen=True, kw_only=True)
class Candidate:
    run: Run
    model: bytes
    manifest: Manifest  # without files, tolerances and invariance not measured yet

    @cached_property
    def session(self) -> Session:
        """The session that the service would make of it, on the CPU."""
        try:
            return Session(self.model, manifest=self.manifest, device="cpu")
        except BundleError as error:
            raise ExportError("structure", str(error)) from error

    def with_model(self, model: bytes) -> "Candidate":
        return replace(self, model=model)

    def with_invariance(self, invariance: Invariance) -> "Candidate":
        """Served with this strategy."""
        return replace(self, manifest=self.manifest.model_copy(update={"invariance": invariance}))


def file_names(run: Run) -> tuple[str, ...]:
    """The files that every bundle of such a run has, its card aside."""
    return (MODEL, GOLDEN, REQUESTS) if run.tokenizer is None else (MODEL, GOLDEN, REQUESTS, TOKENIZER)


def draft(run: Run, model: bytes) -> Candidate:
    """A candidate with all that is known before anything is measured. Raises ExportError where that is no manifest."""
    shape, recipe, checkpoint = interface(run), run.recipe, run.checkpoint
    versions = {"torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    try:
        manifest = Manifest.versioned(
            name=run.folder.resolve().name,
            task=FAMILIES[recipe.family].task,
            summary=recipe.summary,
            inputs=shape.inputs,
            outputs=shape.outputs,
            parameters=shape.parameters,
            limits=RequestLimits(max_items=recipe.max_items, max_steps=recipe.max_steps),
            tolerance={
                output.name: Tolerance(atol=recipe.tolerance.atol, rtol=recipe.tolerance.rtol, measured=0.0)
                for output in shape.outputs
            },
            invariance=Invariance(level="tolerance", measured=0.0, how="not measured yet"),
            files=dict.fromkeys(file_names(run), FileEntry(sha256="0" * 64, bytes=0)),  # export.write hashes them
            provenance=Provenance(
                recipe=recipe.name,
                commit=checkpoint.commit,
                seed=checkpoint.seed,
                steps=checkpoint.steps,
                data=checkpoint.data["sha256"],
                metrics=checkpoint.metrics,
                versions=checkpoint.versions | versions,
                opset=OPSET,
            ),
        )
    except ValidationError as error:
        raise ExportError("manifest", first_validation_error(error)) from error
    return Candidate(run=run, model=model, manifest=manifest)
