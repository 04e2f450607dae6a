"""The columns of an answer, told before the first row, are those of scored rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.engine.sessions.model import Model
from service.scoring.scorers.answer_schema import answer_columns
from tests.service.scoring.conftest import Score
from tests.service.scoring.inputs import FORMATS, prompts, write_jsonl
from tests.service.scoring.sources.text.test_openai import line, write

NAMES = {"parquet-pixels", "csv", "parquet-series", "parquet-tags", "prompts", "seeds"}


@pytest.mark.parametrize("name", sorted(NAMES & FORMATS.keys()))
@pytest.mark.parametrize("top_k", [1, 2])
def test_columns_are_those_of_scored_rows(
    name: str,
    top_k: int,
    *,
    make_input: Callable[[str, int], tuple[str, Path]],
    score: Score,
    models: dict[str, Model],
    tmp_path: Path,
) -> None:
    family, source = make_input(name, 3)
    generates = family in {"language-model", "image-generator"}
    request: dict[str, Any] = {} if generates else {"top_k": top_k}
    table = score(family, source, tmp_path / "out", request=request).to_table()
    columns = answer_columns(models[family].manifest, "parquet", {}, request)
    assert [(name, column.type) for name, column in columns.items()] == [
        (field.name, field.type) for field in table.schema if field.name not in {"file", "row"}
    ]
    assert all(len(column) == 0 for column in columns.values())


def test_logprobs_and_openai_answers(score: Score, models: dict[str, Model], tmp_path: Path) -> None:
    manifest = models["language-model"].manifest
    source = write_jsonl(tmp_path / "in.jsonl", {"prompt": prompts(2)})
    request = {"logprobs": True, "max_tokens": 2}
    table = score("language-model", source, tmp_path / "out", request=request).to_table()
    columns = answer_columns(manifest, "jsonl", {"prompt": "prompt"}, request)
    assert {name: column.type for name, column in columns.items()} == dict(
        zip(table.schema.names[2:], table.schema.types[2:], strict=True)
    )
    batch = write(tmp_path / "batch.jsonl", [line("a", prompt="ab", max_tokens=2)])
    table = score("language-model", batch, tmp_path / "batch", request={}, output_format="parquet").to_table()
    assert list(answer_columns(manifest, "openai", {}, {})) == table.schema.names[3:]
