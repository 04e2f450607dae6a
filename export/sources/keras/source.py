"""`python -m export keras`: a saved Keras 3 model as a source.

The graph is traced from the model's PyTorch twin (export.sources.keras.twin), the reference is Keras itself. Without a
spec.toml the model says itself what it reads and answers, as far as it can (export.sources.keras.first_spec).
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

from export.errors import ExportError
from export.graph.recurrent import OPSET
from export.sources.keras.first_spec import draft_spec
from export.sources.keras.layers.values import STAGE
from export.sources.keras.loading import load_model
from export.sources.keras.module import ReferenceModule, TwinModule, read_interface
from export.sources.keras.states import StatefulLayer, find_states
from export.sources.keras.twin import build_twin
from export.sources.measure import check_scores, measure
from export.sources.module.declared import declare_outputs
from export.sources.module.factory import Made
from export.sources.module.source import adapt, float64_predictor, predictor
from export.sources.payload import read_payload
from export.sources.registry import Loaded
from export.sources.run import exporter_versions
from export.sources.spec_source import bundle_name, spec_source
from export.sources.trials import check_sizes
from export.spec import SeriesPart, Spec, TextPart, parse_spec, read_spec
from training.keras_models.backend import import_keras

REFERENCE = "Keras"


def load(options: Namespace) -> Loaded:
    """The source of a .keras file. Raises ValueError, one sentence with the way out."""
    # The reference computes while the model is read; its last bits depend on the number of threads.
    torch.set_num_threads(1)
    path: Path = options.model
    model = load_model(path)
    states = find_states(model)
    spec = (
        read_spec(options.spec) if options.spec else parse_spec(draft_spec(model, states), path.with_name("spec.toml"))
    )
    has_series = isinstance(spec.reader, SeriesPart | TextPart)
    states = _checked_states(spec, states)
    interface = read_interface(model, has_series=has_series, states=states)
    twin = TwinModule(build_twin(model, series=interface.series), interface)
    payload = read_payload(spec, options.examples)
    adapter, reference = (
        adapt(Made(module=module, parameters=interface.parameters, required=interface.parameters), spec, payload)
        for module in (twin, ReferenceModule(model, interface))
    )
    head, outputs = declare_outputs(spec, adapter, payload)
    reference.outputs = adapter.outputs
    predict = predictor(reference, outputs)
    check_scores(head, payload, predict)
    check_sizes(payload, outputs, predict)
    source = spec_source(
        spec,
        payload,
        name=options.name or spec.name or bundle_name(path),
        summary=f"The Keras model {path.name}",
        note=spec.note
        or f"The {len(payload.split)} examples with which export compared the Keras model `{path.name}`.",
        recipe="keras",
        reference=REFERENCE,
        dataset=spec.dataset or options.examples.name,
        files=(path, options.examples, options.spec),
        head=head,
        outputs=outputs,
        predict=predict,
        predict_float64=float64_predictor(adapter, outputs, payload),
        module=adapter,
        metrics=measure(head, payload, predict),
        versions=exporter_versions() | {"keras": import_keras().__version__},
        opset=OPSET,
    )
    return Loaded(source=source)


def _checked_states(spec: Spec, states: tuple[StatefulLayer, ...]) -> tuple[StatefulLayer, ...]:
    """The stateful layers, if the spec's reader carries a state. Raises ExportError if it is another one."""
    state: Any = getattr(spec.reader, "state", None)
    if state is None:
        return ()
    found = (len(states), states[0].hidden if states else 0)
    if found != (state.layers, state.hidden):
        raise ExportError(
            STAGE,
            f"[reader] state has {state.layers} layers of size {state.hidden}, the model carries {found[0]} of size "
            f"{found[1]}; a model carries a state that its LSTM layers take as initial_state and give as outputs",
        )
    return states
