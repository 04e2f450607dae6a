"""The reference's outputs for the inputs of a golden case, and how precise float32 is on them.

Golden values are those of the model in float64, rounded to the type of the output. The float32 model differs from them
by rounding errors, and so does every correct graph: by a small multiple, whichever processor computes it. Where the
reference has no float64, golden values are those of its float32, and the error is that of the graph.

Shapes: B batch, S new steps, T tokens.
"""

from collections.abc import Sequence

import numpy as np

from export.candidate import Candidate
from export.gates.backends import Backend, reference_backend
from export.gates.cases import Array, Case
from service.bundle import GoldenCase, Tensors
from service.engine.verification.golden_inputs import PROMPTED, complete_inputs
from service.engine.verification.parity import relative_error

MAX_ROUNDING_SHARE = 0.25


def reference_cases(
    candidate: Candidate, batches: tuple[Tensors, ...]
) -> tuple[tuple[GoldenCase, ...], dict[str, float]]:
    """The batches with the outputs of the reference, and each float output's largest rounding error in float32.

    The error is relative to the largest magnitude of its row.
    """
    torch32, torch64 = reference_backend(candidate.source), reference_backend(candidate.source, float64=True)
    rounding: dict[str, float] = {}
    cases = []
    for batch in batches:
        single, exact = _outputs(torch32, batch), _outputs(torch64, batch)
        rows = _stable_rows(candidate, single, exact)
        inputs, single, exact = (
            {name: array[rows] for name, array in tensors.items()} for tensors in (batch, single, exact)
        )
        if not rows.any():
            continue
        for name, value in single.items():
            if value.dtype.kind == "f":
                exact[name] = exact[name].astype(value.dtype)
                rounding[name] = max(rounding.get(name, 0.0), relative_error(exact[name], value))
            else:
                exact[name] = value
        cases.append(GoldenCase(inputs=inputs, outputs=exact))
    return tuple(cases), rounding


def _stable_rows(candidate: Candidate, single: Tensors, exact: Tensors) -> Array:
    """The rows on which float32 in the reference uses at most a quarter of the tolerance.

    A long series may amplify rounding errors until they hide any mutant.
    """
    rows = np.ones(len(next(iter(single.values()))), bool)
    for name, value in single.items():
        if value.dtype.kind == "f":
            tolerance = candidate.manifest.tolerance[name]
            allowed = MAX_ROUNDING_SHARE * (tolerance.atol + tolerance.rtol * np.abs(exact[name]))
            rows &= (np.abs(value - exact[name]) <= allowed).reshape(len(value), -1).all(1)
    return rows


def rounding_of_graph(candidate: Candidate, cases: Sequence[GoldenCase]) -> dict[str, float]:
    """The largest difference of each float output of the graph, relative to the largest magnitude of its row."""
    rounding: dict[str, float] = {}
    for case in cases:
        outputs = candidate.session.run(complete_inputs(candidate.session, case.inputs), tuple(case.outputs))
        for name, expected in case.outputs.items():
            if expected.dtype.kind == "f" and expected.shape == outputs[name].shape:
                rounding[name] = max(rounding.get(name, 0.0), relative_error(expected, outputs[name]))
    return rounding


def _outputs(backend: Backend, inputs: Tensors) -> dict[str, Array]:
    if set(inputs) != PROMPTED:
        return backend(Case(name="golden", inputs=inputs))
    ids_BT, past_B = inputs["ids"], inputs["past_lengths"]
    lengths = np.full(len(ids_BT), ids_BT.shape[1])
    case = Case(name="golden", inputs={"ids": ids_BT, "lengths": lengths})
    num_steps = ids_BT.shape[1] - int(past_B.max())
    logits = backend(case)["logits"]
    return {
        "logits": np.stack([row[past : past + num_steps] for row, past in zip(logits, past_B.tolist(), strict=True)])
    }
