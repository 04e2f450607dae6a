"""`python -m export module`: any torch.nn.Module with a file of weights, or a .pt2 file, as a source.

The module's factory is imported from the current folder and called with the keywords of [factory] in the spec. The
adapted module (export.sources.module.adapter) is both the reference and what is traced.
"""

import hashlib
import re
import warnings
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from export.graph.recurrent import OPSET
from export.source import Array, Predict, Source
from export.sources.float64 import float64_twin
from export.sources.measure import check_scores, measure
from export.sources.module.adapter import Adapter, run_adapter, to_tensors
from export.sources.module.declared import declare_outputs
from export.sources.module.factory import Made, make_module, read_pt2
from export.sources.module.inputs import build_input
from export.sources.module.outputs import build_output
from export.sources.module.weights_file import load_weights
from export.sources.payload import Payload, read_payload
from export.sources.registry import Loaded
from export.sources.run import exporter_versions
from export.sources.trials import take_items
from export.spec import Spec, parse_spec, read_spec
from service.contract.readers import SeriesReader
from service.contract.tensors import Specs, to_rows
from service.manifest import MAX_MODEL_NAME, Provenance

PT2 = ".pt2"
ANY_TENSORS = {"reader": {"kind": "tensors"}, "head": {"kind": "tensors"}}


def load(options: Namespace) -> Loaded:
    """The source of a module. Raises ValueError, one sentence with the way out."""
    spec = _read_spec(options)
    made = _read_module(options, spec)
    payload = read_payload(spec, options.examples)
    adapter = adapt(made, spec, payload)
    head, outputs = declare_outputs(spec, adapter, payload)
    predict = predictor(adapter, outputs)
    check_scores(head, payload, predict)
    return Loaded(
        source=Source(
            name=options.name or spec.name or bundle_name(options.weights or Path(options.model)),
            summary=spec.summary or f"The module {options.model}",
            reader=payload.reader,
            head=head,
            inputs=payload.inputs,
            outputs=outputs,
            limits=payload.limits,
            examples=payload.split,
            predict=predict,
            predict_float64=float64_predictor(adapter, outputs, payload),
            module=adapter,
            provenance=Provenance(
                recipe="module",
                commit="",
                seed=0,
                steps=0,
                dataset=spec.dataset or options.examples.name,
                data=hashes(options.weights, made.source_file, options.examples, options.spec),
                metrics=measure(head, payload, predict),
                versions=exporter_versions(),
                opset=OPSET,
            ),
            note=spec.note
            or f"The {len(payload.split)} examples with which export compared the module `{options.model}`.",
            atol=spec.tolerance.atol,
            rtol=spec.tolerance.rtol,
            invariance=spec.invariance,
            control_flow=spec.control_flow,
            tokenizer=payload.tokenizer,
        )
    )


def adapt(made: Made, spec: Spec, payload: Payload) -> Adapter:
    """The module between the canonical tensors. Raises ValueError if its parameters are not what the reader gives."""
    names = [tensor.name for tensor in payload.inputs]
    reader = build_input(spec, made.parameters, names)
    has_state = isinstance(payload.reader, SeriesReader) and payload.reader.state is not None
    adapter = Adapter(
        made.module,
        reader,
        build_output(spec),
        inputs=payload.inputs,
        output=getattr(spec.head, "output", None),
        has_state=has_state,
        by_position=made.by_position or made.parameters is None,
    )
    given = reader_names(adapter, payload)
    if absent := [name for name in made.required if name not in given]:
        raise ValueError(
            f"forward needs {absent[0]!r}, which the reader {payload.reader.kind} does not give; it gives "
            f"{', '.join(given)} (the keys of [reader] name the model's own parameters)"
        )
    return adapter.eval()


def reader_names(adapter: Adapter, payload: Payload) -> list[str]:
    """The names of the arguments that the reader makes, in order."""
    _, inputs = take_items(payload, np.arange(1))
    with torch.no_grad():
        return list(adapter.reader(*to_tensors(adapter, inputs)))


def bundle_name(path: Path) -> str:
    """A name for a bundle, made of the name of a file or of a factory."""
    name = re.sub("[^a-z0-9]+", "-", re.split("[.:]", path.name)[0].lower()).strip("-")
    return name[:MAX_MODEL_NAME].strip("-") or "model"


def _read_spec(options: Namespace) -> Spec:
    if options.spec is not None:
        return read_spec(options.spec)
    if options.model.endswith(PT2):
        return parse_spec(ANY_TENSORS, Path("spec.toml"))
    raise ValueError(
        "--spec is missing, the file that says what the model reads and answers; "
        f"`python -m export inspect {options.weights or options.examples} --output spec.toml` writes a first one"
    )


def _read_module(options: Namespace, spec: Spec) -> Made:
    if options.model.endswith(PT2):
        if options.weights is not None:
            raise ValueError(f"{options.model} has weights of its own; leave --weights away")
        return read_pt2(Path(options.model))
    made = make_module(options.model, spec.factory)
    if options.weights is None:
        raise ValueError("--weights is missing: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')")
    load_weights(made.module, options.weights)
    return made


def predictor(adapter: Adapter, outputs: Specs, dtype: torch.dtype | None = None) -> Predict:
    """What the adapter answers, as rows."""

    def predict(inputs: Mapping[str, Array]) -> dict[str, Array]:
        answer = run_adapter(adapter, inputs, dtype)
        return {spec.name: to_rows(answer[spec.name], spec) for spec in outputs}

    return predict


def float64_predictor(adapter: Adapter, outputs: Specs, payload: Payload) -> Predict | None:
    """The same in float64; None for a module that fixes the type of its numbers somewhere."""
    try:
        with warnings.catch_warnings():
            # The copy of a program of torch.export uses deprecated parts of torch.
            warnings.simplefilter("ignore", FutureWarning)
            exact = float64_twin(adapter)
        predict = predictor(exact, outputs, torch.float64)
        predict(take_items(payload, np.arange(1))[1])
    # A foreign module may raise anything.
    except Exception:  # noqa: BLE001
        return None
    return predict


def hashes(*paths: Path | None) -> dict[str, str]:
    return {path.name: _hash(path) for path in paths if path is not None}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
