"""`python -m export module`: any torch.nn.Module with a file of weights, or a .pt2 file, as a source.

The module's factory is imported from the current folder and called with the keywords of [factory] in the spec. The
adapted module (export.sources.module.adapter) is both the reference and what is traced.
"""

import warnings
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from export.graph.recurrent import OPSET
from export.source import Array, Predict
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
from export.sources.spec_source import bundle_name, spec_source
from export.sources.trials import check_padding, check_sizes, take_items
from export.spec import Spec, parse_spec, read_spec
from service.contract.readers import SeriesReader
from service.contract.tensors import Specs, to_rows

PT2 = ".pt2"
PYTORCH = "PyTorch"
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
    check_sizes(payload, outputs, predict)
    check_padding(payload, outputs, predict)
    source = spec_source(
        spec,
        payload,
        name=options.name or spec.name or bundle_name(options.weights or Path(options.model)),
        summary=f"The module {options.model}",
        note=spec.note or f"The {len(payload.split)} examples with which export compared the module `{options.model}`.",
        recipe="module",
        reference=PYTORCH,
        dataset=spec.dataset or options.examples.name,
        files=(options.weights, made.source_file, options.examples, options.spec),
        head=head,
        outputs=outputs,
        predict=predict,
        predict_float64=float64_predictor(adapter, outputs, payload),
        module=adapter,
        metrics=measure(head, payload, predict),
        versions=exporter_versions(),
        opset=OPSET,
    )
    return Loaded(source=source)


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
