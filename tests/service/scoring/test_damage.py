"""A finished job whose files were lost or damaged is repaired to equal bytes by the same command, or it fails."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from service.scoring.job import ScoringError
from tests.service.scoring.conftest import Score, tree
from tests.service.scoring.inputs import texts, write_jsonl
from tests.service.scoring.object_server import ObjectServer
from tests.service.scoring.sources.text.test_openai import line, write

Damage = Callable[[bytes], bytes | None]
LOST: Damage = lambda content: None  # noqa: E731 - one of three
CUT: Damage = lambda content: content[: len(content) // 2]  # noqa: E731
FLIPPED: Damage = lambda content: content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]  # noqa: E731


class Local:
    """A local output folder."""

    def __init__(self, folder: Path) -> None:
        self.output = str(folder)
        self._folder = folder

    def tree(self) -> dict[str, bytes]:
        return tree(self._folder)

    def put(self, name: str, content: bytes | None) -> None:
        path = self._folder / name
        path.unlink() if content is None else path.write_bytes(content)

    def read(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()


class Remote:
    """An output folder in an object store."""

    def __init__(self, server: ObjectServer) -> None:
        self.output = server.uri("out")
        self._server = server

    def tree(self) -> dict[str, bytes]:
        return self._server.tree("out")

    def put(self, name: str, content: bytes | None) -> None:
        self._server.delete(f"out/{name}") if content is None else self._server.put(f"out/{name}", content)

    def read(self, name: str) -> bytes:
        return self._server.read(f"out/{name}")


@pytest.fixture(params=["local", "remote"])
def place(request: pytest.FixtureRequest, tmp_path: Path, server: ObjectServer) -> Local | Remote:
    return Local(tmp_path / "out") if request.param == "local" else Remote(server)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three shards of good rows and a bad one in each."""
    rows: list[object] = list(texts(45))
    rows[::20] = [None] * 3
    return write_jsonl(tmp_path / "in.jsonl", {"text": rows})


@pytest.mark.parametrize("sink", ["parquet", "csv", "jsonl", "openai"])
@pytest.mark.parametrize("damage", [LOST, CUT, FLIPPED], ids=["lost", "cut", "flipped"])
def test_one_damaged_file_is_repaired_or_refused(
    damage: Damage, sink: str, place: Local | Remote, source: Path, score: Score
) -> None:
    """Every file of a finished job in turn, whatever it writes."""
    verify = damage is FLIPPED
    options: dict[str, Any] = {"output_format": sink}
    family = "text-classifier"
    if sink == "openai":
        rows = [line(f"r{i}", prompt=f"ab{i}", max_tokens=2) for i in range(40)]
        for row in rows[::16]:
            row["body"]["temperature"] = "hot"
        family, options = "language-model", {"request": {}}
        source = write(source.parent / "batch.jsonl", rows)

    def run() -> bool:
        """Whether the job is finished."""
        with suppress(ScoringError):
            return score(family, source, place.output, verify=verify, **options).summary is not None
        return False

    assert run()
    expected = place.tree()
    assert len([name for name in expected if name.startswith(("predictions/", "rejects/", "errors/"))]) == 6
    repaired = set()
    for name in [*(name for name in expected if not name.endswith("/lock")), "timing.json"]:
        place.put(name, damage(place.read(name)))
        if run():
            repaired.add(name)
            assert place.tree() == expected, name
        else:
            # Only the description of the job cannot be made again.
            assert name == "_ledger/job.json"
            place.put(name, expected[name])
            assert run()
    assert repaired == {*expected, "timing.json"} - {"_ledger/job.json", "_ledger/lock"}


@pytest.mark.parametrize("name", ["summary.json", "confidence.png", "_ledger/done.json"])
def test_documents_are_always_compared_by_hash(name: str, place: Local | Remote, source: Path, score: Score) -> None:
    score("text-classifier", source, place.output)
    expected = place.tree()
    place.put(name, FLIPPED(expected[name]))
    assert score("text-classifier", source, place.output).summary is not None
    assert place.tree() == expected


def test_only_what_is_damaged_is_computed_again(place: Local | Remote, source: Path, score: Score) -> None:
    assert score("text-classifier", source, place.output).computed == 45
    assert score("text-classifier", source, place.output).computed == 0
    place.put("predictions/part-00000-000001.parquet", None)
    assert score("text-classifier", source, place.output).computed == 16
    assert score("text-classifier", source, place.output, verify=True).computed == 0


def test_a_lost_output_is_made_again(place: Local | Remote, source: Path, score: Score, tmp_path: Path) -> None:
    score("text-classifier", source, place.output)
    expected = place.tree()
    for name in [*expected, "timing.json"]:
        place.put(name, None)
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert score("text-classifier", source, place.output).computed == 45
    assert place.tree() == expected
