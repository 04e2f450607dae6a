"""Rejected rows are written to a file and, up to a bound, to the log."""

import json
from pathlib import Path

import pytest

from service.scoring.output.rejects import LOGGED_CHARS, LOGGED_ROWS, loggable
from tests.service.scoring.conftest import Score, rejects
from tests.service.scoring.inputs import texts, write_jsonl

# Writes of up to this many bytes to a pipe are atomic, so lines of several workers do not mix.
PIPE_BUF = 4096


def test_rejects_are_logged_with_shard_and_row(score: Score, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = {3: None, 7: 1, 31: None}
    source = write_jsonl(tmp_path / "a.jsonl", {"text": [bad.get(i, text) for i, text in enumerate(texts(40))]})
    score("text-classifier", source, tmp_path / "out", shard_rows=30)
    assert [record.getMessage() for record in caplog.records] == [
        "shard 00000-000000: a.jsonl, row 3: text: expected a non-empty text, got null",
        "shard 00000-000000: a.jsonl, row 7: text: expected a non-empty text, got 1",
        "shard 00000-000001: a.jsonl, row 31: text: expected a non-empty text, got null",
    ]


@pytest.mark.parametrize("more", [0, 1, 9000])
def test_first_rejects_of_a_shard_are_logged_and_the_others_counted(
    more: int, score: Score, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    count = LOGGED_ROWS + more
    source = write_jsonl(tmp_path / "a.jsonl", {"text": list(range(count))})
    score("text-classifier", source, tmp_path / "out", shard_rows=count)
    messages = [record.getMessage() for record in caplog.records]
    for i, message in enumerate(messages[:LOGGED_ROWS]):
        assert message == f"shard 00000-000000: a.jsonl, row {i}: text: expected a non-empty text, got {i}"
    last = f"shard 00000-000000: a.jsonl: {more} more rejected, see rejects/part-00000-000000.jsonl"
    assert messages[LOGGED_ROWS:] == ([last] if more else [])
    assert [row["row"] for row in rejects(tmp_path / "out")] == list(range(count))


def test_log_lines_fit_in_one_write_to_a_pipe(score: Score, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    line = {"custom_id": "x", "url": "/v1/completions", "body": {"prompt": "a", "n": "\U0001f642" * 1000}}
    source = tmp_path / ("\U0001f642" * 60 + ".jsonl")
    lines = [{**line, "custom_id": str(i)} for i in range(LOGGED_ROWS + 1)]
    source.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    score("language-model", source, tmp_path / "out", output_format="parquet", request={})
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == LOGGED_ROWS + 1
    assert max(len(f"{message}\n".encode()) for message in messages) <= PIPE_BUF
    longest = loggable("\U0001f642" * 1000)
    assert len(f"shard 00000-000000: {longest}, row {10**12}: {longest}\n".encode()) <= PIPE_BUF


def test_input_cannot_forge_log_lines(score: Score, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["evil\nshard 00000-000000: all is well \x1b[2J", "é" * 1_000_000]
    lines = [
        {"custom_id": name[:9], "url": "/v1/completions", "body": {"prompt": "a", name: 1}, "note": "fine"}
        for name in names
    ]
    source = tmp_path / "a\x1b[2J\n.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    score("language-model", source, tmp_path / "out", output_format="parquet", request={})
    assert [row["reason"][:12] for row in rejects(tmp_path / "out")] == ["body/evil\nsh", "body/ééééééé"]
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        loggable(
            "shard 00000-000000: a\x1b[2J\n.jsonl, row 0: "
            "body/evil\nshard 00000-000000: all is well \x1b[2J: unknown field; "
        )
        + messages[0].partition("unknown field; ")[2],
        f"shard 00000-000000: a\\x1b[2J\\n.jsonl, row 1: body/{'é' * (LOGGED_CHARS - 6)}…",
    ]


@pytest.mark.parametrize("text", ["x" * 2_000_000, "\n" * 400, "\U000e0001" * 400, "\ud800" * 400, "🙂" * 400])
def test_loggable_text_is_printable_and_short(text: str) -> None:
    logged = loggable(text)
    assert logged.isprintable()
    assert len(logged) == LOGGED_CHARS
    assert loggable("as it is: é 🙂") == "as it is: é 🙂"
