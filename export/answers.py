"""One way to ask all three: PyTorch in float32, PyTorch in float64 (the referee), and the served session.

A language model answers for the whole of its input whichever way it was fed: the session is driven chunk by chunk with
its cache, and what it gave is put together to the shape of one full forward pass. Steps beyond a row's length mean
nothing there and are zero on every side.

Shapes: B batch, T steps, P past steps, H heads, K head size, V vocabulary.
"""

import copy
from collections.abc import Callable, Mapping

import numpy as np
import torch

from export.cases import Array, Case
from export.decoder import CachedDecoder
from service.engine.sessions.session import Session
from service.families import LanguageModel, TensorSpec
from training.checkpoint import Run
from training.families import FAMILIES

Answer = Callable[[Case], dict[str, Array]]
SPARE = 3  # slots of a cache beyond the longest row's past: full of garbage, as are the unused slots of shorter rows


def by_torch(run: Run, *, double: bool = False) -> Answer:
    """The reference: the family's answer of the trained model, in eager PyTorch."""
    family = FAMILIES[run.recipe.family]
    model = copy.deepcopy(run.model).double() if double else run.model

    def answer(case: Case) -> dict[str, Array]:
        inputs = {name: torch.from_numpy(case.inputs[name]) for name in family.inputs}
        outputs = {name: tensor.numpy() for name, tensor in family.answer(model, inputs).items()}
        if case.chunks is not None:
            outputs |= _keys_and_values(CachedDecoder(model), inputs["ids"])
            _clear_beyond(outputs, case.inputs["lengths"])
        return outputs

    return answer


def by_session(session: Session) -> Answer:
    """What would be served."""

    def answer(case: Case) -> dict[str, Array]:
        return session.run(case.inputs) if case.chunks is None else _in_chunks(session, case)

    return answer


def _keys_and_values(decoder: CachedDecoder, ids_BT: torch.Tensor) -> dict[str, Array]:
    batch, dtype = len(ids_BT), decoder.model.head.weight.dtype
    num_layers = len(decoder.layers)
    nothing = torch.zeros(batch, decoder.num_heads, 0, decoder.head_size, dtype=dtype)
    with torch.no_grad():
        _, *new = decoder(ids_BT, torch.zeros(batch, dtype=torch.int64), *[nothing] * (2 * num_layers))
    names = [f"new_{part}_{layer}" for layer in range(num_layers) for part in ("key", "value")]
    return dict(zip(names, (tensor.numpy() for tensor in new), strict=True))


def _clear_beyond(outputs: Mapping[str, Array], lengths_B: Array) -> None:
    for name, array in outputs.items():
        for row, length in enumerate(lengths_B):
            if name == "logits":
                array[row, length:] = 0
            else:
                array[row, :, length:] = 0


def _in_chunks(session: Session, case: Case) -> dict[str, Array]:
    """Feed each stage's tokens of each row, padding tokens and unused cache slots being garbage."""
    ids_BT, parameters = case.inputs["ids"], session.manifest.parameters
    assert isinstance(parameters, LanguageModel)
    assert case.chunks is not None
    rng = np.random.default_rng(len(ids_BT))
    outputs = {spec.name: _empty(spec, ids_BT.shape) for spec in session.manifest.outputs}
    past_B = np.zeros(len(ids_BT), np.int64)
    for count_B in case.chunks:
        steps, width = int(count_B.max()), int(past_B.max()) + SPARE * bool(past_B.any())
        feed = {"ids": rng.integers(0, parameters.vocabulary, (len(ids_BT), steps)), "past_lengths": past_B}
        shape = (len(ids_BT), parameters.heads, width, parameters.head_size)
        for spec in session.manifest.inputs[2:]:
            feed[spec.name] = rng.normal(0, 30, shape).astype(np.float32)
        for row, (past, count) in enumerate(zip(past_B, count_B, strict=True)):
            feed["ids"][row, :count] = ids_BT[row, past : past + count]
            for spec in session.manifest.inputs[2:]:
                kept = outputs[spec.name.replace("past_", "new_")]
                feed[spec.name][row, :, :past] = kept[row, :, :past]
        for name, array in session.run(feed).items():
            for row, (past, count) in enumerate(zip(past_B, count_B, strict=True)):
                if name == "logits":
                    outputs[name][row, past : past + count] = array[row, :count]
                else:
                    outputs[name][row, :, past : past + count] = array[row, :, :count]
        past_B = past_B + count_B
    return outputs


def _empty(spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    sizes = dict(zip(("batch", "steps"), shape, strict=True))
    return np.zeros([sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape], spec.dtype)
