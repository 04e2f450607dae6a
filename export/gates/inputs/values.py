"""Random values of one input, as its reader allows them: pixels, tokens, categories, or numbers like the examples.

Numbers are normal around the mean of the examples with twice their deviation, within the domain of the input. Integers
and texts of a `tensors` reader have no declared range, so they are drawn from what the examples have: integers between
the smallest and the largest, texts among the texts that occur.
"""

from collections.abc import Sequence

import numpy as np

from export.source import Array, Source
from service.contract.pairs import is_latent_generator
from service.contract.readers import MAX_FLOAT32, ImageReader, SeriesReader, TableReader, TextReader
from service.contract.tensors import FLOATS, TensorSpec
from service.manifest import Manifest, ValueRange

# No example has a deviation of 0.
MIN_DEVIATION = 1e-3


def random_values(
    source: Source, manifest: Manifest, spec: TensorSpec, shape: Sequence[int], rng: np.random.Generator
) -> Array:
    """An array of this shape, whose first axis counts the rows."""
    match manifest.reader:
        case ImageReader():
            return rng.integers(0, 256, shape, dtype=np.uint8)
        case TextReader(vocabulary=vocabulary):
            return rng.integers(0, vocabulary, shape)
        case SeriesReader():
            return _series(source, spec, shape, rng)
        case TableReader() as reader:
            return _table(source, manifest, reader, spec, shape, rng)
    if is_latent_generator(manifest.reader, manifest.head, manifest.inputs):
        return rng.standard_normal(shape).astype(np.float32)
    return _tensor(source, manifest, spec, shape, rng)


def within_domain(manifest: Manifest, name: str, values: Array) -> Array:
    """The values, clipped to the domain of the input; of a table also to the bounds of each column."""
    allowed = manifest.domain.get(name)
    if allowed is not None:
        values = np.clip(values, allowed.low, allowed.high).astype(values.dtype)
    if isinstance(manifest.reader, TableReader) and name == "numbers":
        lows, highs = (np.array([getattr(one, end) for one in manifest.reader.numbers]) for end in ("low", "high"))
        values = np.clip(values, lows, highs).astype(np.float32)
    return values


def at_the_ends(manifest: Manifest, spec: TensorSpec, rows: Array) -> Array:
    """Rows of an input with all its numbers at one end of what it may hold, in turn; other inputs as they are."""
    is_picture = isinstance(manifest.reader, ImageReader)
    allowed = ValueRange(low=0, high=255) if is_picture else manifest.domain.get(spec.name)
    if allowed is None:
        return rows
    outliers = np.resize((allowed.high, allowed.low), len(rows)).reshape(-1, *[1] * (rows.ndim - 1))
    return within_domain(manifest, spec.name, np.broadcast_to(outliers, rows.shape).astype(rows.dtype))


def _series(source: Source, spec: TensorSpec, shape: Sequence[int], rng: np.random.Generator) -> Array:
    match spec.name:
        case "series":
            series = source.examples.inputs["series"]
            return rng.normal(series.mean(), 2 * series.std() + MIN_DEVIATION, shape).astype(np.float32)
        case "h":
            return rng.uniform(-1, 1, shape).astype(np.float32)
        case _:
            return rng.standard_normal(shape).astype(np.float32)


def _table(  # noqa: PLR0917
    source: Source,
    manifest: Manifest,
    reader: TableReader,
    spec: TensorSpec,
    shape: Sequence[int],
    rng: np.random.Generator,
) -> Array:
    if spec.name == "categories":
        columns = [rng.integers(0, len(column.values), shape[0]) for column in reader.categories]
        return np.stack(columns, axis=1).astype(np.int64)
    numbers = source.examples.inputs["numbers"].astype(np.float64)
    values = rng.normal(numbers.mean(0), 2 * numbers.std(0) + MIN_DEVIATION, shape)
    # Half of the values of a column with bounds are anywhere between them.
    for i, column in enumerate(reader.numbers):
        if column.low > -MAX_FLOAT32 and column.high < MAX_FLOAT32:
            is_anywhere = rng.random(shape[0]) < 0.5
            values[:, i] = np.where(is_anywhere, rng.uniform(column.low, column.high, shape[0]), values[:, i])
    return within_domain(manifest, spec.name, values.astype(np.float32))


def _tensor(
    source: Source, manifest: Manifest, spec: TensorSpec, shape: Sequence[int], rng: np.random.Generator
) -> Array:
    examples = source.examples.inputs[spec.name]
    if spec.dtype in FLOATS:
        numbers = examples.astype(np.float64)
        values = rng.normal(numbers.mean(), 2 * numbers.std() + MIN_DEVIATION, shape)
        largest = float(np.finfo(spec.numpy_dtype).max)
        return within_domain(manifest, spec.name, np.clip(values, -largest, largest).astype(spec.numpy_dtype))
    if spec.dtype == "bool":
        return rng.random(shape) < 0.5
    if spec.dtype == "string":
        return rng.choice(np.array(sorted(set(examples.ravel().tolist())), object), shape)
    return rng.integers(examples.min(), examples.max(), shape, dtype=spec.numpy_dtype, endpoint=True)
