"""Reading one object at any position."""

import io
import random

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from service.scoring.storage import object_file
from service.scoring.storage.location import Location, parse_location
from service.scoring.storage.object_file import ObjectFile, ObjectFileSystem
from tests.service.scoring.object_server import ObjectServer

CONTENT = random.Random(0).randbytes(10_000)


@pytest.fixture
def location(store: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Location:
    monkeypatch.setattr(object_file, "BLOCK_BYTES", 256)
    monkeypatch.setattr(object_file, "MAX_BLOCKS", 6)
    store.put("x", CONTENT)
    return parse_location(store.uri("x"), option="--input")


def test_reads_equal_those_of_the_bytes(location: Location) -> None:
    file, expected, rng = ObjectFile(location), io.BytesIO(CONTENT), random.Random(1)
    assert file.read() == CONTENT
    for _ in range(200):
        offset, whence = rng.choice([(rng.randrange(11_000), 0), (-rng.randrange(9_000), 2), (rng.randrange(200), 1)])
        assert file.seek(offset, whence) == expected.seek(offset, whence)
        size = rng.randrange(4_000)
        assert file.read(size) == expected.read(size)
        assert file.tell() == expected.tell() or expected.tell() > len(CONTENT)
        assert len(file._blocks) <= 6
    buffer = bytearray(10)
    file.seek(0)
    assert file.readinto(buffer) == 10
    assert buffer == CONTENT[:10]


def test_reading_forward_takes_few_requests(location: Location) -> None:
    file, requests = ObjectFile(location), []
    fetch = file._fetch
    file._fetch = lambda first, count: requests.append(count) or fetch(first, count)  # type: ignore[method-assign,func-returns-value]
    while file.read(100):
        pass
    assert sum(requests) >= 40
    assert len(requests) < 16


def test_an_object_that_changes_is_an_error(store: ObjectServer, location: Location) -> None:
    file = ObjectFile(location)
    file.read(10)
    store.put("x", bytes(10_000))
    file.seek(5_000)
    with pytest.raises(OSError, match=f"{store.place('x')}: "):
        file.read(10)


def test_a_lost_answer_is_fetched_again(store: ObjectServer, location: Location) -> None:
    store.faults("every=3")
    assert ObjectFile(location).read() == CONTENT


def test_pyarrow_reads_columns_through_it(store: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_file, "BLOCK_BYTES", 4096)
    table = pa.table({name: pa.array(range(20_000)) for name in "abcd"})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=5_000)
    store.put("in/t.parquet", sink.getvalue())
    location = parse_location(store.uri(""), option="--input")
    system = pafs.PyFileSystem(ObjectFileSystem(location))
    with pq.ParquetFile("in/t.parquet", filesystem=system, buffer_size=2048, pre_buffer=False) as file:
        batches = list(file.iter_batches(batch_size=700, use_threads=False))
    assert pa.Table.from_batches(batches) == table
    assert [info.path for info in system.get_file_info(pafs.FileSelector("in"))] == ["in/t.parquet"]
    types = [info.type for info in system.get_file_info(["in", "in/t.parquet", "none", "in/t"])]
    assert types == [pafs.FileType.Directory, pafs.FileType.File, pafs.FileType.NotFound, pafs.FileType.NotFound]
    assert system == pafs.PyFileSystem(ObjectFileSystem(location))
    with pytest.raises(NotImplementedError, match="for reading"):
        system.delete_file("in/t.parquet")
