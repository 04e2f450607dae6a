"""Arrow IPC files and streams, Feather, ORC, and what Hugging Face's `save_to_disk` writes."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import feather, orc

from service.scoring.input.files import list_files
from service.scoring.job import ScoringError
from service.scoring.sources import arrow
from tests.service.scoring.conftest import Score
from tests.service.scoring.inputs import texts
from tests.service.scoring.sources.conftest import Read, read_all, spans_of

NAMES = ("a.arrow", "a.arrows", "a.orc")


def write(path: Path, table: pa.Table, *, batch: int = 1000) -> Path:
    if path.suffix == ".orc":
        orc.write_table(table, path, stripe_size=1 << 16, batch_size=min(batch, 1024))
        return path
    new = pa.ipc.new_file if path.suffix == ".arrow" else pa.ipc.new_stream
    with pa.OSFile(str(path), "wb") as file, new(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch)
    return path


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 60), batch=st.integers(1, 70), size=st.integers(1, 30), name=st.sampled_from(NAMES),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_every_row_is_read_once_for_any_batch_and_shard_size(  # noqa: PLR0917
    rows: int, batch: int, size: int, name: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("arrow") / name
    write(path, pa.table({"id": pa.array(range(rows), pa.int64())}), batch=batch)
    found = read_all(path, size, seed=seed)
    assert [(number, values["id"]) for number, values, _ in found] == [(i, i) for i in range(rows)]
    assert all(span.rows <= size for span in spans_of(path, size))


@pytest.mark.parametrize("name", NAMES)
def test_wide_rows_make_small_shards_and_chunks(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "SHARD_BYTES", 100_000)
    monkeypatch.setattr(arrow, "CHUNK_BYTES", 10_000)
    wide = [np.random.default_rng(i).bytes(5000) for i in range(100)]
    path = write(tmp_path / name, pa.table({"id": range(100), "wide": wide}))
    assert max(span.rows for span in spans_of(path, 1000)) <= 20
    assert [values["wide"] for _, values, _ in read_all(path, 1000)] == wide


@pytest.mark.parametrize("name", NAMES)
def test_the_digest_covers_values_and_types(name: str, tmp_path: Path) -> None:
    digests = set()
    for number, values in enumerate([pa.array([1, 2]), pa.array([1, 3]), pa.array([1, 2], pa.int32())]):
        path = tmp_path / str(number) / name
        path.parent.mkdir()
        digests.add(spans_of(write(path, pa.table({"a": values})), 9)[0].digest)
    assert len(digests) == 3


def test_the_digest_covers_dictionaries(tmp_path: Path) -> None:
    first = write(tmp_path / "a.arrow", pa.table({"a": pa.array(["x", "y"]).dictionary_encode()}))
    second = write(tmp_path / "b.arrow", pa.table({"a": pa.array(["x", "z"]).dictionary_encode()}))
    assert spans_of(first, 9)[0].digest != spans_of(second, 9)[0].digest


@pytest.mark.parametrize("compression", ["zstd", "lz4", "uncompressed"])
def test_feather_and_polars_files_are_read(compression: Any, read: Read, tmp_path: Path) -> None:
    table = pa.table({"text": [f"text {i}" for i in range(50)], "n": range(50)})
    feather.write_feather(table, str(tmp_path / "a.feather"), compression=compression, chunksize=8)
    assert [values for _, values, _ in read(tmp_path / "a.feather")] == table.to_pylist()
    frame = pl.DataFrame({"text": ["a", "b"], "kind": pl.Series(["x", "y"], dtype=pl.Categorical)})
    frame.write_ipc(tmp_path / "b.arrow", compression=compression)
    assert [values for _, values, _ in read(tmp_path / "b.arrow")] == frame.to_dicts()


def test_a_folder_that_hugging_face_saved_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the library that writes the folder is not installed")
    picture = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))
    saved = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "image": [picture] * 3})
    saved.cast_column("image", datasets.Image()).select([2, 0]).save_to_disk(tmp_path / "saved")
    [file] = list_files([str(tmp_path / "saved")], output=tmp_path / "out", input_format=None)
    rows = read_all(Path(file.uri))
    assert [values["text"] for _, values, _ in rows] == ["c", "a"]
    decoded = Image.open(io.BytesIO(rows[0][1]["image"]["bytes"]))
    assert np.array_equal(np.asarray(decoded), np.asarray(picture))


@pytest.mark.parametrize("name", NAMES)
def test_a_truncated_file_is_an_error(name: str, read: Read, tmp_path: Path) -> None:
    path = write(tmp_path / name, pa.table({"a": [f"text {i}" for i in range(9000)]}))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises((OSError, EOFError, pa.ArrowInvalid)):
        read(path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", [b"", b"ARROW1\0\0", b"PK\x03\x04 a zip", b"\xff" * 64])
def test_a_file_of_another_format_is_an_error(name: str, content: bytes, read: Read, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((OSError, EOFError, pa.ArrowInvalid)):
        read(tmp_path / name)


def test_a_name_given_twice_is_refused(read: Read, tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(ScoringError, match="more than one column 'a'"):
        read(write(tmp_path / "a.arrow", table))


@pytest.mark.parametrize("name", ["a.arrow", "a.arrows"])
def test_a_text_that_is_not_utf8_is_one_fault(name: str, read: Read, tmp_path: Path) -> None:
    column = pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string())
    found = read(write(tmp_path / name, pa.table({"text": column})))
    assert [(values["text"], fault) for _, values, fault in found] == [
        ("a", None), (None, "column 'text': a text that is not UTF-8"), ("c", None),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["{}.arrow", "{}.orc"])
def test_copied_columns_of_all_files_have_one_type(name: str, score: Score, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i, kind in enumerate((pa.int32(), pa.int64())):
        table = pa.table({"text": texts(5), "n": pa.array(range(5), kind)})
        write(tmp_path / "in" / name.format(i), table)
    result = score("text-classifier", tmp_path / "in", tmp_path / "out", keep=("n",))
    assert result.failures == ()
    assert {pq.read_schema(path).field("n").type for path in result.predictions} == {pa.int64()}
