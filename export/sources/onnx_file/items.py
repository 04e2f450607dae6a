"""The inputs of golden cases as the items of a source."""

from collections.abc import Iterator, Sequence

import numpy as np

from export.source import Array
from export.sources.examples import Examples
from export.sources.onnx_file.goldens import Goldens
from export.sources.payload import Payload, make_payload
from export.sources.trials import take_items
from export.spec import Spec, TensorsPart
from service.contract.tensors import TensorSpec, to_rows


def payload_of(spec: Spec, goldens: Goldens) -> Payload:
    """The cases as rows, with their targets if every case has them. Raises ValueError, one sentence."""
    targets = tuple(case.targets for case in goldens.cases if case.targets is not None)
    groups = tuple(_rows(spec, case.inputs) for case in goldens.cases)
    for case, group in zip(goldens.cases, groups, strict=True):
        counts = {name: len(array) for name, array in group.items()}
        if case.targets is not None:
            counts["targets"] = len(case.targets)
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{count} {name}" for name, count in counts.items())
            raise ValueError(f"{goldens.path} holds {listed} in case {case.number}; expected one for each item")
    complete = targets if len(targets) == len(goldens.cases) else ()
    return make_payload(spec, Examples(path=goldens.path, groups=groups, targets=complete))


def case_rows(payload: Payload, counts: Sequence[int]) -> Iterator[dict[str, Array]]:
    """The canonical rows of each case, which has this many items."""
    first = 0
    for count in counts:
        yield take_items(payload, np.arange(first, first + count))[1]
        first += count


def _rows(spec: Spec, arrays: dict[str, Array]) -> dict[str, Array]:
    if not isinstance(spec.reader, TensorsPart):
        return arrays
    parts = {part.name: part for part in spec.reader.inputs}
    return {
        name: to_rows(_as_objects(array), TensorSpec(name=name, dtype=parts[name].dtype, shape=parts[name].shape))
        for name, array in arrays.items()
    }


def _as_objects(array: Array) -> Array:
    """Texts as the engine holds them; other arrays as they are."""
    return array.astype(object) if array.dtype.kind == "U" else array
