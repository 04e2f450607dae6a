"""A candidate: an exported graph with its source and the manifest under which the service would serve it.

Every gate takes a candidate and either returns what it measured or raises `ExportError`. No file is written before the
last gate has passed.
"""

from dataclasses import dataclass, replace
from functools import cached_property

from pydantic import ValidationError

from export.errors import ExportError
from export.source import Array, Source
from service.bundle import first_validation_error
from service.data_files.data_file import DataFile
from service.data_files.external import external_tensors
from service.engine.sessions.session import Session
from service.errors import BundleError
from service.manifest import (
    GOLDEN,
    MODEL,
    MODEL_DATA,
    REQUESTS,
    TOKENIZER,
    FileEntry,
    Invariance,
    Manifest,
    Tolerance,
)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What the bundle would hold, and the source that it must equal.

    `model` holds the bytes of the graph, `data` the weights of a large one, `tokenizer` the content of tokenizer.json,
    if any. `manifest` has placeholders for the files and for all measured values.
    """

    source: Source
    model: bytes
    manifest: Manifest
    tokenizer: str | None = None
    data: DataFile | None = None

    @property
    def model_bytes(self) -> int:
        """The size of the graph and its weights."""
        return len(self.model) + (0 if self.data is None else self.data.size)

    @property
    def data_files(self) -> dict[str, int]:
        """The names and sizes of the files that hold weights beside the graph."""
        return {} if self.data is None else {MODEL_DATA: self.data.size}

    def external_values(self) -> dict[str, Array]:
        """The initializers in the data file by name, as views of the mapping."""
        data = self.data
        return {} if data is None else {tensor.name: data.values(tensor) for tensor in external_tensors(self.model)}

    @cached_property
    def session(self) -> Session:
        """The service's own session for this model, on the CPU. Raises ExportError if the service rejects the model.

        The activations of a model from elsewhere may be large, so they are freed after each run.
        """
        keep_memory = self.source.run is not None
        try:
            return Session(self.model, manifest=self.manifest, device="cpu", data=self.data, keep_memory=keep_memory)
        except BundleError as error:
            raise ExportError("structure", str(error)) from error

    def with_invariance(self, invariance: Invariance) -> "Candidate":
        """The candidate, served with this batching strategy."""
        return replace(self, manifest=self.manifest.model_copy(update={"invariance": invariance}))


def build_candidate(source: Source, model: bytes, data: DataFile | None = None) -> Candidate:
    """The candidate before any measurement. Raises ExportError if the source's values make no valid manifest."""
    others = {TOKENIZER: source.tokenizer, MODEL_DATA: data}
    files = (MODEL, GOLDEN, REQUESTS, *(name for name, content in others.items() if content is not None))
    try:
        manifest = Manifest.versioned(
            name=source.name,
            summary=source.summary,
            reader=source.reader,
            head=source.head,
            inputs=source.inputs,
            outputs=source.outputs,
            limits=source.limits,
            tolerance={
                output.name: Tolerance(
                    atol=source.atol_by_output.get(output.name, source.atol), rtol=source.rtol, measured=0.0
                )
                for output in source.outputs
            },
            invariance=Invariance(level="tolerance", measured=0.0, how="not measured yet"),
            # The bundle writer replaces these hashes with those of the written files.
            files=dict.fromkeys(files, FileEntry(sha256="0" * 64, bytes=0)),
            control_flow=source.control_flow,
            precision=source.precision,
            provenance=source.provenance,
        )
    except ValidationError as error:
        raise ExportError("manifest", first_validation_error(error)) from error
    return Candidate(source=source, model=model, manifest=manifest, tokenizer=source.tokenizer, data=data)
