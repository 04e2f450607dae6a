"""Golden cases of a graph from elsewhere: inputs and the outputs that are right for them.

Arrays have the graph's own names, or for inputs the names of the reader of the spec. A case of other sizes is a further
group of arrays, as in examples: `X.1`, `probabilities.1`; `0/in/X` and `0/out/probabilities`, as in the goldens of a
bundle, is the same.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.source import Array
from export.sources.examples import GROUP, MIN_ITEMS, TARGETS, read_arrays
from export.sources.onnx_file.graph import Value

_CASE = re.compile(r"(\d+)/(in|out)/(.+)")


@dataclass(frozen=True, kw_only=True)
class Golden:
    """One case: inputs, the expected outputs, and the targets of its items, if there are any."""

    number: int
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    targets: Array | None


@dataclass(frozen=True, kw_only=True)
class Goldens:
    """The cases of a file. `names` are those of its inputs, in order."""

    path: Path
    names: tuple[str, ...]
    cases: tuple[Golden, ...]


def read_goldens(
    path: Path | None, inputs: Sequence[str], reader: Mapping[str, bool], outputs: Sequence[Value]
) -> Goldens:
    """Read cases with the graph's `inputs` or the arrays of the `reader` (True if required), and outputs.

    Raises ValueError, one sentence that names the file, the array and the case.
    """
    if path is None:
        raise ValueError(
            "--golden is missing, a .safetensors or .npz file of inputs and of the outputs that are right for them, "
            "by the names of the graph, at two batch sizes at least"
        )
    known = [*inputs, *reader, *(output.name for output in outputs)]
    groups = _grouped(path, known)
    names = tuple(name for name in reader if name in groups[min(groups)])
    required = [name for name, is_required in reader.items() if is_required]
    if not names or not set(required) <= set(names):
        names = tuple(inputs)
    cases = [_case(path, number, arrays, names, outputs) for number, arrays in sorted(groups.items())]
    if any(set(case.outputs) != set(cases[0].outputs) for case in cases):
        raise ValueError(f"the cases of {path} have different outputs: {', '.join(cases[0].outputs)} in the first")
    return Goldens(path=path, names=names, cases=tuple(cases))


def check_count(goldens: Goldens, counts: Iterable[int], *, is_batched: bool = True) -> None:
    """Raise ValueError unless the cases hold enough items, in batches of two sizes. A count is the items of a case."""
    sizes = list(counts)
    if 0 in sizes:
        raise ValueError(f"{goldens.path} holds no items in case {goldens.cases[sizes.index(0)].number}")
    if sum(sizes) < MIN_ITEMS:
        raise ValueError(f"{goldens.path} holds {sum(sizes)} items, expected {MIN_ITEMS} or more that differ")
    if is_batched and len(set(sizes)) < 2:
        raise ValueError(
            f"{goldens.path}: the axis 'batch' has the size {sizes[0]} in every case; add a case of another batch size "
            f"as {goldens.names[0]}.{goldens.cases[-1].number + 1}, because an axis that is never exercised may be "
            "frozen in the graph"
        )


def _grouped(path: Path, known: Sequence[str]) -> dict[int, dict[str, Array]]:
    groups: dict[int, dict[str, Array]] = {}
    for key, array in read_arrays(path).items():
        name, number = key, 0
        if key not in known and (case := _CASE.fullmatch(key)):
            name, number = case[3], int(case[1])
        elif key not in known and (group := GROUP.fullmatch(key)):
            name, number = group[1], int(group[2])
        if name not in known and name not in TARGETS:
            raise ValueError(f"{path} holds {key!r}, expected inputs and outputs of the graph: {', '.join(known)}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            place = np.argwhere(~np.isfinite(array))[0].tolist()
            raise ValueError(f"{path}: {key!r} has a value that is not finite at {place}")
        groups.setdefault(number, {})[name] = array
    if not groups:
        raise ValueError(f"{path} holds no golden case")
    return groups


def _case(
    path: Path, number: int, arrays: Mapping[str, Array], names: Sequence[str], outputs: Sequence[Value]
) -> Golden:
    found = {output.name: arrays[output.name] for output in outputs if output.name in arrays}
    if absent := [name for name in names if name not in arrays]:
        raise ValueError(f"{path}: case {number} lacks the input {absent[0]!r}; it holds {', '.join(sorted(arrays))}")
    if not found:
        listed = ", ".join(output.name for output in outputs)
        raise ValueError(f"{path}: case {number} holds no output; expected one of {listed}")
    targets = next((arrays[name] for name in TARGETS if name in arrays and name not in {*names, *found}), None)
    return Golden(number=number, inputs={name: arrays[name] for name in names}, outputs=found, targets=targets)
