"""Inference of the Open Inference Protocol, however its messages travel: parsed tensors in, requested outputs out.

Invariant: the outputs are those that the request asks for, computed by the model that is given. A text gives the
outputs that the native routes compute for it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from service.contract.tensors import from_rows, to_rows
from service.engine.context import RequestContext
from service.engine.sessions.model import Model
from service.http.oip.classification import classify_rows
from service.http.route import ServiceState
from service.http.wire.oip_request import ParsedRequest
from service.tasks.body import check_items
from service.tasks.codecs.series import pad_rows
from service.tasks.codecs.texts import tokenize
from service.tasks.tensors import check_values, clear_padding

Array = npt.NDArray[Any]


async def infer(
    state: ServiceState, model: Model, parsed: ParsedRequest, tensors: Mapping[str, Array], context: RequestContext
) -> dict[str, Array]:
    """Return the requested outputs by name; raises EkibenError."""
    manifest = model.manifest
    if parsed.timeout_s:
        context.tighten_deadline(parsed.timeout_s)
    if parsed.reads_texts:
        tensors = await _read_texts(state, model, parsed, tensors, context)
    check_values(tensors, parsed.rules)
    if parsed.moves_batch_axis:
        tensors = {spec.name: to_rows(tensors[spec.name], spec) for spec in manifest.inputs}
    outputs = await state.runner.run(model.session, tensors, parsed.output_names, context=context)
    clear_padding(outputs, tensors, manifest)
    classes = {
        name: classify_rows(outputs[name], num_classes, name, manifest) for name, num_classes in parsed.classes.items()
    }
    if parsed.moves_batch_axis:
        outputs = {spec.name: from_rows(outputs[spec.name], spec) for spec in manifest.outputs if spec.name in outputs}
    return {**outputs, **classes} if classes else outputs


async def _read_texts(
    state: ServiceState, model: Model, parsed: ParsedRequest, tensors: Mapping[str, Array], context: RequestContext
) -> dict[str, Array]:
    """Return ids and lengths of the texts that the request holds in their place."""
    [(name, where, *_)] = parsed.tensors
    texts = tensors[name].tolist()
    check_items(texts, model.manifest, where)
    rows = await tokenize({f"{where}/data/{i}": text for i, text in enumerate(texts)}, model, state.runner, context)
    ids_BT, lengths_B = pad_rows(rows, np.int64)
    return {"ids": ids_BT, "lengths": lengths_B}
