"""A job is done only when its records cover its plan."""

from pathlib import Path

import pytest

from service.scoring.execution import finished_result
from service.scoring.input.files import list_files
from service.scoring.input.rows import ReadSpec
from service.scoring.job import LINE_FORMATS, TextOptions
from service.scoring.output.ledger import Ledger
from service.scoring.sources import SOURCES
from tests.service.scoring.conftest import Score
from tests.service.scoring.inputs import texts, write_text
from tests.service.scoring.sources.text.test_openai import line, write
from tests.service.scoring.sources.text.test_ts import HEADER
from tests.service.scoring.test_job import job_of

CONTENTS = {"text": "a\n\nb\n", "jsonl": '{"text": "a"}\n\n{"text": "b"}\n', "ts": HEADER + "1:2:a\n\n3:4:b\n"}


@pytest.mark.parametrize("name", [*CONTENTS, "openai"])
def test_formats_whose_plan_counts_lines_are_known(name: str, tmp_path: Path) -> None:
    """Their plan has more rows than they hold; every other format plans exactly its rows."""
    path = tmp_path / f"a.{'txt' if name == 'text' else 'jsonl' if name == 'openai' else name}"
    if name == "openai":
        write(path, [line("a", prompt="a"), line("b", prompt="b")])
        path.write_text(path.read_text().replace("\n", "\n\n"))
    else:
        path.write_text(CONTENTS[name])
    [file] = list_files([str(path)], output=tmp_path / "out", input_format=name)  # type: ignore[arg-type]
    names = SOURCES[file.format].schema(file, TextOptions()).names
    source = SOURCES[file.format](file, ReadSpec(columns=tuple(names)))
    spans = list(source.spans(shard_rows=100))
    rows = [number for span in spans for part in source.read(span) for number in part.numbers]
    assert sum(span.rows for span in spans) > len(rows) == 2
    assert name in LINE_FORMATS


def test_a_finished_job_is_found_by_its_input(score: Score, tmp_path: Path) -> None:
    source = write_text(tmp_path / "a.txt", texts(5))
    result = score("text-classifier", source, tmp_path / "out")
    files = list_files([str(source)], output=tmp_path / "out", input_format=None)
    job, ledger = job_of(tmp_path / "out"), Ledger(tmp_path / "out")
    found = finished_result(job, files, ledger)
    assert found is not None
    assert found.summary == result.summary
    write_text(tmp_path / "a.txt", texts(6))
    assert finished_result(job, list_files([str(source)], output=tmp_path / "out", input_format=None), ledger) is None
