"""The columns that a model answers with, known before the first row and without its session.

Invariant: they are those of `Scorer.score`, because the same functions make them, from no rows.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from service.manifest import Manifest
from service.scoring.job import Format
from service.scoring.scorers import openai
from service.scoring.scorers.columns import HEADS
from service.scoring.scorers.generate import generated_schema
from service.scoring.scorers.scorer import empty_outputs


def answer_columns(
    manifest: Manifest, input_format: Format, columns: Mapping[str, str], request: Mapping[str, Any]
) -> dict[str, pa.Array]:
    """Empty columns of the answers to the rows of a job."""
    if input_format == "openai":
        schema = openai.SCHEMA
    elif manifest.task == "generate":
        is_language_model = manifest.head.kind == "language-model"
        schema = generated_schema(columns, request, is_language_model=is_language_model)
    else:
        head = HEADS[manifest.head.kind]
        outputs = empty_outputs(manifest, head.outputs(manifest), 0)
        counts_tokens = manifest.reader.kind == "text" and manifest.head.kind != "token-labels"
        tokens = {"tokens": pa.array([], pa.int32())} if counts_tokens else {}
        return {**head.columns(manifest, outputs, (), request).columns, **tokens}
    return {field.name: pa.array([], field.type) for field in schema}
