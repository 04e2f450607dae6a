"""The source of a model that a spec describes, whichever way it came in."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from export.source import Predict, Source
from export.sources.payload import Payload
from export.spec import Spec
from service.contract.heads import Head
from service.contract.tensors import Specs
from service.manifest import MAX_MODEL_NAME, RESERVED_NAMES, Provenance


def spec_source(
    spec: Spec,
    payload: Payload,
    *,
    name: str,
    summary: str,
    note: str,
    recipe: str,
    reference: str,
    dataset: str,
    files: Sequence[Path | None],
    head: Head,
    outputs: Specs,
    predict: Predict,
    predict_float64: Predict | None,
    module: nn.Module | None,
    metrics: Mapping[str, float],
    versions: Mapping[str, str],
    opset: int,
) -> Source:
    """The model with the limits, tolerances and items of the spec. `summary` and `note` hold where the spec has none.

    `files` are those that determine the model, for the provenance; None stands for one that was not given.
    """
    return Source(
        name=name,
        summary=spec.summary or summary,
        reader=payload.reader,
        head=head,
        inputs=payload.inputs,
        outputs=outputs,
        limits=payload.limits,
        examples=payload.split,
        predict=predict,
        predict_float64=predict_float64,
        module=module,
        provenance=Provenance(
            recipe=recipe,
            reference=reference,
            commit="",
            seed=0,
            steps=0,
            dataset=dataset,
            data={path.name: _sha256(path) for path in files if path is not None},
            metrics=dict(metrics),
            versions=dict(versions),
            opset=opset,
        ),
        note=note,
        atol=spec.tolerance.atol,
        rtol=spec.tolerance.rtol,
        invariance=spec.invariance,
        control_flow=spec.control_flow,
        tokenizer=payload.tokenizer,
    )


def bundle_name(path: Path) -> str:
    """A name for a bundle, made of the name of a file or of a factory."""
    name = re.sub("[^a-z0-9]+", "-", re.split("[.:]", path.name)[0].lower()).strip("-")
    name = name[:MAX_MODEL_NAME].strip("-") or "model"
    return f"{name}-model" if name in RESERVED_NAMES else name


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
