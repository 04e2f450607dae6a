"""Check that the golden cases of a bundle can tell its graph from another one.

Goldens prove little if they are few, or if all of them are alike: after one black picture, the weights of all pixels
may be exchanged. The check therefore requires rows with different outputs and inputs that vary in every element. It
then shuffles the weights of a copy of the graph, one tensor at a time along one axis,
and requires that golden rows notice it. A shuffle that random inputs do not notice either has no consequence and is
passed over. The graphs that are made have a bounded number of bytes in total, so large models are sampled.
"""

import zlib
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from service.bundle import Bundle, GoldenCase, Tensors
from service.contract.heads import LanguageModelHead
from service.contract.readers import TextReader
from service.contract.tensors import FLOATS, TensorSpec
from service.engine.sessions.session import Session
from service.engine.verification.golden_inputs import complete_inputs
from service.engine.verification.initializers import replace_values, stored_tensors, tensor_values
from service.engine.verification.parity import row_ratios
from service.errors import BundleError
from service.manifest import Manifest
from service.onnx_wire import TensorInfo

MIN_ROWS, MIN_NOTICES = 3, 2
# Rows count as different if their outputs differ by this share of the largest output; an element of an input varies if
# its values differ by this share of the range of the input.
MIN_DIFFERENCE = 0.01
MIN_ELEMENTS = 8
MAX_SHUFFLED_BYTES = 12 << 20
MIN_SHUFFLES = 4
SLICE_ELEMENTS = 1 << 20
PROBE_ROWS, PROBE_STEPS = 8, 6


def check_golden_strength(session: Session, bundle: Bundle) -> None:
    """Raise BundleError unless the goldens have enough rows and notice shuffled weights. Runs on the CPU."""
    manifest = bundle.manifest
    label = f"{manifest.name}/{manifest.version}: too few, too weak goldens"
    if (num_rows := _num_distinct_rows(bundle)) < MIN_ROWS:
        raise BundleError(
            f"{label}: {num_rows} rows that are not blank and have different outputs, expected at least {MIN_ROWS}"
        )
    for name, index in _constant_elements(bundle):
        raise BundleError(f"{label}: input {name!r} hardly varies at {index}")
    for tensor, axis, values in _shuffles(bundle):
        model, data = replace_values(bundle.model, bundle.data, tensor, values)
        shuffled = Session(model, manifest=manifest, device="cpu", data=data)
        if _notices(shuffled, bundle.golden):
            continue
        if _is_consequential(session, shuffled):
            raise BundleError(
                f"{label}: fewer than {MIN_NOTICES} rows notice that tensor {tensor.name!r} {list(tensor.dims)} "
                f"is shuffled along axis {axis}"
            )


def _num_distinct_rows(bundle: Bundle) -> int:
    """Count rows with different outputs, up to MIN_ROWS.

    A blank picture, a series of one value or one repeated token does not count.
    """
    items, name = bundle.manifest.inputs[0].name, bundle.manifest.outputs[0].name
    outputs = [
        _final_output(case, case.outputs[name], row)
        for case in bundle.golden
        if name in case.outputs
        for row, item in enumerate(case.inputs[items])
        if item.size == 1 or (item != item.flat[0]).any()
    ]
    min_distance = MIN_DIFFERENCE * max((np.abs(output).max(initial=0) for output in outputs), default=0)
    distinct: list[npt.NDArray[np.float64]] = []
    for output in outputs:
        if all(_distance(output, other) > min_distance for other in distinct):
            distinct.append(output)
        if len(distinct) == MIN_ROWS:
            break
    return len(distinct)


def _distance(output: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Return the largest difference of two outputs, which is infinite if they have different sizes."""
    return float(np.abs(output - other).max(initial=0)) if output.shape == other.shape else np.inf


def _final_output(case: GoldenCase, output: npt.NDArray[Any], row: int) -> npt.NDArray[np.float64]:
    """Return the output of a row as numbers, at its last step if it has one for each step."""
    is_text = output.dtype.hasobject
    values = np.vectorize(_text_number, [float])(output[row]) if is_text else output[row].astype(np.float64)
    has_steps = values.ndim == 2 and not {"lengths", "ids"}.isdisjoint(case.inputs)
    if not has_steps:
        return values.ravel()
    final: npt.NDArray[np.float64] = values[int(case.inputs["lengths"][row]) - 1 if "lengths" in case.inputs else -1]
    return final


def _text_number(text: str) -> float:
    return float(zlib.crc32(text.encode()))


def _constant_elements(bundle: Bundle) -> Iterator[tuple[str, list[int]]]:
    """Yield elements (pixels, channels, columns, latents) that hardly vary over the steps of all rows.

    Columns and the elements of other tensors have scales of their own, so each only has to vary. The elements of an
    input of free size have no rows in common.
    """
    manifest = bundle.manifest
    if isinstance(manifest.head, LanguageModelHead):
        return
    has_one_scale = manifest.reader.kind in {"image", "series"} or manifest.task == "generate"
    for spec in manifest.inputs:
        is_free = any(isinstance(axis, str) and axis != "steps" for axis in spec.row_shape)
        if is_free or (spec.dtype not in FLOATS and manifest.reader.kind != "image"):
            continue
        rows = [
            row[: case.inputs["lengths"][i]] if "steps" in spec.shape else row[None]
            for case in bundle.golden
            for i, row in enumerate(case.inputs[spec.name])
        ]
        steps = np.concatenate(rows).astype(np.float64)
        ranges = np.ptp(steps, axis=0)
        if (ranges <= (MIN_DIFFERENCE * np.ptp(steps) if has_one_scale else 0)).any():
            yield spec.name, [int(i) for i in np.unravel_index(int(ranges.argmin()), ranges.shape)]


def _shuffles(bundle: Bundle) -> Iterator[tuple[TensorInfo, int, npt.NDArray[np.float32]]]:
    """Yield tensors with shuffled values, the largest tensors first, the last axis before the first."""
    largest = sorted(stored_tensors(bundle.model, "float32"), key=lambda tensor: -tensor.size)
    left = max(MIN_SHUFFLES, MAX_SHUFFLED_BYTES // bundle.model_bytes)
    rng = np.random.default_rng(0)
    for tensor in largest:
        values = tensor_values(bundle.model, tensor, bundle.data)
        matrix = values.reshape(next((size for size in tensor.dims if size > 1), 1), -1)
        for axis in (1, 0):
            cycle = rng.permutation(matrix.shape[axis])
            order = np.roll(cycle, 1)[np.argsort(cycle)]  # each index takes the place of the next in the cycle
            shuffled = matrix.take(order, axis=axis).reshape(tensor.dims)
            if values.size >= MIN_ELEMENTS and np.isfinite(values).all() and _differ(shuffled, values):
                yield tensor, axis, shuffled
                left -= 1
                if not left:
                    return


def _differ(shuffled: npt.NDArray[Any], values: npt.NDArray[Any]) -> bool:
    """Return whether some values differ by more than rounding. Compares slices, because a tensor may be large."""
    one, other = shuffled.reshape(-1), values.reshape(-1)
    starts = range(0, len(one), SLICE_ELEMENTS)
    return not all(np.allclose(one[i : i + SLICE_ELEMENTS], other[i : i + SLICE_ELEMENTS]) for i in starts)


def _notices(shuffled: Session, cases: Sequence[GoldenCase]) -> bool:
    """Return whether MIN_NOTICES golden rows refuse the graph."""
    num_rows = 0
    try:
        for case in cases:
            num_rows += int((row_ratios(shuffled, case)[0] > 1).sum())
            if num_rows >= MIN_NOTICES:
                return True
    except (BundleError, RuntimeError, ValueError):
        return True
    return False


def _is_consequential(session: Session, shuffled: Session) -> bool:
    """Return whether random inputs give other outputs than before, by more than the tolerance."""
    inputs = complete_inputs(session, _random_inputs(session.manifest))
    return _notices(shuffled, [GoldenCase(inputs=inputs, outputs=session.run(inputs))])


def _random_inputs(manifest: Manifest) -> Tensors:
    rng = np.random.default_rng(1)
    if isinstance(manifest.head, LanguageModelHead):
        steps = min(PROBE_STEPS, manifest.limits.max_steps or 1)
        ids = rng.integers(0, _vocabulary(manifest), (PROBE_ROWS, steps))
        return {"ids": ids, "past_lengths": np.full(PROBE_ROWS, steps - 1)}
    return {spec.name: _random_input(manifest, spec, rng) for spec in manifest.inputs}


def _random_input(manifest: Manifest, spec: TensorSpec, rng: np.random.Generator) -> npt.NDArray[np.generic]:
    steps = min(PROBE_STEPS, manifest.limits.max_steps or 1)
    sizes = {"steps": steps, **{axis: bounds.clip(PROBE_STEPS) for axis, bounds in manifest.limits.axes.items()}}
    shape = [sizes[axis] if isinstance(axis, str) else axis for axis in spec.row_shape]
    shape = [PROBE_ROWS if manifest.is_batched else 1, *shape]
    dtype, is_tensor = spec.numpy_dtype, manifest.reader.kind == "tensors"
    if spec.name == "lengths" and manifest.is_ragged:
        return rng.integers(1, steps + 1, shape)
    if dtype.kind == "f":
        values = rng.standard_normal(shape).astype(dtype)
        domain = manifest.domain.get(spec.name)
        return values if domain is None else np.clip(values, domain.low, domain.high).astype(dtype)
    if dtype.hasobject:
        return np.array([f"text {number}" for number in range(prod(shape))], object).reshape(shape)
    # Integers of unknown meaning may be indexes.
    end = 256 if dtype == np.uint8 and not is_tensor else _vocabulary(manifest)
    return rng.integers(0, end, shape).astype(dtype)


def _vocabulary(manifest: Manifest) -> int:
    """Return the number of token ids; 2 for inputs of integers that are no ids."""
    return manifest.reader.vocabulary if isinstance(manifest.reader, TextReader) else 2
