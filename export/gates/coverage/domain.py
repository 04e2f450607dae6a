"""The domain of a model: the range of each input of floats over which export shows parity, and the service answers.

It is wide on purpose: what a client may send today is well inside. It is bounded because float32 itself is not defined
at its ends: PyTorch gives NaN where ONNX Runtime gives a number. The ends are powers of two, so they are exact in
float32. Of a model from elsewhere, the widest domain is taken at whose ends the reference is finite: a model that takes
a logarithm is no reason to refuse numbers that it knows. Integers and texts have no domain: a table names its
categories and a text its tokens, and a `tensors` reader accepts what its dtype holds.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import ceil, log2

import numpy as np

from export.candidate import Candidate
from export.gates.backends import reference_backend
from export.gates.cases import Array, Case, draw_rows
from export.gates.inputs.sizes import longest_row, smallest_sizes
from export.gates.inputs.values import within_domain
from export.source import Source
from service.contract.heads import LanguageModelHead
from service.contract.pairs import is_latent_generator
from service.contract.readers import MAX_FLOAT32, SeriesReader, TableReader
from service.contract.tensors import FLOATS, TensorSpec
from service.manifest import Manifest, ValueRange

# A series may have values of up to this many times the largest of the test split; so may any input of floats.
SERIES_FACTOR = 30
# Of a model from elsewhere whose reference is not finite there.
SMALLER_FACTORS = (4, 1)
# A hidden state is at most 1, but onnxruntime's hyperbolic tangent exceeds that in its last bit.
HIDDEN = 2.0
# A cell state grows by at most 1 in a step. It may be that of this many items of the greatest length; where a gate is
# nearly closed, float32 sigmoids differ by an amount that a larger cell state would make an error.
CELL_ITEMS = 2
# The largest number that numpy's standard normal distribution gives in float32 is 8.21.
MIN_LATENT = 16
MAX_EXPONENT = {"float16": 15}
NUM_ROWS, MAX_STEPS = 6, 8


def choose_domain(source: Source, manifest: Manifest) -> dict[str, ValueRange]:
    """The range of each input of floats. The caches of a language model have none."""
    if isinstance(manifest.head, LanguageModelHead) or not _float_inputs(manifest):
        return {}
    if source.run is not None:
        return _domain(source, manifest, SERIES_FACTOR, is_signed=True)
    domains = [
        _domain(source, manifest, factor, is_signed=is_signed)
        for factor in (SERIES_FACTOR, *SMALLER_FACTORS)
        for is_signed in (True, False)
    ]
    given = [spec.name for spec in _float_inputs(manifest) if spec.name in source.examples.inputs]
    # A state, which no example has, keeps its bounds.
    exact = domains[0] | {name: _exact_range(source.examples.inputs[name]) for name in given}
    return next((domain for domain in domains if _is_finite(source, manifest, domain)), exact)


def with_domain(candidate: Candidate) -> Candidate:
    """The candidate with the domain in its manifest, within which numbers are drawn."""
    if candidate.manifest.domain:
        return candidate
    domain = choose_domain(candidate.source, candidate.manifest)
    return replace(candidate, manifest=candidate.manifest.model_copy(update={"domain": domain}))


def largest_test_value(source: Source, name: str) -> float:
    """The largest magnitude of this input in the test split."""
    return float(np.abs(source.examples.inputs[name]).max())


def _float_inputs(manifest: Manifest) -> list[TensorSpec]:
    return [spec for spec in manifest.inputs if spec.dtype in FLOATS]


def _domain(source: Source, manifest: Manifest, factor: float, *, is_signed: bool) -> dict[str, ValueRange]:
    domain: dict[str, ValueRange] = {}
    is_generator = is_latent_generator(manifest.reader, manifest.head, manifest.inputs)
    for spec in _float_inputs(manifest):
        if isinstance(manifest.reader, SeriesReader) and spec.name in {"h", "c"}:
            high = HIDDEN if spec.name == "h" else _power_of_two(CELL_ITEMS * (manifest.limits.max_steps or 1))
            domain[spec.name] = ValueRange(low=-high, high=high)
            continue
        largest = largest_test_value(source, spec.name)
        high = _power_of_two(
            max(MIN_LATENT, largest) if is_generator else factor * largest, MAX_EXPONENT.get(spec.dtype, 127)
        )
        low = -high if is_signed or (source.examples.inputs[spec.name] < 0).any() else 0.0
        domain[spec.name] = ValueRange(low=low, high=high)
        if isinstance(manifest.reader, TableReader):
            domain[spec.name] = _widened(domain[spec.name], manifest.reader)
    return domain


def _widened(allowed: ValueRange, reader: TableReader) -> ValueRange:
    """The range that has the bounds of every column. A column without bounds has those of the range."""
    lows = [column.low if column.low > -MAX_FLOAT32 else allowed.low for column in reader.numbers]
    highs = [column.high if column.high < MAX_FLOAT32 else allowed.high for column in reader.numbers]
    return ValueRange(low=min(lows), high=max(highs))


def _exact_range(values: Array) -> ValueRange:
    return ValueRange(low=float(values.min()), high=float(values.max()))


def _is_finite(source: Source, manifest: Manifest, domain: Mapping[str, ValueRange]) -> bool:
    """Whether the reference is finite for numbers at both ends of the domain, and anywhere between them."""
    rng, longest = np.random.default_rng(11), longest_row(manifest)
    manifest = manifest.model_copy(update={"domain": dict(domain)})
    lengths = np.full(NUM_ROWS, 1 if longest is None else min(longest, MAX_STEPS))
    inputs = dict(draw_rows(source, manifest, lengths, rng, smallest_sizes(manifest)))
    for name, allowed in domain.items():
        values = rng.uniform(allowed.low, allowed.high, inputs[name].shape)
        for row, value in enumerate((allowed.low, allowed.high, min(max(0.0, allowed.low), allowed.high))):
            values[row] = value
        inputs[name] = within_domain(manifest, name, values.astype(inputs[name].dtype))
    with np.errstate(all="ignore"):
        outputs = reference_backend(source)(Case(name="the ends of the domain", inputs=inputs))
    return all(np.isfinite(values).all() for values in outputs.values() if values.dtype.kind == "f")


def _power_of_two(value: float, max_exponent: int = 127) -> float:
    """The smallest power of two that is not below the value, at least 1."""
    return 2.0 ** min(max(0, ceil(log2(max(value, 1.0)))), max_exponent)
