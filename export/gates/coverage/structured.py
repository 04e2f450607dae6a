"""Inputs with structure that random and test items lack: extremes, ties, single values, every token and every grey.

A graph that goes off at one pixel, one grey value or one token, or only for large or tiny numbers, differs on one of
them. Numbers reach both ends of the domain.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from export.candidate import Candidate
from export.gates.backends import reference_backend, session_backend
from export.gates.cases import Array, Case, single_chunk
from export.gates.coverage.comparison import Comparison, Coverage
from export.gates.coverage.floats import latent_rows, series_rows
from export.gates.coverage.images import image_rows
from export.gates.coverage.row import Row
from export.gates.coverage.table import table_rows
from export.gates.coverage.tensors import tensor_rows
from export.gates.inputs.effort import max_rows, output_rows, sampled
from export.gates.inputs.items import fit
from export.gates.inputs.sizes import grid_sizes, smallest_sizes
from export.source import Source
from service.contract.heads import LanguageModelHead
from service.contract.pairs import is_latent_generator
from service.contract.readers import ImageReader, TableReader, TensorsReader, TextReader
from service.manifest import Manifest, ValueRange

# Bounds of one batch.
MAX_ROWS, MAX_BYTES = 128, 4 << 20
# Vocabularies above this size are sampled for a language model, whose logits have a value for every token.
MAX_TOKENS = 4096
# Test pictures that are cut or repeated to the size of the structured ones.
NUM_PICTURES = 8
# Rows with one token throughout have these lengths, and the longest of the model.
TIED_LENGTHS = (2, 7, 64)


def check_structured(candidate: Candidate, domain: Mapping[str, ValueRange]) -> Coverage:
    """Compare all structured inputs of the reader. Raises ExportError that names the input."""
    source, session = candidate.source, session_backend(candidate.session)
    reference, exact = reference_backend(source), reference_backend(source, float64=True)
    comparison = Comparison(candidate.manifest, "structured inputs", exact=exact)
    count = max_rows(candidate, smallest_sizes(candidate.manifest))
    for case in _cases(sampled(lambda: structured_rows(candidate, domain), count), candidate):
        comparison.add(case, reference(case), session(case))
    return comparison.result()


def structured_rows(candidate: Candidate, domain: Mapping[str, ValueRange]) -> Iterator[Row]:
    """The structured inputs of the reader."""
    source, manifest = candidate.source, candidate.manifest
    match manifest.reader:
        case ImageReader():
            return _pictures(source, manifest)
        case TableReader():
            return table_rows(source, manifest, domain)
        case TensorsReader():
            if is_latent_generator(manifest.reader, manifest.head, manifest.inputs):
                return latent_rows(source.examples.inputs["latents"], domain["latents"])
            return tensor_rows(source, manifest, domain)
        case TextReader(vocabulary=vocabulary):
            is_cached = isinstance(manifest.head, LanguageModelHead)
            max_tokens = MAX_TOKENS if is_cached else vocabulary
            return _token_rows(vocabulary, max_tokens, manifest.limits.max_steps or 1)
        case _:
            return series_rows(candidate, domain)


def _pictures(source: Source, manifest: Manifest) -> Iterator[Row]:
    """Structured pictures of the size of the model, or of the smallest size and the next."""
    spec, images = manifest.inputs[0], source.examples.inputs["images"]
    for sizes in grid_sizes(manifest)[:2]:
        shape = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in spec.row_shape)
        yield from image_rows(images if not sizes else np.stack([fit(image, shape) for image in images[:NUM_PICTURES]]))


def _token_rows(vocabulary: int, max_tokens: int, longest: int) -> Iterator[Row]:
    """Every token alone, first, last and throughout; the first tokens, which include padding and unknown, also long."""
    rng = np.random.default_rng(6)
    tokens = np.unique(np.linspace(0, vocabulary - 1, min(vocabulary, max_tokens)).round().astype(np.int64)).tolist()
    for steps, build in {1: _single, 3: _first, 4: _last, 5: _throughout}.items():
        if steps <= longest:
            for token in tokens:
                name, ids = build(token, rng.integers(vocabulary, size=steps))
                yield _row(name, ids)
    for steps in sorted({min(length, longest) for length in (*TIED_LENGTHS, longest)}):
        for token in (*tokens[:3], tokens[-1]):
            yield _row(*_throughout(token, np.zeros(steps, np.int64)))


def _row(name: str, ids: Array) -> Row:
    return Row(name=name, inputs={"ids": ids, "lengths": np.array(len(ids))})


def _single(token: int, ids: Array) -> tuple[str, Array]:
    return f"token {token} alone", np.full_like(ids, token)


def _first(token: int, ids: Array) -> tuple[str, Array]:
    ids[0] = token
    return f"token {token} as the first", ids


def _last(token: int, ids: Array) -> tuple[str, Array]:
    ids[-1] = token
    return f"token {token} as the last", ids


def _throughout(token: int, ids: Array) -> tuple[str, Array]:
    return f"token {token} at all {len(ids)} steps", np.full_like(ids, token)


def _cases(rows: Iterator[Row], candidate: Candidate) -> Iterator[Case]:
    """The rows, in order, as batches of rows of the same shapes."""
    batch: list[Row] = []
    for row in rows:
        max_batch = max(1, min(MAX_ROWS, MAX_BYTES // max(1, sum(array.nbytes for array in row.inputs.values()))))
        max_batch = output_rows(candidate.manifest, int(row.inputs.get("lengths", 1)), max_batch)
        if batch and (row.key != batch[0].key or len(batch) == max_batch):
            yield _case(batch, candidate)
            batch = []
        batch.append(row)
    yield _case(batch, candidate)


def _case(rows: list[Row], candidate: Candidate) -> Case:
    inputs = {name: np.stack([row.inputs[name] for row in rows]) for name in rows[0].inputs}
    is_cached = isinstance(candidate.manifest.head, LanguageModelHead)
    return Case(
        name=f"a batch of {len(rows)}",
        inputs=inputs,
        chunks=single_chunk(inputs["lengths"]) if is_cached else None,
        rows=tuple(row.name for row in rows),
        is_extreme=rows[0].is_extreme,
    )
